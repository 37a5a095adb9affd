"""Features beside the tools a user would pick, in one run: python -m benchmarks.bench_features.

Grey-level co-occurrence in a moving window beside scikit-image (one call a window, on a part of the image), eight indices
in one pass beside numexpr and beside the memory's own speed (STREAM triad) on a strip of a Sentinel-2 tile and on an image
whose rows of memory collide in the cache, slope and aspect beside xarray-spatial, and
distances to roads beside shapely's nearest-neighbour tree. One thread everywhere, rounds interleaved, processor times;
compiling comes before the first round and is given apart. Writes benchmarks/results/features.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numba
import numexpr
import numpy as np
import shapely
import xarray as xr
from scipy.ndimage import gaussian_filter

from benchmarks.machine import machine_facts
from geococa.distances import prepare_distances
from geococa.features import spectral_features, terrain_features, texture_features
from geococa.formula_program import compile_formulas, evaluate
from geococa.grid import Grid
from geococa.spectral_indices import split_name
from geococa.transforms import place

RESULTS = Path(__file__).parent / "results" / "features.json"
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
INDICES = {
    "ndvi": "(nir - red) / (nir + red)",
    "ndmi": "(nir - swir16) / (nir + swir16)",
    "nbr": "(nir - swir22) / (nir + swir22)",
    "ndwi": "(green - nir) / (green + nir)",
    "mndwi": "(green - swir16) / (green + swir16)",
    "savi": "1.5 * (nir - red) / (nir + red + 0.5)",
    "evi": "2.5 * (nir - red) / (nir + 6.0 * red - 7.5 * blue + 0.5)",
    "bsi": "((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue))",
}
STATISTICS = ("contrast", "homogeneity", "entropy")
LEVELS = 16


def rounds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each function, one after the other in every round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.process_time()
            function()
            times[name].append(time.process_time() - start)
    return times


def first_call(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def case(name: str, own: str, first: float, seconds: dict, pixels: dict, agreement: dict, **more: object) -> dict:
    """One entry of the results; ratios are of speeds a pixel, median, lowest and highest of the rounds.

    Agreement is the largest difference of the answers, or 1 where all are the same.
    """
    rate = {key: pixels[key] / 1e6 / np.array(values) for key, values in seconds.items()}
    lines = [{"name": own, "mpx_s": float(np.median(rate[own])), "first_call_s": first}]
    for peer in agreement:
        ratios = rate[own] / rate[peer]
        lines.append(
            {
                "name": peer, "mpx_s": float(np.median(rate[peer])), "ratio": float(np.median(ratios)),
                "ratio_low": float(ratios.min()), "ratio_high": float(ratios.max()), "agreement": float(agreement[peer]) or 1.0,
            }
        )  # fmt: skip
    return {"case": name, "lines": lines, **more}


def ground(side: int, seed: int = 0) -> np.ndarray:
    """Values 0 to 1 that vary as land does, ``(side, side)``."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def bench_texture(side: int, part: int, window: int, repeats: int) -> dict:
    from skimage.feature import graycomatrix, graycoprops

    values = ground(side)
    source = xr.DataArray(values[None], dims=("feature", "y", "x"), coords={"feature": ["nir"]})
    levels = np.clip(np.floor(values * LEVELS), 0, LEVELS - 1).astype(np.uint8)
    half, made = window // 2, {}
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]

    def own() -> None:
        made["own"] = texture_features(source, window=window, statistics=STATISTICS, levels=LEVELS).values

    def peer() -> None:
        out = np.empty((3, part, part), np.float32)
        for r in range(part):
            for c in range(part):
                counts = graycomatrix(
                    levels[r : r + window, c : c + window], [1], angles, levels=LEVELS, symmetric=True
                )
                counts = counts.sum(axis=3, keepdims=True)
                out[:, r, c] = [graycoprops(counts, name)[0, 0] for name in STATISTICS]
        made["peer"] = out

    first = first_call(own)
    seconds = rounds({"geococa": own, "scikit-image": peer}, repeats)
    inner = made["own"][:, half : half + part, half : half + part]
    return case(
        f"co-occurrence contrast, homogeneity and entropy, {window} x {window} cells, {LEVELS} levels", "geococa", first,
        seconds, {"geococa": side * side, "scikit-image": part * part},
        {"scikit-image": np.abs(inner - made["peer"]).max()},
    )  # fmt: skip


@numba.njit
def triad(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    for i in range(a.size):
        a[i] = b[i] + np.float32(3.0) * c[i]


def bench_indices(rows: int, columns: int, repeats: int) -> dict:
    """Both sides write to memory that is there, and both to new memory; the triad as well to memory that is there."""
    rng = np.random.default_rng(1)
    pixels = rows * columns
    bands = {name: rng.uniform(0.01, 0.6, pixels).astype(np.float32) for name in BANDS}
    composite = xr.Dataset(
        {name: (("y", "x"), values.reshape(rows, columns)) for name, values in bands.items()},
        attrs={"kind": "composite"},
    )
    programs = compile_formulas([split_name(name, BANDS)[1] for name in INDICES])
    out, whole, peer_out = (np.empty((len(INDICES), pixels), np.float32) for _ in range(3))
    numexpr.set_num_threads(1)
    names = list(INDICES)
    made = {}

    def peer() -> None:
        for row, formula in zip(peer_out, INDICES.values(), strict=True):
            numexpr.evaluate(formula, bands, out=row, casting="same_kind")

    functions = {
        "geococa kernel": lambda: evaluate(programs, bands, out),
        "numexpr": peer,
        "geococa.spectral_features, out=": lambda: spectral_features(
            composite, names, out=whole.reshape(len(names), rows, columns)
        ),
        "triad": lambda: triad(out[0], bands["red"], bands["nir"]),
        "geococa.spectral_features": lambda: made.update(own=spectral_features(composite, names)),
        "numexpr, new arrays": lambda: made.update(peer=[numexpr.evaluate(f, bands) for f in INDICES.values()]),
    }
    first = first_call(functions["geococa.spectral_features"])
    for function in functions.values():
        function()
    seconds = rounds(functions, repeats)
    functions["geococa kernel"]()  # the triad wrote over a row
    moved = (len(BANDS) + len(INDICES)) * 4 * pixels
    bandwidth = 12 * pixels / np.array(seconds["triad"])
    shares = {key: float(np.median(moved / np.array(seconds[key]) / bandwidth)) for key in functions if key != "triad"}
    # EVI has a pole among such reflectances, so differences are relative where values are large
    size = np.maximum(np.abs(peer_out), 1)
    gaps = [float((np.abs(v.reshape(out.shape) - peer_out) / size).max()) for v in (out, whole, made["own"].values)]
    every = dict.fromkeys(functions, pixels)
    title = f"8 indices in one pass, {rows} x {columns}"
    result = case(title, "geococa kernel", first, seconds, every, {"numexpr": gaps[0]})
    calls = [
        case("", "geococa.spectral_features, out=", first, seconds, every, {"numexpr": gaps[1]}),
        case("", "geococa.spectral_features", first, seconds, every, {"numexpr, new arrays": gaps[2]}),
    ]
    result |= {
        "indices": names, "precision": [str(program.dtype) for program in programs],
        "triad_gb_s": float(np.median(bandwidth) / 1e9), "share_of_triad_bandwidth": shares,
        "spectral_features": [line for call in calls for line in call["lines"]],
    }  # fmt: skip
    return result


def bench_terrain(side: int, repeats: int) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import xrspatial

    grid = Grid("EPSG:32618", (30, 0, 600_000, 0, -30, 300_000), (side, side))
    dem = grid.attach(xr.DataArray(300 * ground(side, 2), dims=("y", "x"), name="dem"))
    plain = dem.drop_vars("spatial_ref").assign_attrs(res=(30, 30))
    made = {}

    def peer() -> None:
        made["peer"] = np.stack([xrspatial.slope(plain).values, xrspatial.aspect(plain).values])

    def own() -> None:
        made["own"] = terrain_features(dem, ["slope", "aspect"]).values

    first = first_call(own)
    peer()
    seconds = rounds({"geococa": own, "xarray-spatial": peer}, repeats)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    slopes = np.abs(made["own"][inner][0] - made["peer"][inner][0]).max()
    return case("slope and aspect", "geococa", first, seconds, {"geococa": side**2, "xarray-spatial": side**2},
                {"xarray-spatial": slopes})  # fmt: skip


def bench_distance(side: int, part: int, repeats: int) -> dict:
    import geopandas

    rng = np.random.default_rng(3)
    grid = Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), (side, side))
    starts = rng.uniform((560_000, 260_000), (640_000, 340_000), (500, 2))
    roads = [shapely.LineString(start + np.cumsum(rng.normal(0, 60, (60, 2)), axis=0)) for start in starts]
    prepared = prepare_distances({"roads": geopandas.GeoDataFrame(geometry=roads, crs=grid.crs)}, grid, 50_000)
    tree = shapely.STRtree(shapely.linestrings(prepared.layers[0].segments.reshape(-1, 2, 2)))
    made = {}

    def own() -> None:
        made["own"] = prepared.values((0, side, 0, side))[0]

    def peer() -> None:
        rows, columns = np.mgrid[:part, :part] + 0.5
        x, y = prepared.to_plane(*place(grid.transform, columns.ravel(), rows.ravel()))
        _, metres = tree.query_nearest(shapely.points(x, y), return_distance=True, all_matches=False)
        made["peer"] = metres.reshape(part, part)

    first = first_call(own)
    seconds = rounds({"geococa": own, "shapely tree": peer}, repeats)
    gap = np.abs(made["own"][:part, :part] - made["peer"]).max()
    return case("distance to 500 roads (29,500 edges), metres", "geococa", first, seconds,
                {"geococa": side**2, "shapely tree": part**2}, {"shapely tree": gap})  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=384, help="rows of the strip of a tile for the indices")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    cases = [
        bench_texture(512, 24, 5, options.repeats),
        bench_texture(512, 24, 9, options.repeats),
        bench_indices(options.rows, 10_980, options.repeats),
        bench_indices(2048, 2048, options.repeats),
        bench_terrain(1024, options.repeats),
        bench_distance(512, 128, options.repeats),
    ]
    machine = machine_facts(1) | {"processors": os.cpu_count(), "load": os.getloadavg()[0]}
    for entry in cases:
        print(json.dumps(entry, indent=2))
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine, "cases": cases}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
