"""Does the slope of a park hold its truth when the errors of the estimates are carried into it?

Landscapes of known truth, hectares estimated from sampled points year by year, `area_trend` on the estimates: how often
lies the slope of the true hectares inside the interval that carries the errors? Twice each: a panel of points looked at in
every year (errors shared, with the covariance of the panel) and fresh points every year (independent errors).

`plots`: the plot landscapes of `benchmarks.error_budget`. `polygons`: the landscapes of `geococa.synthetic`, which the
simulated archive is made of. Results are added to results/trend_levels.json; an interrupted run goes on where it stopped.

    python -m benchmarks.slope_coverage --world plots --landscapes 2000
    python -m benchmarks.slope_coverage --world polygons --landscapes 2000
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import shapely

from benchmarks import error_budget
from benchmarks.trend_levels import add, known
from geococa import mann_kendall
from geococa.accuracy import domain_area, error_matrix
from geococa.errors import GeococaError
from geococa.panel_estimates import panel_area
from geococa.synthetic import draw_validation, landscape
from geococa.trends import area_trend

YEARS = tuple(range(2019, 2025))
STEP = 20  # landscapes between two notes of the results


def plots(seed):
    """True hectares of coca in the parks, points, and hectares of the parks: plots that are planted and cleared."""
    world = error_budget.landscape(seed)
    size, park = world["size"], world["park"]
    rng = np.random.default_rng([seed, 2])
    frames = []
    for name, inside in (("near", world["near"]), ("far", ~world["near"])):
        members = np.flatnonzero(inside)
        share = size[members].cumsum() / size[members].sum()
        plot = members[np.searchsorted(share, rng.random(len(YEARS) * error_budget.POINTS[0]))]
        frames.append(pd.DataFrame({"plot": plot, "stratum": name, "stratum_area_ha": float(size[members].sum())}))
    drawn = pd.concat(frames, ignore_index=True)
    label = np.where(world["truth"][:, drawn["plot"]], "coca", "other")
    points = pd.concat(
        [drawn.assign(point=drawn.index, year=year, land=label[k]) for k, year in enumerate(YEARS)], ignore_index=True
    )
    points = points.rename(columns={"land": "class"}).assign(park=park[points["plot"]])
    return (world["truth"] * size * park).sum(axis=1), points, float(size[park].sum())


def polygons(seed):
    """The same from a landscape of polygons, as the simulated archive is drawn."""
    from geococa.synthetic.frame import area_ha

    world = landscape(size_m=1000, tiles=1, years=YEARS, dates_per_year=1, seed=seed)
    parks = shapely.intersection(shapely.union_all(world.parks.geometry.to_numpy()), world.footprint)
    rows = world.plots
    inside = {plot: area_ha(shapely.intersection(shape, parks)) for plot, shape in _outlines(rows).items()}
    coca = rows[rows["class"] == "coca"]
    truth = np.array([sum(inside[plot] for plot in coca.loc[coca["year"] == year, "plot"]) for year in YEARS])
    points = draw_validation(world, 300 * len(YEARS))
    points["park"] = shapely.intersects(parks, points.geometry.to_numpy())
    return truth, pd.DataFrame(points.drop(columns="geometry")), area_ha(parks)


def _outlines(rows):
    return dict(zip(rows["plot"], rows.geometry, strict=True))


WORLDS = {"plots": plots, "polygons": polygons}


def panel_trend(points, park_ha):
    """Trend of the estimates of a panel, a sixth of the points in every year."""
    samples = points[points["point"] % len(YEARS) == 0].reset_index(drop=True)
    found = panel_area(samples, within=samples["park"].to_numpy(), domain_area_ha=park_ha)
    table = found.areas.reset_index()[["year", "area_ha"]].assign(zone="parks")
    return _trend(table, found.covariance)


def fresh_trend(points, park_ha):
    """Trend of estimates from other points every year."""
    samples = points[points["point"] % len(YEARS) == points["year"] - YEARS[0]]
    rows = []
    for year, part in samples.groupby("year"):
        matrix = error_matrix(
            np.where(part["class"] == "coca", "coca", "other"), np.full(len(part), "other"),
            strata=part["stratum"], domain=np.where(part["park"], "parks", ""), positive=None,
        )  # fmt: skip
        area = part.groupby("stratum")["stratum_area_ha"].first().to_dict()
        row = domain_area(matrix, mapped_area_ha=area, domain_area_ha={"parks": park_ha}).loc["parks"]
        rows.append((year, row["area_ha"], row["se_ha"]))
    return _trend(pd.DataFrame(rows, columns=["year", "area_ha", "se_ha"]).assign(zone="parks"), None)


def _trend(table, covariance):
    trends = area_trend(table, covariance=covariance, find_breaks=False, test="mann_kendall", replicates=1000)
    return trends.iloc[0]


def measure(world, seed):
    """For each design: whether the interval holds the true slope, the error of the slope and its standard error."""
    truth, points, park_ha = WORLDS[world](seed)
    slope = mann_kendall.theil_sen(np.array(YEARS, dtype=np.float64), truth)
    out = {}
    for design, trend_of in (("panel", panel_trend), ("fresh", fresh_trend)):
        try:
            row = trend_of(points, park_ha)
        except GeococaError:
            continue
        if row["n_years"] == len(YEARS) and np.isfinite(row["slope_se_sampling"]):
            held = bool(row["slope_low_sampling"] <= slope <= row["slope_high_sampling"])
            out[design] = (held, float(row["slope_ha_per_year"] - slope), float(row["slope_se_sampling"]))
    return out


def summary(rows):
    """Landscapes, share of intervals that hold, bias and size of the standard error in true standard errors."""
    held, error, se = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    spread = float(error.std())
    return [len(rows), float(held.mean()), float(error.mean() / spread), float(np.sqrt((se**2).mean()) / spread)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, default="plots", help="kind of landscape")
    parser.add_argument("--landscapes", type=int, default=100, help="how many")
    options = parser.parse_args()
    part = f"landscapes {options.world}"
    rows = known(part).get("rows", {})
    start = known(part).get("done", 0)
    for seed in range(start, options.landscapes):
        for design, row in measure(options.world, seed).items():
            rows.setdefault(design, []).append([int(row[0]), round(row[1], 5), round(row[2], 5)])
        if (seed + 1) % STEP == 0 or seed + 1 == options.landscapes:
            add(part, "rows", rows, quiet=True)
            add(part, "done", seed + 1)
            for design, found in rows.items():
                add(part, design, summary(found))


if __name__ == "__main__":
    main()
