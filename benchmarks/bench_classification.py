"""Classification beside the libraries a user would pick: python -m benchmarks.bench_classification [--pixels 1000000].

All run in one process, in turn, on the same arrays and with the same number of threads; labels and probabilities are
compared in the same run. Rates are in million pixels a second (Mpx/s), medians over the rounds; a ratio is the
median of the ratios within each round, so that a machine that speeds up or slows down does not favour anyone.
Slow peers get fewer pixels. Compiling is timed apart. The table goes to standard output, all figures to
benchmarks/results/classification.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import ndimage

from benchmarks.machine import machine_facts
from geococa.classification import classify
from geococa.models import Model

N_BANDS = 10
PAIRS = [(0, 1), (2, 3), (3, 6), (6, 8), (8, 9), (3, 8), (2, 9), (1, 6), (0, 3), (7, 2)]
NAMES = [f"band{i}" for i in range(N_BANDS)] + [f"index{i}" for i in range(len(PAIRS))]


def landscape(pixels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 planes (20, pixels) of overlapping, textured classes, and the class of each pixel (5 classes)."""
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(pixels))
    smooth = [ndimage.zoom(rng.normal(size=(side // 16 + 2,) * 2), 16, order=1)[:side, :side] for _ in range(8)]
    truth = np.argmax(smooth[:5], axis=0).ravel()
    centre = rng.uniform(500, 4000, N_BANDS)
    offset = rng.normal(size=(5, N_BANDS)) * 160
    texture = np.stack([field.ravel() for field in smooth[5:]])
    bands = centre[:, None] + offset[truth].T + (rng.normal(size=(N_BANDS, 3)) * 120) @ texture
    bands = np.maximum(np.round(bands + 160 * rng.normal(size=bands.shape)), 1)
    indices = [(bands[a] - bands[b]) / (bands[a] + bands[b]) for a, b in PAIRS]
    return np.concatenate([bands, np.stack(indices)]).astype(np.float32), truth


@dataclass
class Peer:
    """One way to classify: a function of ``(pixels, features)`` rows, how many it gets, and what it gives."""

    name: str
    run: Callable[[np.ndarray], np.ndarray]
    pixels: int
    rates: list[float] = field(default_factory=list)
    agreement: float = float("nan")


@dataclass
class Case:
    name: str
    model: Model
    planes: np.ndarray
    output: str
    peers: list[Peer]
    decisions: float


def ours(case: Case, pixels: int, threads: int) -> np.ndarray:
    """Map of labels or probabilities, through the public function."""
    side = int(np.sqrt(pixels))
    stack = case.planes[:, : side * side].reshape(-1, side, side)
    features = xr.DataArray(stack, dims=("feature", "y", "x"), coords={"feature": list(case.model.features)})
    return classify(features, case.model, case.output, threads=threads).values


def as_rows(found: np.ndarray, output: str) -> np.ndarray:
    """Labels ``(pixels,)`` from 0, or probabilities ``(pixels, classes)``, as the peers give them."""
    return found.ravel().astype(int) - 1 if output == "labels" else found.reshape(len(found), -1).T


def measure(case: Case, rounds: int, pixels: int, threads: int) -> dict:
    start = time.perf_counter()
    ours(case, 4096, threads)
    first = time.perf_counter() - start
    rows = np.ascontiguousarray(case.planes.T)
    expected = as_rows(ours(case, pixels, threads), case.output)
    for peer in case.peers:
        peer.run(rows[:1000])
    rates = []
    for _ in range(rounds):
        seconds, _ = timed(lambda: ours(case, pixels, threads))
        rates.append(len(expected) / 1e6 / seconds)
        for peer in case.peers:
            seconds, answer = timed(lambda peer=peer: peer.run(rows[: peer.pixels]))
            peer.rates.append(peer.pixels / 1e6 / seconds)
            peer.agreement = agreement(expected[: len(answer)], answer[: len(expected)], case.output)
    lines = [{"name": "geococa", **summary(rates), "first_call_s": first, "pixels": len(expected)}]
    for peer in case.peers:
        ratios = np.asarray(rates) / np.asarray(peer.rates)
        lines.append(
            {
                "name": peer.name,
                **summary(peer.rates),
                "pixels": peer.pixels,
                "agreement": peer.agreement,
                "ratio": float(np.median(ratios)),
                "ratio_low": float(ratios.min()),
                "ratio_high": float(ratios.max()),
            }
        )
    return {"case": case.name, "decisions_per_pixel": case.decisions, "lines": lines}


def timed(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds that a call takes, and what it gives.

    The threads of BLAS and OpenMP go on spinning for some time after a call; whoever comes next gets half a
    processor. So every call waits until they sleep.
    """
    time.sleep(0.2)
    start = time.perf_counter()
    answer = run()
    return time.perf_counter() - start, answer


def agreement(found: np.ndarray, expected: np.ndarray, output: str) -> float:
    """Share of equal labels, or the largest difference of a probability."""
    if output == "labels":
        return float((found == expected).mean())
    return float(np.abs(found - expected).max())


def summary(rates: list[float]) -> dict:
    return {"mpx_s": float(np.median(rates)), "mpx_s_low": min(rates), "mpx_s_high": max(rates)}


def decisions(model: Model, planes: np.ndarray) -> float:
    """Splits that a pixel passes, over all trees, on average."""
    arrays = model.arrays
    if "tree_start" not in arrays:
        return 0.0
    sample = planes[:, :: max(planes.shape[1] // 300, 1)]
    passed = 0
    for root in arrays["tree_start"][:-1]:
        node = np.full(sample.shape[1], root)
        while (inner := arrays["feature"][node] >= 0).any():
            passed += inner.sum()
            x = sample[np.maximum(arrays["feature"][node], 0), np.arange(sample.shape[1])]
            child = np.where(x <= arrays["threshold"][node], arrays["left"][node], arrays["right"][node])
            node = np.where(inner, child, node)
    return float(passed / sample.shape[1])


def onnx_session(estimator, threads: int):
    import onnxruntime
    from skl2onnx import to_onnx

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    plain = to_onnx(estimator, np.zeros((1, len(NAMES)), np.float32), options={"zipmap": False})
    return onnxruntime.InferenceSession(plain.SerializeToString(), settings, providers=["CPUExecutionProvider"])


def forest_case(name: str, output: str, planes, X, y, depth: int, threads: int, small: int) -> Case:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(100, max_depth=depth, random_state=0, n_jobs=threads).fit(X, y)
    call = "predict" if output == "labels" else "predict_proba"
    peers = [Peer("scikit-learn", getattr(forest, call), small)]
    if (patched := oneapi_forest(X, y, depth, threads)) is not None:
        peers.append(Peer("scikit-learn-intelex (own forest)", getattr(patched, call), small))
    if importable("onnxruntime", "skl2onnx"):
        session = onnx_session(forest, threads)
        which = 0 if output == "labels" else 1
        peers.append(Peer("onnxruntime", lambda rows: session.run(None, {"X": rows})[which], small // 4))
    model = Model.from_estimator(forest, features=NAMES, classes=[f"class{k}" for k in forest.classes_])
    return Case(name, model, planes, output, peers, decisions(model, planes))


def oneapi_forest(X, y, depth: int, threads: int):
    """Intel's forest trains with its own random numbers, so it is another forest of the same size."""
    if not importable("sklearnex"):
        return None
    from sklearnex.ensemble import RandomForestClassifier

    return RandomForestClassifier(100, max_depth=depth, random_state=0, n_jobs=threads).fit(X, y)


def boosting_case(name: str, planes, X, y, threads: int, small: int) -> Case:
    import lightgbm

    booster = lightgbm.LGBMClassifier(n_estimators=100, num_leaves=31, verbose=-1, n_jobs=threads, random_state=0).fit(
        X, y
    )
    peers = [Peer("LightGBM", booster.predict, small // 2)]
    n_classes = len(booster.classes_)
    if importable("lleaves"):
        peers.append(Peer("lleaves (compiled LightGBM)", lleaves_predict(booster.booster_, threads), small * 2))
    if importable("treelite"):
        peers.append(Peer("treelite gtil", treelite_predict(booster.booster_, threads), small // 2))
    if importable("xgboost"):
        import xgboost

        other = xgboost.XGBClassifier(
            n_estimators=100, max_leaves=31, max_depth=0, grow_policy="lossguide", n_jobs=threads
        )
        peers.append(Peer("XGBoost (own trees)", other.fit(X, y).predict, small * 2))
    if importable("ydf") and n_classes == 2:
        peers.append(Peer("ydf (own trees)", ydf_predict(X, y, threads), small * 2))
    model = Model.from_estimator(booster, features=NAMES, classes=[f"class{k}" for k in range(n_classes)])
    return Case(name, model, planes, "labels", peers, decisions(model, planes))


def lleaves_predict(booster, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import lleaves
    import llvmlite.binding

    if not hasattr(llvmlite.binding, "PassManagerBuilder"):
        llvmlite.binding.PassManagerBuilder = HighestOptimisation
        llvmlite.binding.ModulePassManager = HighestOptimisation
        llvmlite.binding.initialize = lambda: None
    with tempfile.TemporaryDirectory() as folder:
        booster.save_model(f"{folder}/model.txt")
        model = lleaves.Model(model_file=f"{folder}/model.txt")
        model.compile()
    return lambda rows: decide(model.predict(rows, n_jobs=threads))


class HighestOptimisation:
    """LLVM's -O3 by its new interface, for lleaves 1.3, which asks for the same by one that LLVM gave up."""

    opt_level = inlining_threshold = 0

    def populate(self, manager) -> None:
        pass

    def run(self, module) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), opt=3)
        tuning = llvm.create_pipeline_tuning_options(speed_level=3)
        builder = llvm.create_pass_builder(machine, tuning)
        builder.getModulePassManager().run(module, builder)


def treelite_predict(booster, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import treelite

    model = treelite.frontend.from_lightgbm(booster)
    # gtil takes double precision for trees that were trained in it
    return lambda rows: decide(np.squeeze(treelite.gtil.predict(model, rows.astype(np.float64), nthread=threads)))


def decide(probabilities: np.ndarray) -> np.ndarray:
    """Labels of probabilities, ``(pixels,)`` of the second of two classes or ``(pixels, classes)``."""
    return (probabilities > 0.5).astype(int) if probabilities.ndim == 1 else probabilities.argmax(axis=1)


def ydf_predict(X, y, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import ydf

    ydf.verbose(0)
    data = {**{name: X[:, i] for i, name in enumerate(NAMES)}, "label": y}
    learner = ydf.GradientBoostedTreesLearner(
        label="label", num_trees=100, max_depth=6, validation_ratio=0.0, early_stopping="NONE", num_threads=threads
    )
    model = learner.train(data)

    def predict(rows: np.ndarray) -> np.ndarray:
        columns = {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(NAMES)}
        return (model.predict(columns, num_threads=threads) > 0.5).astype(int)

    return predict


def gaussian_case(name: str, planes, X, y, small: int) -> Case:
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    bands = planes[:N_BANDS]
    qda = QuadraticDiscriminantAnalysis().fit(X[:, :N_BANDS].astype(np.float64), y)
    model = Model.from_estimator(qda, features=NAMES[:N_BANDS], classes=[f"class{k}" for k in qda.classes_])
    return Case(
        name, model, np.ascontiguousarray(bands), "labels", [Peer("scikit-learn QDA", qda.predict, 2 * small)], 0.0
    )


def importable(*modules: str) -> bool:
    import importlib.util

    return all(importlib.util.find_spec(module) is not None for module in modules)


def report(result: dict) -> None:
    print(
        f"\n{result['case']}"
        + (f", {result['decisions_per_pixel']:.0f} decisions a pixel" * bool(result["decisions_per_pixel"]))
    )
    for line in result["lines"]:
        if "ratio" not in line:
            print(f"  {line['name']:36s}{line['mpx_s']:9.3f} Mpx/s   first call {line['first_call_s']:.1f} s")
            continue
        spread = f"({line['ratio_low']:.1f} to {line['ratio_high']:.1f})"
        print(
            f"  {line['name']:36s}{line['mpx_s']:9.3f} Mpx/s   x {line['ratio']:6.1f} {spread:18s} agreement {line['agreement']:.3g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=1_000_000, help="pixels for geococa")
    parser.add_argument("--small", type=int, default=60_000, help="pixels for slow peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="run the cases whose name holds this text")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    threads, small = options.threads, options.small
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)
    planes, truth = landscape(options.pixels)
    rng = np.random.default_rng(1)
    chosen = rng.choice(len(truth), min(30_000, len(truth)), replace=False)
    X, five = np.ascontiguousarray(planes[:, chosen].T), truth[chosen].copy()
    wrong = rng.random(len(chosen)) < 0.05
    five[wrong] = rng.integers(0, 5, wrong.sum())
    two = (five == 0).astype(int)
    makers: dict[str, Callable[[str], Case]] = {
        "forest, 2 classes, 100 trees, depth 14, labels": lambda n: forest_case(
            n, "labels", planes, X, two, 14, threads, small
        ),
        "forest, 2 classes, 100 trees, depth 14, probabilities": lambda n: forest_case(
            n, "probability", planes, X, two, 14, threads, small
        ),
        "forest, 5 classes, 100 trees, depth 20, labels": lambda n: forest_case(
            n, "labels", planes, X, five, 20, threads, small
        ),
        "boosting, 2 classes, 100 x 31 leaves, labels": lambda n: boosting_case(n, planes, X, two, threads, small),
        "boosting, 5 classes, 500 x 31 leaves, labels": lambda n: boosting_case(
            n, planes, X, five, threads, small // 4
        ),
        "Gaussian maximum likelihood, 10 bands, 5 classes, labels": lambda n: gaussian_case(n, planes, X, five, small),
    }
    results = []
    for name, make in makers.items():
        if options.only in name:
            result = measure(make(name), options.rounds, options.pixels, threads)
            report(result)
            results.append(result)
    if options.only:
        return
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "classification.json").write_text(
        json.dumps({"machine": machine_facts(threads), "cases": results}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
