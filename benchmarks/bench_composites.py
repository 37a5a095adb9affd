"""Composite kernels beside the tools a user would pick, in one run: python -m benchmarks.bench_composites.

Median of 12 and 30 dates x 10 bands beside bottleneck and numpy, geometric median beside hdstats (in the Python of
``--hdstats-python``, since it has no wheel for current numpy) and beside a plain-numpy Weiszfeld, all to the same step.
Rounds are interleaved and times are processor times of one thread, so that other work on the machine cancels;
compiling comes before the first round. Writes benchmarks/results/composites.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import bottleneck
import numpy as np
import pandas as pd
import xarray as xr

from geococa._kernels.medians import PITCH, composite_medians, network_size
from geococa._kernels.temporal import geomedian
from geococa.composites import composite

BANDS = ["blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22"]
LEVELS = np.array([0.03, 0.06, 0.05, 0.09, 0.22, 0.28, 0.30, 0.31, 0.19, 0.10], np.float32)
TOLERANCE = 1e-5
PEER = """
import sys, time
import numpy as np, hdstats
stack, eps = np.load(sys.argv[1]), float(sys.argv[2])
hdstats.nangeomedian_pcm(stack[:1], eps=eps, maxiters=500, num_threads=1)
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    out = hdstats.nangeomedian_pcm(stack, eps=eps, maxiters=500, num_threads=1)
    print(time.process_time() - start, flush=True)
    np.save(sys.argv[3], out)
    print("saved", flush=True)
"""


def observations(dates: int, pixels: int, missing: float, seed: int = 0) -> np.ndarray:
    """Reflectance ``(dates, bands, pixels)`` of vegetation with haze, residual clouds and clouded dates (NaN)."""
    rng = np.random.default_rng(seed)
    ground = LEVELS[:, None] * rng.lognormal(0, 0.25, (len(BANDS), pixels))
    block = ground * (1 + rng.normal(0, 0.06, (dates, 1, pixels))) + rng.normal(0, 0.006, (dates, len(BANDS), pixels))
    block += rng.gamma(0.4, 0.02, (dates, 1, pixels)) + (rng.random((dates, 1, pixels)) < 0.05) * 0.3
    block[np.broadcast_to(rng.random((dates, 1, pixels)) < missing, block.shape)] = np.nan
    return block.astype(np.float32)


def rounds(functions: dict, repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each function, one after the other in every round, after one round that compiles."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            own = function()
            times[name].append(own if isinstance(own, float) else time.process_time() - start)
    return times


def ratio(times: dict[str, list[float]], peer: str, own: str) -> float:
    """Median over rounds of the peer's time over ours."""
    return float(np.median(np.array(times[peer]) / np.array(times[own])))


def bench_median(dates: int, pixels: int, repeats: int) -> dict:
    block = observations(dates, pixels, missing=0.4)
    flat = block.reshape(dates, -1)
    own_bands = [np.ascontiguousarray(block[:, k]) for k in range(len(BANDS))]
    addresses = np.array([band.ctypes.data for band in own_bands])
    size = network_size(dates)
    kernel, work = composite_medians(size), np.empty(2 * (size + 1) * PITCH, np.float32)
    out, counts, day = (
        np.empty((len(BANDS), pixels), np.float32),
        np.empty(pixels, np.uint16),
        np.empty(pixels, np.float32),
    )
    days = np.arange(dates, dtype=np.float32)
    made = {}
    side = int(np.sqrt(pixels))
    bands = {
        name: (("time", "y", "x"), np.ascontiguousarray(own_bands[k][:, : side * side]).reshape(dates, side, side))
        for k, name in enumerate(BANDS)
    }
    scenes = xr.Dataset(bands, coords={"time": pd.date_range("2024-01-05", periods=dates, freq="12D")})
    functions = {
        "geococa kernel": lambda: kernel(addresses, pixels, 0, days, 1, work, out, counts, day),
        "geococa.composite": lambda: made.update(ours=composite(scenes)),
        "bottleneck.nanmedian": lambda: made.update(bottleneck=bottleneck.nanmedian(flat, axis=0)),
        "numpy.nanmedian": lambda: made.update(numpy=np.nanmedian(flat, axis=0)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        times = rounds(functions, repeats)
    own = np.stack([made["ours"][name].values.ravel() for name in BANDS])
    expected = made["numpy"].reshape(len(BANDS), -1)[:, : side * side]
    return {
        "dates": dates, "bands": len(BANDS), "pixels": pixels, "missing": 0.4,
        "mpx_per_s": {name: pixels / 1e6 / min(seconds) for name, seconds in times.items()},
        "times_bottleneck": {own_: ratio(times, "bottleneck.nanmedian", own_) for own_ in list(functions)[:2]},
        "times_numpy": {own_: ratio(times, "numpy.nanmedian", own_) for own_ in list(functions)[:2]},
        "bit_equal_to_numpy": bool(out.tobytes() == made["numpy"].tobytes() and own.tobytes() == expected.tobytes()),
    }  # fmt: skip


def weiszfeld(block: np.ndarray, step: float, dtype: type = np.float32, most: int = 500) -> np.ndarray:
    """Plain Weiszfeld from the mean in numpy, all pixels at once, each frozen when its step is small enough."""
    values = np.where(np.isnan(block), 0, block).astype(dtype)
    valid = (~np.isnan(block[:, :1])).astype(dtype)
    centre = values.sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    active = np.arange(block.shape[2])
    for _ in range(most):
        part = values[:, :, active]
        distance = np.sqrt(((part - centre[:, active]) ** 2).sum(axis=1, keepdims=True))
        weight = valid[:, :, active] / np.maximum(distance, dtype(1e-9 if dtype is np.float64 else 1e-6))
        new = (weight * part).sum(axis=0) / np.maximum(weight.sum(axis=0), dtype(1e-30))
        moved = np.sqrt(((new - centre[:, active]) ** 2).sum(axis=0))
        centre[:, active] = new
        active = active[moved > step]
        if not len(active):
            break
    return centre


def excess(found: np.ndarray, block: np.ndarray, best: np.ndarray) -> dict[str, float]:
    """How far a geometric median is from the best one: in reflectance, and in the sum of distances."""
    block64, gap = block.astype(np.float64), np.sqrt(((found - best) ** 2).sum(axis=0))
    sums = [
        np.nansum(np.sqrt(((block64 - point) ** 2).sum(axis=1)), axis=0) for point in (found.astype(np.float64), best)
    ]
    return {
        "largest_distance": float(gap.max()),
        "p99_distance": float(np.quantile(gap, 0.99)),
        "largest_relative_excess_of_loss": float((sums[0] / sums[1] - 1).max()),
    }


def bench_geomedian(dates: int, pixels: int, repeats: int, peer_python: str | None) -> dict:
    block = observations(dates, pixels, missing=0.2, seed=1)
    block = np.ascontiguousarray(block[:, :, np.isfinite(block[:, 0]).sum(axis=0) >= 3])
    pixels = block.shape[2]
    step = TOLERANCE * float(np.median(np.linalg.norm(np.nanmedian(block, axis=0), axis=0)))
    out, made = np.empty(block.shape[1:], np.float32), {}
    functions = {
        "geococa": lambda: geomedian(block, np.ones(dates), TOLERANCE, 500, out),
        "numpy Weiszfeld": lambda: made.update({"numpy Weiszfeld": weiszfeld(block, step)}),
    }
    process = None
    with tempfile.TemporaryDirectory() as folder:
        if peer_python:
            source, target = Path(folder) / "stack.npy", Path(folder) / "out.npy"
            np.save(source, np.ascontiguousarray(block.transpose(2, 1, 0))[None])
            process = subprocess.Popen(
                [peer_python, "-c", PEER, str(source), str(step), str(target)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout.readline() == "ready\n"

            def peer() -> float:
                process.stdin.write("run\n")
                process.stdin.flush()
                seconds = float(process.stdout.readline())
                process.stdout.readline()
                return seconds

            functions["hdstats"] = peer
        times = rounds(functions, repeats)
        if process is not None:
            process.stdin.close()
            process.wait()
            made["hdstats"] = np.load(target)[0].T
    best = weiszfeld(block, 1e-10, np.float64, 3000)
    peers = [name for name in functions if name != "geococa"]
    return {
        "dates": dates, "bands": len(BANDS), "pixels": pixels, "missing": 0.2,
        "step_at_which_a_pixel_is_done": step, "relative_tolerance": TOLERANCE,
        "mpx_per_s": {name: pixels / 1e6 / min(seconds) for name, seconds in times.items()},
        "times_peer_per_thread": {name: ratio(times, name, "geococa") for name in peers},
        "from_the_best": {name: excess(result, block, best) for name, result in {"geococa": out, **made}.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=262_144)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--hdstats-python", help="a Python that can import hdstats")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "composites.json")
    options = parser.parse_args()
    results = {"numpy": np.__version__, "bottleneck": bottleneck.__version__, "median": [], "geomedian": []}
    for dates in (12, 30):
        results["median"].append(bench_median(dates, options.pixels, options.repeats))
        print(json.dumps(results["median"][-1], indent=2))
    for dates in (12, 30):
        found = bench_geomedian(dates, options.pixels // 20, options.repeats, options.hdstats_python)
        results["geomedian"].append(found)
        print(json.dumps(found, indent=2))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
