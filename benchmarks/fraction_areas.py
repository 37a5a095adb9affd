"""Hectares of coca from labels and from class fractions, beside the vector truth of simulated landscapes.

Each of several landscapes is cut into squares of 450 m; models learn in a random half of them and map the other half, at
10 m (bands beyond 0.7 um at 20 m, as Sentinel-2 has them) and at 30 m (all bands, as Landsat). The truth are the simulated
polygons, cut by the squares, on the ellipsoid; no pixel is in it. Images have noise but no weather. Features are the bands
of four dates side by side, or their median and indices, which tells coca from young forest and crops far worse. Six ways
to the hectares:

- ``labels``: random forest on pure reference points, labels counted;
- ``labels, all pixels``: random forest on a simple random sample of pixels with the class of the largest share;
- ``fraction, mixtures``: regression forest on synthetic mixtures of the same points, priors of the learning landscape;
- ``fraction, equal priors``: the same as if every class were as common as any other;
- ``fraction, polygons``: regression forest on the exact fractions of a simple random sample of pixels;
- ``unmixing``: linear unmixing with the mean spectra of the points.

Run ``python -m benchmarks.fraction_areas`` in the checkout; it prints the tables and writes benchmarks/results/fractions.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import shapely
import xarray as xr

import geococa as coca
from geococa import Grid
from geococa.synthetic import landscape
from geococa.synthetic.frame import area_ha

YEAR = 2020
BANDS = ["blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22"]
NAMES = [*BANDS, "ndvi", "ndmi", "nbr"]
SIDE_M = 450.0
SIZES_HA = [0.2, 0.5, 1.0, 3.0]
OPTIONS = {"n_estimators": 100}


def world_of(size_m, seed):
    return landscape(
        size_m=size_m, years=[YEAR], tiles=1, dates_per_year=4, samples_per_class=200, validation_points=50, seed=seed
    )


def features_of(world, cell_m, sort):
    """Bands of all dates, or their median and indices, without weather; at 30 m all bands have cells of that size."""
    grid = next(iter(world.grids.values()))
    drawn = cell_m if cell_m == 10 else cell_m / 2
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    scale = drawn / a
    shape = tuple(2 * int(n / scale / 2) for n in grid.shape)
    fine = Grid(grid.crs, (a * scale, b, c, d, e * scale, f), shape)
    dates = [one.moment.date() for one in world.acquisitions]
    scenes = xr.concat([world.render(fine, date, weather=False) for date in dates], "time", combine_attrs="override")
    reflectance = coca.to_reflectance(scenes)
    if cell_m != 10:
        pixels = Grid(grid.crs, (cell_m, b, c, d, -cell_m, f), tuple(n // 2 for n in shape))
        coarse = {name: reflectance[name].coarsen(y=2, x=2).mean().drop_vars(["x", "y"]) for name in BANDS}
        reflectance = xr.Dataset(
            {name: pixels.attach(band) for name, band in coarse.items()}, attrs=reflectance.attrs
        ).assign_coords(time=reflectance["time"])
    if sort == "median":
        return coca.spectral_features(coca.composite(reflectance, reducer="median"), NAMES).isel(time=0, drop=True)
    parts = [coca.spectral_features(reflectance.isel(time=n, drop=True), BANDS) for n in range(len(dates))]
    names = [f"{band}_{n}" for n in range(len(dates)) for band in BANDS]
    out = xr.concat(parts, "feature", coords="minimal", compat="override", combine_attrs="override")
    return out.assign_coords(feature=names)


def truth_of(world, zones):
    """True hectares of coca in each zone, from polygons alone."""
    cover = world.truth[YEAR]
    plots = shapely.union_all(cover[cover["class"] == "coca"].geometry.to_numpy())
    outlines = zones.to_crs("EPSG:4326").geometry
    return np.array([area_ha(shapely.intersection(plots, outline)) for outline in outlines])


def squares_of(grid, side_m=SIDE_M):
    left, bottom, right, top = grid.bounds
    across, down = max(int((right - left) // side_m), 1), max(int((top - bottom) // side_m), 1)
    step_x, step_y = (right - left) / across, (top - bottom) / down
    boxes = [
        shapely.segmentize(
            shapely.box(left + i * step_x, bottom + j * step_y, left + (i + 1) * step_x, bottom + (j + 1) * step_y),
            50.0,
        )
        for j in range(down)
        for i in range(across)
    ]
    return geopandas.GeoDataFrame({"zone": [f"s{n}" for n in range(len(boxes))]}, geometry=boxes, crs=grid.crs)


def around_plots(world, squares):
    """Each coca plot with 45 m around it, and the plot's size; only those wholly in the squares to map."""
    plots = world.plots
    plots = plots[(plots["class"] == "coca") & (plots["year"] == YEAR)].to_crs(squares.crs)
    near = plots.geometry.buffer(45.0)
    inside = near.within(squares.union_all().buffer(0.01)).to_numpy()
    names = [f"p{n}" for n in range(int(inside.sum()))]
    return geopandas.GeoDataFrame(
        {"zone": names, "size_ha": plots["area_ha"].to_numpy()[inside]},
        geometry=near[inside].to_numpy(),
        crs=squares.crs,
    )


def halves_of(world, grid):
    """Squares to learn in and squares to map, drawn at random."""
    squares = squares_of(grid)
    order = np.random.default_rng(world.seed).permutation(len(squares))
    half = len(squares) // 2
    return squares.iloc[np.sort(order[:half])], squares.iloc[np.sort(order[half:])]


def models_of(world, features, ground, rows=6000, options=OPTIONS):
    """Models by name, trained in the squares ``ground``."""
    names = [str(name) for name in features["feature"].values]
    samples = world.samples.to_crs(ground.crs)
    points = coca.training_table(samples[samples.within(ground.union_all())], features)
    pixels = coca.fraction_table(world.truth[YEAR], features, within=ground, rows=rows, seed=1)
    columns = [name for name in pixels.columns if name.startswith("fraction_")]
    largest = pixels[columns].to_numpy().argmax(axis=1)
    labelled = pixels[names].assign(**{"class": [columns[k].removeprefix("fraction_") for k in largest]})
    mean = pixels[columns].mean().clip(lower=1e-4)
    priors = {name: mean[f"fraction_{name}"] for name in set(points["class"])}

    def mixtures(prior):
        return coca.train(points, names, method="fraction", mixtures=rows, priors=prior, **options)

    return {
        "labels": coca.train(points, names, **options),
        "labels, all pixels": coca.train(labelled, names, **options),
        "fraction, mixtures": mixtures(priors),
        "fraction, equal priors": mixtures("equal"),
        "fraction, polygons": coca.train(pixels, names, method="fraction", **options),
        "unmixing": coca.train(points, names, method="unmixing"),
    }


def mapped_ha(model, features, share):
    output = "labels" if model.output == "probability" else None
    areas = coca.zonal_area(coca.classify(features, model, output), share)
    return areas["area_ha"].sel(land_cover="coca").values.ravel()


def compare(cell_m, inputs, worlds, rows=6000, options=OPTIONS):
    """One row for each method and zone: true and mapped hectares, for squares and for single plots."""
    found = []
    for number, world in enumerate(worlds):
        features = features_of(world, cell_m, inputs)
        grid = Grid.from_xarray(features)
        ground, squares = halves_of(world, grid)
        models = models_of(world, features, ground, rows, options)
        for sort, zones in (("square", squares), ("plot", around_plots(world, squares))):
            share, true = coca.coverage_fraction(zones, grid), truth_of(world, zones)
            size = zones["size_ha"] if "size_ha" in zones else pd.Series(np.nan, zones.index)
            for name, model in models.items():
                table = pd.DataFrame({"sort": sort, "method": name, "world": number, "size_ha": size})
                table.insert(0, "cell_m", cell_m)
                table.insert(0, "inputs", inputs)
                found.append(table.assign(true_ha=true, mapped_ha=mapped_ha(model, features, share)))
    return pd.concat(found, ignore_index=True)


def summary(table):
    """Totals and errors in squares, by cell size and method."""
    rows = []
    squares = table[table["sort"] == "square"]
    for (inputs, cell_m, name), part in squares.groupby(["inputs", "cell_m", "method"], sort=False):
        error = part["mapped_ha"] - part["true_ha"]
        whole = part.groupby("world")[["true_ha", "mapped_ha"]].sum()
        off = (whole["mapped_ha"] / whole["true_ha"] - 1).abs()
        rows.append(
            {
                "inputs": inputs,
                "cell_m": cell_m,
                "method": name,
                "true_ha": part["true_ha"].sum(),
                "mapped_ha": part["mapped_ha"].sum(),
                "error_percent": 100 * error.sum() / part["true_ha"].sum(),
                "landscape_error_percent": 100 * off.mean(),
                "square_rmse_ha": float(np.sqrt((error**2).mean())),
            }
        )
    return pd.DataFrame(rows)


def by_plot_size(table):
    """Mapped over true hectares around plots, by the size of the plot."""
    plots = table[table["sort"] == "plot"]
    plots = plots.assign(size=pd.cut(plots["size_ha"], SIZES_HA, labels=["0.2-0.5 ha", "0.5-1 ha", "1-3 ha"]))
    sums = plots.groupby(["inputs", "cell_m", "method", "size"], sort=False, observed=True)[
        ["true_ha", "mapped_ha"]
    ].sum()
    ratio = (sums["mapped_ha"] / sums["true_ha"]).rename("mapped_over_true")
    return ratio.unstack("size").sort_index(axis=1).reset_index()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-m", type=float, default=4500.0, help="side of each landscape")
    parser.add_argument("--landscapes", type=int, default=3, help="number of landscapes")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fractions.json")
    settings = parser.parse_args()
    start = time.perf_counter()
    worlds = [world_of(settings.size_m, 201 + n) for n in range(settings.landscapes)]
    cases = [(cell_m, inputs) for inputs in ("dates", "median") for cell_m in (10, 30)]
    table = pd.concat([compare(cell_m, inputs, worlds) for cell_m, inputs in cases], ignore_index=True)
    squares, plots = summary(table), by_plot_size(table)
    print("Squares of 450 m: totals, mean error of a landscape's total, and root mean square error of a square")
    print(squares.round(3).to_string(index=False))
    print("\nMapped over true hectares of coca within 45 m of plots, by plot size")
    print(plots.round(3).to_string(index=False))
    record = {
        "size_m": settings.size_m,
        "landscapes": settings.landscapes,
        "squares": squares.round(6).to_dict("records"),
        "plots": plots.round(6).to_dict("records"),
        "seconds": round(time.perf_counter() - start, 1),
    }
    settings.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
