"""What agreement of years does to coca change and to plot biographies: python -m benchmarks.stabilise.

Archives of 8 years with 40, 55 and 70 % of cloud are simulated, and masked, composited and classified by a random forest
like any other. Then every setting of `geococa.stabilise` is held against the true classes:

- **steps**: from every year in which a pixel was observed to the next one. A change under cloud falls on the step over the
  cloud, in truth and map alike; a change that the map shows one step early or late is a false one and a lost one.
- **false cut**: by how much fewer steps on which coca came or went on the map, but not (that way) in truth, than with labels of
  each year by itself.
- **true kept**: steps found on which coca truly came or went, over those found by labels of each year by itself. Below 1
  changes were lost. **same kept** counts only those that the yearly labels had found too: some of these they found by
  chance, because a map that blinks often blinks on the right day.

Biographies: `geococa.follow_plots` on traced maps against the simulated plots of 0.5 ha and more, from the second year on;
an event is a plot, a year, and new, replanted or abandoned; "within a year" lets its date be off by one. Writes benchmarks/results/stabilise.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa.classification import classify
from geococa.coca_plots import follow_plots, trace_plots
from geococa.extraction import extract_samples
from geococa.labels import label, sieve, smooth, stabilise
from geococa.legend import as_land_cover
from geococa.models import train
from geococa.pipeline import yearly_features
from geococa.recipe import Recipe
from geococa.synthetic import CLASSES, Landscape, landscape

YEARS = range(2017, 2025)
BANDS = ("blue", "green", "red", "rededge071", "nir", "nir08", "swir16", "swir22", "ndvi", "ndmi", "nbr", "bsi")
SETTINGS: dict[str, dict[str, object]] = {
    "default: changes that are worth it": {},
    "persistence 0.9": {"persistence": 0.9},
    "persistence 0.9, evidence 4": {"persistence": 0.9, "evidence": 4},
    "persistence 0.8, evidence 8": {"persistence": 0.8, "evidence": 8},
    **{f"estimated, evidence {e:g}": {"transitions": "estimate", "evidence": e} for e in (1, 2, 3, 4, 6)},
    **{
        f"estimated, evidence {e:g}, Viterbi": {"transitions": "estimate", "evidence": e, "method": "viterbi"}
        for e in (1, 4)
    },
}
EVENTS = ("new", "replanted", "abandoned")


def simulate(cloud: float, *, size_m: float, dates: int, seed: int) -> tuple[Landscape, xr.DataArray, np.ndarray]:
    """Landscape, class probabilities of its clouded images, and the true share of each class in each pixel and year."""
    world = landscape(size_m=size_m, years=YEARS, tiles=1, dates_per_year=dates, cloud_cover=cloud, seed=seed)
    (grid,) = world.grids.values()
    recipe = Recipe(composite={"reducer": "geomedian"}, features={"names": BANDS})
    days = [f"{one.moment:%Y-%m-%d}" for one in world.acquisitions]
    images = [world.render(grid, day, bands=recipe.bands_needed()) for day in days]
    scenes = xr.concat(images, "time", combine_attrs="override", join="override", coords="minimal", compat="override")
    features, _ = yearly_features(scenes, recipe, years=YEARS)
    table = extract_samples(world.samples.to_crs(grid.crs), features)
    model = train(table, [str(name) for name in features["feature"].values], method="random_forest", seed=7)
    return world, classify(features, model), true_shares(world)


def true_shares(world: Landscape) -> np.ndarray:
    """Share of each class in each pixel, float32 (years, classes, y, x)."""
    (grid,) = world.grids.values()
    return np.stack([world.class_fractions(grid, year).values for year in world.years]).astype(np.float32)


def change_steps(codes: np.ndarray, truth: np.ndarray, code: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps on which a map shows a false change of a class, on which it truly changed, and on which that was found.

    Parameters
    ----------
    codes, truth : numpy.ndarray of uint8, shape (years, y, x)
        Map with 255 where a year was not observed, and true classes.
    """
    years = np.arange(len(codes)).reshape(-1, 1, 1)
    seen = codes != 255
    last = np.maximum.accumulate(np.where(seen, years, -1), axis=0)
    before = np.concatenate([np.full((1, *codes.shape[1:]), -1), last[:-1]])
    step = seen & (before >= 0)
    place = np.maximum(before, 0)
    shown = (codes == code).astype(int) - (np.take_along_axis(codes, place, 0) == code)
    real = (truth == code).astype(int) - (np.take_along_axis(truth, place, 0) == code)
    return step & (shown != 0) & (shown != real), step & (real != 0), step & (real != 0) & (shown == real)


def compare(probability: xr.DataArray, shares: np.ndarray, settings: dict[str, dict[str, object]]) -> pd.DataFrame:
    """One row a setting: counts of steps, accuracy, and hectares of coca over the true ones."""
    names = [str(name) for name in probability["land_cover"].values]
    truth = shares[:, [CLASSES.index(name) for name in names]].argmax(axis=1).astype(np.uint8) + 1
    code = names.index("coca") + 1
    yearly = label(probability).values
    _, _, found_before = change_steps(yearly, truth, code)
    rows = []
    for setting, options in {"each year by itself": None, **settings}.items():
        codes = yearly if options is None else label(stabilise(probability, **options)).values  # type: ignore[arg-type]
        false, true, found = change_steps(codes, truth, code)
        seen = codes != 255
        rows.append(
            {
                "setting": setting,
                "false": int(false.sum()),
                "true": int(true.sum()),
                "found": int(found.sum()),
                "found_again": int((found & found_before).sum()),
                "accuracy": float((codes == truth)[seen].mean()),
                "coca_over_truth": float((codes == code)[seen].sum() / (truth == code)[seen].sum()),
            }
        )
    return with_shares(pd.DataFrame(rows))


def with_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Add the shares to counts whose first row is that of labels of each year by itself."""
    first = table.iloc[0]
    return table.assign(
        false_cut=1 - table["false"] / first["false"],
        true_kept=table["found"] / first["found"],
        same_kept=table["found_again"] / first["found"],
        found_share=table["found"] / table["true"],
    )


def biographies(world: Landscape, land_cover: xr.DataArray, *, min_area_ha: float = 0.5) -> dict[str, float]:
    """Precision, recall and F1 of the events of followed plots against those of the simulated ones."""
    (grid,) = world.grids.values()
    plots = world.plots.to_crs(grid.crs)
    inside = shapely.box(*grid.bounds)
    large = plots[(plots["area_ha"] >= min_area_ha) & plots.geometry.within(inside)]
    outlines = large.drop_duplicates("plot").set_index("plot").geometry
    true = true_events(large)
    traced = trace_plots(land_cover, connectivity=4, min_area_ha=0.1)
    tracks = follow_plots(traced, land_cover=land_cover)
    found = found_events(tracks, outlines, int(min(world.years)))
    scores = {
        name: _score(_matched(true, found, years), true, found) for name, years in (("", 0), ("_within_a_year", 1))
    }
    return {
        "plots": int(outlines.size),
        "true_events": len(true),
        "found_events": len(found),
        **{f"{key}{name}": value for name, score in scores.items() for key, value in score.items()},
    }


def _matched(true: set[tuple[int, int, str]], found: set[tuple[int, int, str]], years: int) -> int:
    """Pairs of the same plot and kind at most so many years apart, each event in one pair."""
    free, pairs = set(found), 0
    for shift in sorted(range(-years, years + 1), key=abs):
        for plot, year, kind in sorted(true):
            if (plot, year + shift, kind) in free:
                free.remove((plot, year + shift, kind))
                true = true - {(plot, year, kind)}
                pairs += 1
    return pairs


def _score(hits: int, true: set[tuple[int, int, str]], found: set[tuple[int, int, str]]) -> dict[str, float]:
    precision, recall = hits / max(len(found), 1), hits / max(len(true), 1)
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(precision + recall, 1e-9)}


def true_events(plots: geopandas.GeoDataFrame) -> set[tuple[int, int, str]]:
    """Events of simulated plots as a map of these years can know them: what was coca only before the first year is new."""
    out: set[tuple[int, int, str]] = set()
    first = int(plots["year"].min())
    for plot, rows in plots.sort_values("year").groupby("plot"):
        coca = dict(zip(rows["year"].tolist(), (rows["class"] == "coca").tolist(), strict=True))
        ever = coca.get(first, False)
        for year in range(first + 1, int(plots["year"].max()) + 1):
            before, now = coca.get(year - 1, False), coca.get(year, False)
            if before != now:
                out.add((int(plot), year, "abandoned" if before else "replanted" if ever else "new"))
            ever |= now
    return out


def found_events(
    tracks: geopandas.GeoDataFrame, outlines: geopandas.GeoSeries, first: int, *, min_overlap: float = 0.5
) -> set[tuple[int, int, str]]:
    """Events of followed plots, each given to the simulated plots that share half of the smaller of the two."""
    chosen = tracks[tracks["event"].isin(EVENTS) & (tracks["year"] > first)]
    shapes, targets = chosen.geometry.to_numpy(), outlines.to_numpy()
    if not len(shapes):
        return set()
    target, shape = shapely.STRtree(targets).query(shapes, predicate="intersects")[::-1]
    shared = shapely.area(shapely.intersection(targets[target], shapes[shape]))
    keep = shared >= min_overlap * np.minimum(shapely.area(targets[target]), shapely.area(shapes[shape]))
    years, events, names = chosen["year"].to_numpy(), chosen["event"].to_numpy(), outlines.index.to_numpy()
    return {(int(names[t]), int(years[s]), str(events[s])) for t, s in zip(target[keep], shape[keep], strict=True)}


def true_map(world: Landscape, shares: np.ndarray) -> xr.DataArray:
    """Land cover of the landscape as a perfect classifier would map it."""
    (grid,) = world.grids.values()
    times = pd.to_datetime([f"{year}-12-31" for year in world.years])
    codes = shares.argmax(axis=1).astype(np.uint8) + 1
    array = xr.DataArray(codes, dims=("time", "y", "x"), coords={"time": times}, attrs={"nodata": 255})
    return as_land_cover(grid.attach(array), list(CLASSES))


def noisy(land_cover: xr.DataArray, share: float, seed: int) -> xr.DataArray:
    """Map in which a share of the pixels of every year shows a class drawn by the classes' own frequency."""
    rng = np.random.default_rng(seed)
    codes = land_cover.values.copy()
    wrong = rng.random(codes.shape) < share
    codes[wrong] = rng.permutation(codes.ravel())[: int(wrong.sum())]
    return land_cover.copy(data=codes)


def biography_table(world: Landscape, probability: xr.DataArray, shares: np.ndarray) -> list[dict[str, object]]:
    """F1 of biographies on maps from perfect to real, each with the minimum mapping unit of 0.25 ha but for the perfect one."""
    perfect = true_map(world, shares)
    salted = {f"{s:.0%} of pixels wrong at random": noisy(perfect, s, 1) for s in (0.03, 0.1)}
    smoothed = smooth(probability, window=5)
    # a year that was not seen keeps the class that the years beside it say, or half of the plots would be under cloud
    real = {
        "classified, each year by itself": label(smoothed),
        "classified, years agree": label(stabilise(smoothed)),
        "classified, years agree and fill": label(stabilise(smoothed, fill=True)),
    }
    maps = {"true classes": perfect, **{name: sieve(one, min_area_ha=0.25) for name, one in (salted | real).items()}}
    return [{"map": name, **biographies(world, one)} for name, one in maps.items()]


def archive_of(cloud: float, seed: int, options: argparse.Namespace) -> tuple[Landscape, xr.DataArray, np.ndarray]:
    """Simulate an archive, or take its probabilities from an earlier run."""
    file = None if options.cache is None else options.cache / f"w_{cloud}_{seed}_{options.dates}.npz"
    if file is None or not file.is_file():
        world, probability, shares = simulate(cloud, size_m=options.size, dates=options.dates, seed=seed)
        if file is not None:
            np.savez_compressed(
                file, p=probability.values, frac=shares, names=probability["land_cover"].values.astype(str)
            )
        return world, probability, shares
    held = np.load(file)
    world = landscape(
        size_m=options.size, years=YEARS, tiles=1, dates_per_year=options.dates, cloud_cover=cloud, seed=seed
    )
    (grid,) = world.grids.values()
    times = pd.to_datetime([f"{year}-12-31" for year in YEARS])
    array = xr.DataArray(held["p"], dims=("time", "land_cover", "y", "x"), attrs={"kind": "probability"})
    return world, grid.attach(array.assign_coords(time=times, land_cover=held["names"].astype(str))), held["frac"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=1500.0, help="side of the tile, metres")
    parser.add_argument("--dates", type=int, default=4, help="overpasses a year")
    parser.add_argument("--cache", type=Path, help="folder in which probabilities are kept between runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stabilise.json")
    options = parser.parse_args()
    tables, report = [], {"size_m": options.size, "dates_per_year": options.dates, "archives": []}
    for seed, cloud in enumerate((0.4, 0.55, 0.7), start=1):
        world, probability, shares = archive_of(cloud, seed, options)
        table = compare(smooth(probability, window=5), shares, SETTINGS)
        tables.append(table)
        stories = biography_table(world, probability, shares)
        seen = ~np.isnan(probability.values[:, 0])
        report["archives"].append(
            {
                "cloud": cloud,
                "seed": seed,
                "unobserved_share": float(1 - seen.mean()),
                "stabilise": table.round(4).to_dict("records"),
                "biographies": stories,
            }
        )
        print(f"\ncloud {cloud:.0%}, {1 - seen.mean():.0%} of pixel-years unobserved")
        print(table.drop(columns="found_again").round(3).to_string(index=False))
        print(pd.DataFrame(stories).round(3).to_string(index=False))
    counts = ["false", "true", "found", "found_again"]
    pooled = sum(table[counts] for table in tables)
    means = sum(table[["accuracy", "coca_over_truth"]] for table in tables) / len(tables)
    whole = with_shares(pd.concat([tables[0][["setting"]], pooled, means], axis=1))
    report["all"] = whole.round(4).to_dict("records")
    print("\nall archives\n" + whole.round(3).to_string(index=False))
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
