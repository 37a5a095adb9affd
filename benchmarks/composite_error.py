"""Error of yearly composites against the cloud-free truth of a simulated archive: python -m benchmarks.composite_error.

A tile is simulated twice, once as the satellite saw it under 40 to 70 % of cloud, haze, shadow and swath gaps, with a cloud
mask that is displaced and misses thin haze, and once without weather and noise. Two truths are compared: the ground on
31 December (what a cut-off survey asks for) and the median ground of the year. Writes
benchmarks/results/composite_error.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from geococa.composites import composite
from geococa.reflectance import clear_sky, to_reflectance
from geococa.synthetic import landscape

BANDS = ["blue", "green", "red", "nir", "swir16", "swir22"]
WINDOW = {"cutoff": "12-31", "window_days": 90, "fallback_days": 275}
METHODS = {
    "median": {},
    "mean": {"reducer": "mean"},
    "p25": {"reducer": "p25"},
    "geomedian": {"reducer": "geomedian"},
    "medoid": {"reducer": "medoid"},
    "max_ndvi": {"reducer": "max_ndvi"},
    "bap": {"reducer": "bap"},
    "median, half-life 60 d": {"half_life_days": 60},
    "mean, half-life 60 d": {"reducer": "mean", "half_life_days": 60},
    "median, window 90 d + fallback": WINDOW,
    "geomedian, window 90 d + fallback": {"reducer": "geomedian", **WINDOW},
    "bap, window 90 d + fallback": {"reducer": "bap", **WINDOW},
    "median, window 90 d": {"cutoff": "12-31", "window_days": 90},
}


def simulate(cloud: float, *, size_m: int, dates: int, year: int = 2023, seed: int = 0, buffer_m: float = 60):
    """Clouded reflectance, and the noise-free ground on every date and on 31 December."""
    world = landscape(
        size_m=size_m, years=[year], tiles=1, dates_per_year=dates, cloud_cover=cloud, samples_per_class=1,
        validation_points=1, dn_step=1, seed=seed,
    )  # fmt: skip
    (grid,) = world.grids.values()
    days = [f"{one.moment:%Y-%m-%d}" for one in world.acquisitions]
    scenes = [world.render(grid, day, bands=BANDS) for day in days]
    joined = xr.concat(scenes, "time", combine_attrs="override", data_vars="all", coords="minimal", compat="override")
    observed = to_reflectance(joined, where=clear_sky(joined, buffer_m=buffer_m))
    bare = [
        to_reflectance(world.render(grid, day, bands=BANDS, weather=False, noise=False))
        for day in [*days, f"{year}-12-31"]
    ]
    ground = np.stack([np.stack([image[band].values[0] for band in BANDS]) for image in bare])
    return observed, ground


def errors(found: xr.Dataset, truth: np.ndarray) -> dict[str, float]:
    """Root mean square, 95th percentile and mean of the error over observed pixels and bands."""
    made = np.stack([found[band].values[0] for band in BANDS])
    gap = (made - truth)[np.isfinite(made) & np.isfinite(truth)]
    if gap.size == 0:
        return {"rmse": np.nan, "p95": np.nan, "bias": np.nan}
    return {
        "rmse": float(np.sqrt((gap**2).mean())),
        "p95": float(np.quantile(np.abs(gap), 0.95)),
        "bias": float(gap.mean()),
    }


def compare(cloud: float, methods: dict = METHODS, **settings) -> pd.DataFrame:
    """One row a method: error against both truths, share observed, age of the image."""
    observed, ground = simulate(cloud, **settings)
    never = np.isnan(observed[BANDS[0]].values).all(axis=0)
    rows = []
    for name, options in methods.items():
        start = time.perf_counter()
        found = composite(observed, **options)
        seconds = time.perf_counter() - start
        seen = np.isfinite(found["red"].values[0])
        if (seen & never).any():
            raise AssertionError(f"{name} invents {int((seen & never).sum())} pixels that no date observed")
        age = (found.time.values[:, None, None] - found.date_used.values) / np.timedelta64(1, "D")
        row = {"cloud": cloud, "method": name}
        for label, truth in (("31_december", ground[-1]), ("year", np.median(ground[:-1], axis=0))):
            row |= {f"{key}_{label}": value for key, value in errors(found, truth).items()}
        row |= {"observed_share": float(seen.mean()), "mean_age_days": float(np.nanmean(age)), "seconds": seconds}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-m", type=int, default=1000)
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "composite_error.json")
    options = parser.parse_args()
    parts = [
        compare(cloud, size_m=options.size_m, dates=options.dates, seed=seed).assign(seed=seed)
        for cloud in (0.4, 0.55, 0.7)
        for seed in range(options.seeds)
    ]
    table = (
        pd.concat(parts).drop(columns=["seed", "seconds"]).groupby(["cloud", "method"], sort=False).mean().reset_index()
    )
    print(table.round(4).to_string(index=False))
    result = {
        "size_m": options.size_m,
        "dates": options.dates,
        "seeds": options.seeds,
        "rows": table.to_dict("records"),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
