"""Label stages beside the tools a user would pick: python -m benchmarks.bench_labels [--side 10980].

All run in one process, in turn, on the same map (a Sentinel-2 tile has 10980 cells a side), and their answers are
compared in the same run. Rates are in million pixels a second (Mpx/s), medians over the rounds; a ratio is the median
of the ratios within each round, so that a machine that speeds up or slows down does not favour anyone. The peers have
no threads of their own. Compiling is timed apart. The table goes to standard output, all figures to
benchmarks/results/labels.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rasterio.features import sieve as rasterio_sieve
from scipy import ndimage

from benchmarks.machine import machine_facts
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.segments import CellWeights, Segments
from geococa.sieving import sieve

CLASSES = ["coca", "forest", "secondary_forest", "pasture", "water"]
CELLS = 25
"""Cells of the minimum unit: 0.25 ha of 10 m."""
ROOK_AND_BISHOP = np.ones((3, 3))


def salted_map(side: int, seed: int = 0) -> np.ndarray:
    """Smooth patches of five classes with 3 % of single wrong cells."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=(-(-side // 4),) * 2).astype(np.float32), 3) for _ in CLASSES]
    codes = np.kron(np.argmax(fields, axis=0).astype(np.uint8) + 1, np.ones((4, 4), np.uint8))[:side, :side]
    salt = rng.random(codes.shape) < 0.03
    codes[salt] = rng.integers(1, 6, salt.sum())
    return np.ascontiguousarray(codes)


def probabilities(years: int, side: int, seed: int = 0) -> xr.DataArray:
    """Yearly probabilities of five classes."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.7, size=(years, len(CLASSES), side, side)).astype(np.float32) + 1e-6
    values /= values.sum(axis=1, keepdims=True)
    return xr.DataArray(values, dims=("time", "land_cover", "y", "x"), coords={"land_cover": CLASSES})


@dataclass
class Peer:
    """Another way to the same answer, and how to compare: ``compare(ours, theirs)`` is the share of equal cells."""

    name: str
    run: Callable[[], Any]
    compare: Callable[[Any, Any], float]
    seconds: list[float] = field(default_factory=list)
    agreement: float = float("nan")


@dataclass
class Case:
    """``first`` is a small call that compiles what ``run`` needs; ``before`` makes each run start alike, untimed."""

    name: str
    run: Callable[[], Any]
    first: Callable[[], Any]
    pixels: int
    peers: list[Peer] = field(default_factory=list)
    before: Callable[[], Any] = lambda: None


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = function()
    return time.perf_counter() - start, answer


def measure(case: Case, rounds: int) -> dict:
    first, _ = timed(case.first)
    # the first call on the whole map also meets memory that the system has not handed out yet
    case.before()
    case.run()
    seconds = []
    for turn in range(rounds):
        case.before()
        took, ours = timed(case.run)
        seconds.append(took)
        for peer in case.peers:
            took, theirs = timed(peer.run)
            peer.seconds.append(took)
            if turn == 0:
                peer.agreement = peer.compare(ours, theirs)
            del theirs
        del ours
    lines = [{"name": "geococa", **rates(seconds, case.pixels), "first_call_s": first}]
    for peer in case.peers:
        ratios = np.asarray(peer.seconds) / np.asarray(seconds)
        lines.append(
            {
                "name": peer.name,
                **rates(peer.seconds, case.pixels),
                "agreement": peer.agreement,
                "ratio": float(np.median(ratios)),
                "ratio_low": float(ratios.min()),
                "ratio_high": float(ratios.max()),
                "ratio_of_best": min(peer.seconds) / min(seconds),
            }
        )
    return {"case": case.name, "pixels": case.pixels, "rounds": rounds, "lines": lines}


def rates(seconds: list[float], pixels: int) -> dict:
    values = pixels / 1e6 / np.asarray(seconds)
    return {"mpx_s": float(np.median(values)), "mpx_s_low": float(values.min()), "mpx_s_high": float(values.max())}


def equal(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float((ours == theirs).mean())


def equal_where_kept(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Rasterio fills what we drop, so only what stays can be compared."""
    kept = ours != 0
    return float((ours[kept] == theirs[kept]).mean())


def same_components(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of cells whose component is the same set of cells: 1 where the numbers map one to one."""
    count = int(ours.max()) + 1
    other = np.zeros(count, dtype=np.int64)
    other[ours.ravel()] = theirs.ravel()
    return equal(other[ours], theirs) if count == np.unique(other).size == int(theirs.max()) else 0.0


def scipy_label(codes: np.ndarray) -> np.ndarray:
    """Components of all classes, from scipy's components of one class at a time."""
    out = np.zeros(codes.shape, dtype=np.int32)
    before = 0
    for code in range(1, len(CLASSES) + 1):
        number, count = ndimage.label(codes == code, ROOK_AND_BISHOP)
        number[number > 0] += before
        out += number
        before += count
    return out


def map_cases(side: int, threads: int) -> list[Case]:
    import cc3d

    codes = salted_map(side)
    grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 300_000), codes.shape)
    land_cover = as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), CLASSES)
    corner = land_cover.isel(y=slice(64), x=slice(64))

    def ours(**options: Any) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
        return (
            lambda: sieve(land_cover, threads=threads, **options).values,
            lambda: sieve(corner, threads=threads, **options).values,
        )

    def components(cells: np.ndarray) -> np.ndarray:
        return Segments(lambda a, b: cells[a:b], cells.shape, CellWeights(), threads=threads).numbers()

    def gdal(compare: Callable[[Any, Any], float]) -> Peer:
        return Peer("rasterio sieve", lambda: rasterio_sieve(codes, size=CELLS, connectivity=8), compare)

    size = f"{side} x {side}, 5 classes"
    return [
        Case(
            f"drop patches below {CELLS} cells, {size}",
            *ours(min_pixels=CELLS, rule="drop"),
            codes.size,
            [
                gdal(equal_where_kept),
                Peer("cc3d dust", lambda: cc3d.dust(codes, threshold=CELLS, connectivity=8), equal),
            ],
        ),
        Case(
            f"sieve by GDAL's rule, {CELLS} cells, {size}",
            *ours(min_pixels=CELLS, rule="gdal"),
            codes.size,
            [gdal(equal)],
        ),
        Case(f"sieve by largest neighbour, {CELLS} cells, {size}", *ours(min_pixels=CELLS), codes.size, [gdal(equal)]),
        Case(f"sieve by largest neighbour, 0.25 ha, {size}", *ours(min_area_ha=0.25), codes.size, [gdal(equal)]),
        Case(
            f"number the components, {size}",
            lambda: components(codes),
            lambda: components(corner.values),
            codes.size,
            [
                Peer("cc3d", lambda: cc3d.connected_components(codes, connectivity=8), same_components),
                Peer("scipy.ndimage.label, class by class", lambda: scipy_label(codes), same_components),
            ],
        ),
    ]


def year_cases(side: int, threads: int) -> list[Case]:
    from geococa.labels import label, smooth, stabilise

    chain = probabilities(10, side)
    spare = chain.copy(deep=True)
    small, one = chain.isel(y=slice(16), x=slice(16)), chain.isel(time=0)
    single = small.isel(time=0)
    size = f"5 classes, {side} x {side}"

    def fresh() -> None:
        np.copyto(spare.values, chain.values)

    def years(name: str, array: xr.DataArray = chain, **options: Any) -> Case:
        return Case(
            f"{name}, 10 years, {size}",
            lambda: stabilise(array, threads=threads, **options),
            lambda: stabilise(small, threads=threads, **options),
            side**2,
            [memory_peer(side)] if options.get("method") is None and "evidence" not in options else [],
            fresh if array is spare else lambda: None,
        )

    return [
        years("stabilise, in place", spare, persistence=0.9, overwrite=True),
        years("stabilise, labels", persistence=0.9, output="labels"),
        years("stabilise", persistence=0.9),
        years("stabilise, evidence 4", persistence=0.9, evidence=4.0),
        years("stabilise by Viterbi", persistence=0.9, method="viterbi"),
        Case(f"smooth, window 5, {size}, 1 thread", lambda: smooth(one), lambda: smooth(single), side**2),
        Case(f"label, {size}, 1 thread", lambda: label(one), lambda: label(single), side**2),
    ]


def memory_peer(side: int) -> Peer:
    """Memory alone: a copy of 10 years of 5 classes into an array that is there already, on one thread."""
    source = np.ones((10, len(CLASSES), side, side), np.float32)
    target = source.copy()

    def nothing_to_compare(*_answers: Any) -> float:
        return float("nan")

    return Peer("numpy copy of the same bytes", lambda: np.copyto(target, source), nothing_to_compare)


def report(result: dict) -> None:
    print(f"\n{result['case']}")
    for line in result["lines"]:
        if "ratio" not in line:
            print(f"  {line['name']:36s}{line['mpx_s']:9.1f} Mpx/s   first call {line['first_call_s']:.1f} s")
            continue
        spread = f"({line['ratio_low']:.1f} to {line['ratio_high']:.1f}, best {line['ratio_of_best']:.1f})"
        print(
            f"  {line['name']:36s}{line['mpx_s']:9.1f} Mpx/s   x {line['ratio']:6.1f} {spread:30s} "
            f"agreement {line['agreement']:.6f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=10980, help="cells a side of the map")
    parser.add_argument("--years-side", type=int, default=1024, help="cells a side of the yearly probabilities")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="run the cases whose name holds this text, and write no file")
    options = parser.parse_args()
    cases = map_cases(options.side, options.threads) + year_cases(options.years_side, options.threads)
    results = []
    for case in cases:
        if options.only in case.name:
            results.append(measure(case, options.rounds))
            report(results[-1])
    if options.only:
        return
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    machine = machine_facts(options.threads) | {
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    }
    (folder / "labels.json").write_text(json.dumps({"machine": machine, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
