"""Label stages beside the tools a user would pick, in one run: python benchmarks/bench_labels.py [--side 10980]."""

from __future__ import annotations

import argparse
import time

import numpy as np
import xarray as xr
from rasterio.features import sieve as rasterio_sieve
from scipy import ndimage

from geococa.grid import Grid
from geococa.labels import label, sieve, smooth, stabilise
from geococa.legend import as_land_cover
from geococa.segments import CellWeights, Segments

CLASSES = ["coca", "forest", "secondary_forest", "pasture", "water"]


def salted_map(side: int, seed: int = 0) -> np.ndarray:
    """Smooth patches of five classes with 3 % of single wrong cells."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=(-(-side // 4),) * 2).astype(np.float32), 3) for _ in CLASSES]
    codes = np.kron(np.argmax(fields, axis=0).astype(np.uint8) + 1, np.ones((4, 4), np.uint8))[:side, :side]
    salt = rng.random(codes.shape) < 0.03
    codes[salt] = rng.integers(1, 6, salt.sum())
    return np.ascontiguousarray(codes)


def probabilities(years: int, side: int, seed: int = 0) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.gamma(0.7, size=(years, len(CLASSES), side, side)).astype(np.float32) + 1e-6
    values /= values.sum(axis=1, keepdims=True)
    return xr.DataArray(values, dims=("time", "land_cover", "y", "x"), coords={"land_cover": CLASSES})


def best(function, repeats: int = 3) -> float:
    """Shortest wall time of some runs, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2196, help="cells a side of the map (a Sentinel-2 tile has 10980)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    side, threads = options.side, options.threads
    codes = salted_map(side)
    grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 300_000), codes.shape)
    land_cover = as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), CLASSES)
    mega = codes.size / 1e6

    def row(name: str, seconds: float, pixels: float, peer: float | None = None) -> None:
        gain = "" if peer is None else f"{peer / seconds:8.1f} x"
        print(f"{name:46s}{seconds:9.3f} s{pixels / seconds:9.1f} Mpx/s{gain}")

    peer = best(lambda: rasterio_sieve(codes, size=25, connectivity=8))
    row("rasterio.features.sieve", peer, mega)
    row(
        "sieve, GDAL's rule, cells",
        best(lambda: sieve(land_cover, min_pixels=25, rule="gdal", threads=threads)),
        mega,
        peer,
    )
    row("sieve, GDAL's rule, hectares", best(lambda: sieve(land_cover, rule="gdal", threads=threads)), mega, peer)
    row("sieve, largest neighbour, hectares", best(lambda: sieve(land_cover, threads=threads)), mega, peer)
    same = np.array_equal(
        sieve(land_cover, min_pixels=25, rule="gdal").values, rasterio_sieve(codes, size=25, connectivity=8)
    )
    print(f"{'GDAL rule equal to rasterio':46s}{same}")
    eight = np.ones((3, 3))
    peer = best(lambda: [ndimage.label(codes == k, eight) for k in range(1, 6)], 1)
    row("scipy.ndimage.label, class by class", peer, mega)
    row(
        "components of all classes",
        best(lambda: Segments(lambda a, b: codes[a:b], codes.shape, CellWeights(), threads=threads)),
        mega,
        peer,
    )
    small = max(64, side // 4)
    chain = probabilities(10, small)
    row("stabilise, 10 years x 5 classes", best(lambda: stabilise(chain, threads=threads)), small**2 / 1e6)
    row(
        "stabilise, Viterbi",
        best(lambda: stabilise(chain, method="viterbi", threads=threads)),
        small**2 / 1e6,
    )
    one = chain.isel(time=0)
    row("smooth, window 5, 5 classes, 1 thread", best(lambda: smooth(one)), small**2 / 1e6)
    row("label, 5 classes, 1 thread", best(lambda: label(one)), small**2 / 1e6)


if __name__ == "__main__":
    main()
