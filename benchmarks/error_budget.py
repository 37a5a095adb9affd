"""Do the intervals hold? Landscapes of known truth through the estimators, thousands of times.

`landscapes`: 2,000 simulated landscapes of plots that are planted and cleared, seen through cloud gaps and on image dates 0 to 6
months before 31 December, at some 600 points a year. Totals of parks, differences of years and slopes at 31 December, with the
whole error budget (sampling, gaps, dates). `samples`: 2,000 samples of one landscape, by every design and estimator; pixel
counting stands beside them.

    python -m benchmarks.error_budget --part landscapes --repeats 2000 --write
    python -m benchmarks.error_budget --part samples --repeats 2000 --write
    python -m benchmarks.error_budget --figure

Results go to results/error_budget.json and the figure to docs/images/error_budget.png.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.machine import machine_facts
from geococa.accuracy import adjusted_area, domain_area, error_matrix
from geococa.area_frames import frame_area
from geococa.cutoff import LINES, cutoff_area, hazards_from_panel
from geococa.panel_estimates import panel_area

RESULTS = Path(__file__).parent / "results" / "error_budget.json"
FIGURE = Path(__file__).parent.parent / "docs" / "images" / "error_budget.png"
YEARS = tuple(range(2019, 2025))
DOCS = Path(__file__).parent.parent / "docs" / "accuracy.md"
PLOTS = 30_000
PLOT_HA = 0.6
LEAST = 86  # of the axis of the figure
BLOCKS = 40  # parts of a landscape with one image date and one cloud cover each year
PLANTING = (0.03, 0.004)  # per year, near old coca and far from it
CLEARING = 0.22
START = (0.45, 0.01)
NEAR = 0.12
POINTS = (300, 300)


# Landscapes ---------------------------------------------------------------------------------------------------------


def landscape(seed):
    """Plots with their size, stratum, park and block; truth at 31 December and what the images show, year by year."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(-0.18, 0.6, PLOTS) * PLOT_HA
    near = rng.random(PLOTS) < NEAR
    block = rng.integers(0, BLOCKS, PLOTS)
    park = block < BLOCKS // 2
    state = rng.random(PLOTS) < np.where(near, *START)
    truth, seen, age, visible = [], [], [], []
    for _ in YEARS:
        days = rng.uniform(0, 182.5, BLOCKS)[block]
        dark = (rng.random(BLOCKS) < 0.15)[block] | (rng.random(PLOTS) < 0.08)
        image = moved(rng, state, near, 1.0 - days / 365.25)
        state = moved(rng, image, near, days / 365.25)
        truth.append(state)
        seen.append(image)
        age.append(days)
        visible.append(~dark)
    return {
        "size": size, "near": near, "park": park, "truth": np.array(truth), "seen": np.array(seen), "age": np.array(age),
        "visible": np.array(visible),
    }  # fmt: skip


def moved(rng, state, near, years):
    """States some years later."""
    planting = np.where(near, *PLANTING)
    speed = planting + CLEARING
    level = planting / speed
    return rng.random(len(state)) < level + (state - level) * np.exp(-speed * years)


def drawn_panel(world, seed):
    """Points drawn by strata, with equal chance for every hectare, and their labels in each year."""
    rng = np.random.default_rng([seed, 1])
    plots, stratum, area = [], [], []
    for name, inside, n in (("near", world["near"], POINTS[0]), ("far", ~world["near"], POINTS[1])):
        members = np.flatnonzero(inside)
        share = world["size"][members]
        plots.append(members[np.searchsorted(np.cumsum(share) / share.sum(), rng.random(n))])
        stratum += [name] * n
        area += [float(share.sum())] * n
    plot = np.concatenate(plots)
    label = np.where(world["seen"][:, plot], "coca", "forest").astype(object)
    label[~world["visible"][:, plot]] = None
    n = len(plot)
    return pd.DataFrame({
        "point": np.tile(np.arange(n), len(YEARS)), "year": np.repeat(YEARS, n), "stratum": stratum * len(YEARS),
        "stratum_area_ha": area * len(YEARS), "class": label.ravel(), "image_age_days": world["age"][:, plot].ravel(),
        "park": np.tile(world["park"][plot], len(YEARS)), "plot": np.tile(plot, len(YEARS)),
    })  # fmt: skip


def landscapes(repeats):
    """Coverage of park totals, year differences and slopes; bias of the account at 31 December."""
    rows, accounts = [], []
    for seed in range(repeats):
        world = landscape(seed)
        size, park = world["size"], world["park"]
        truth = (world["truth"] * size * park).sum(axis=1)
        samples = drawn_panel(world, seed)
        rates = hazards_from_panel(samples, age_column="image_age_days", cluster="plot")
        found = panel_area(
            samples, within=samples["park"], domain_area_ha=float(size[park].sum()), hazards=rates,
            plot_ha=float((size**2).sum() / size.sum()),
        )  # fmt: skip
        rows += budget_rows(truth, found, "whole budget")
        if seed % 5 == 0:
            plain = panel_area(samples, within=samples["park"], domain_area_ha=float(size[park].sum()))
            rows += budget_rows(truth, plain, "sampling only")
        if seed % 10 == 0:
            accounts.append(account(world))
    table = pd.DataFrame(rows)
    out = {f"{kind}: {what}": figures(part) for (kind, what), part in table.groupby(["kind", "what"], sort=False)}
    gap = pd.DataFrame(accounts)
    out["31 December account"] = {
        "landscapes": len(gap),
        "bias_percent": round(100 * float((gap["total"] / gap["truth"] - 1).mean()), 3),
        "bias_percent_se": round(100 * float((gap["total"] / gap["truth"] - 1).std() / np.sqrt(len(gap))), 3),
        "observed_only_percent": round(100 * float((gap["observed"] / gap["truth"] - 1).mean()), 2),
        "without_age_correction_percent": round(100 * float((gap["uncorrected"] / gap["truth"] - 1).mean()), 2),
        "largest_gap_of_the_lines_ha": float(gap["gap"].abs().max()),
    }
    return out


def budget_rows(truth, found, kind):
    areas, rows = found.areas, []
    for k, year in enumerate(YEARS):
        row = areas.loc[year]
        rows.append((kind, "park totals", row["area_ha"], row["se_ha"], row["ci_low_ha"], row["ci_high_ha"], truth[k]))
    for row in found.changes.to_dict("records"):
        change = truth[YEARS.index(row["year_to"])] - truth[YEARS.index(row["year_from"])]
        rows.append(
            (kind, "year differences", row["change_ha"], row["se_ha"], row["ci_low_ha"], row["ci_high_ha"], change)
        )
    line = found.slope()
    slope = np.polyfit(np.array(YEARS) - YEARS[0], truth, 1)[0]
    rows.append(
        (
            kind,
            "slopes",
            line["slope_ha_per_year"],
            line["se_ha_per_year"],
            line["slope_low"],
            line["slope_high"],
            slope,
        )
    )
    return [dict(zip(("kind", "what", "estimate", "se", "low", "high", "truth"), row, strict=True)) for row in rows]


def account(world):
    """The account at 31 December of one year, from a map that sees every visible plot as it was."""
    k = len(YEARS) - 1
    size, seen, shown = world["size"], world["visible"][k], world["seen"][k]
    # rates from the whole landscape: the change between the last two years' images
    both = world["visible"][k - 1] & seen
    years = 1.0 + (world["age"][k - 1] - world["age"][k]) / 365.25
    panel = pd.DataFrame({
        "point": np.tile(np.flatnonzero(both), 2), "class": np.where(world["seen"][k - 1 : k + 1][:, both].ravel(), "coca", "no"),
        "year": np.concatenate([np.zeros(both.sum()), years[both]]), "ha": np.tile(size[both], 2),
    })  # fmt: skip
    rates = hazards_from_panel(panel, weight="ha")
    bins = np.floor(world["age"][k] / 15)
    table = pd.DataFrame({"bin": bins, "age": world["age"][k] * size, "coca": shown * size, "ha": size})[seen]
    groups = table.groupby("bin").sum()
    ages = pd.DataFrame({
        "zone": "all", "image_age_days": (groups["age"] / groups["ha"]).to_numpy(), "coca_ha": groups["coca"].to_numpy(),
        "other_ha": (groups["ha"] - groups["coca"]).to_numpy(), "unseen_ha": 0.0,
    })  # fmt: skip
    ages.loc[0, "unseen_ha"] = float(size[~seen].sum())
    lines = cutoff_area(ages, rates).query("zone == 'all'").set_index("line")["area_ha"]
    return {
        "truth": float((world["truth"][k] * size).sum()), "total": lines["total"], "observed": lines["observed"],
        "uncorrected": lines["observed"] * size.sum() / size[seen].sum(),
        "gap": lines["total"] - lines[list(LINES)].to_numpy().sum(),
    }  # fmt: skip


# Samples of one landscape -------------------------------------------------------------------------------------------

GROUND = {"coca": (0.72, 0.04), "forest": (0.015, 0.76), "pasture": (0.06, 0.20)}
RARE = {"coca": (0.60, 0.004), "forest": (0.0008, 0.896), "pasture": (0.002, 0.10)}
HECTARES = 10_000.0


def ground(kind, seed=0, cells=200_000):
    """One landscape of cells: map class, truth in two years, park, segment of 100 cells, map's share of coca."""
    rng = np.random.default_rng(seed)
    names = np.array(list(kind))
    # neighbours are alike: sort by a noisy field, so that segments differ
    field = np.repeat(rng.normal(size=cells // 100), 100) + rng.normal(0, 1.0, cells)
    edges = np.cumsum([kind[name][1] for name in names])
    stratum = np.searchsorted(edges, np.argsort(np.argsort(field)) / cells, side="right").clip(max=len(names) - 1)
    mapped = names[stratum]
    before = rng.random(cells) < np.array([kind[name][0] for name in names])[stratum]
    after = np.where(before, rng.random(cells) > 0.18, rng.random(cells) < 0.012)
    return pd.DataFrame({
        "mapped": mapped, "before": before, "after": after, "park": np.arange(cells) % 400 < 130,
        "segment": np.arange(cells) // 100, "ha": HECTARES / cells,
        "share": np.clip(0.55 * before + 0.08 * (mapped == "coca") + rng.normal(0.05, 0.08, cells), 0, 1),
    })  # fmt: skip


def samples(repeats):
    """Coverage and bias of the estimators under repeated sampling of one landscape."""
    rows = []
    for label, kind in (("coca 6 %", GROUND), ("coca 0.3 % (rare)", RARE)):
        world = ground(kind)
        for seed in range(repeats if kind is GROUND else max(repeats // 2, 1)):
            rng = np.random.default_rng([seed, 7])
            rows += stratified_rows(world, rng, label)
            if kind is GROUND:
                rows += segment_rows(world, rng)
    table = pd.DataFrame(rows, columns=["what", "estimate", "se", "low", "high", "truth"])
    out = {what: figures(part) for what, part in table.groupby("what", sort=False)}
    for label, kind in (("coca 6 %", GROUND), ("coca 0.3 % (rare)", RARE)):
        out[f"pixel counting, {label}"] = counting(ground(kind), table, label)
    return out


def stratified_rows(world, rng, label, n=600):
    """Stratified estimates of the whole, a park, and change; normal intervals beside the default ones."""
    names = ("coca", "forest", "pasture")
    groups = {name: np.flatnonzero((world["mapped"] == name).to_numpy()) for name in names}
    units = dict(zip(names, (n // 3, n - 2 * (n // 4) - n // 12, n // 4), strict=True))
    units["forest"] = n - units["coca"] - units["pasture"]
    rows = np.concatenate([rng.choice(groups[name], units[name], replace=False) for name in names])
    part = world.iloc[rows]
    area = {name: len(groups[name]) * world["ha"].iloc[0] for name in names}
    reference = np.where(part["before"], "coca", "other")
    matrix = error_matrix(
        reference, np.where(part["mapped"] == "coca", "coca", "other"), strata=part["mapped"],
        domain=np.where(part["park"], "park", ""), positive=None,
    )  # fmt: skip
    ha = world["ha"].iloc[0]
    truth, park_truth = world["before"].sum() * ha, (world["before"] & world["park"]).sum() * ha
    out = []
    if "coca" not in matrix.classes:
        return [(f"{what}, {label}", 0.0, np.nan, np.nan, np.nan, truth) for what in ("stratified",)]
    row = adjusted_area(matrix, mapped_area_ha=area).loc["coca"]
    out.append((f"stratified, {label}", *interval(row), truth))
    low, high = row["area_ha"] - row["margin_ha"], row["area_ha"] + row["margin_ha"]
    out.append((f"stratified, normal interval, {label}", row["area_ha"], row["se_ha"], low, high, truth))
    park = world["park"].sum() * ha
    known = domain_area(matrix, mapped_area_ha=area, domain_area_ha={"park": park})
    out.append((f"park of known area, {label}", *interval(known.loc["park"]), park_truth))
    if label.startswith("coca 6"):
        plain = domain_area(matrix, mapped_area_ha=area)
        out.append((f"park, {label}", *interval(plain.loc["park"]), park_truth))
        panel = pd.DataFrame({
            "point": np.tile(np.arange(n), 2), "year": np.repeat([2020, 2021], n), "stratum": np.tile(part["mapped"], 2),
            "class": np.where(np.concatenate([part["before"], part["after"]]), "coca", "other"),
            "park": np.tile(part["park"], 2),
        })  # fmt: skip
        row = panel_area(panel, stratum_area_ha=area).changes.iloc[0]
        change = (world["after"].sum() - world["before"].sum()) * ha
        out.append((f"change, {label}", row["change_ha"], row["se_ha"], row["ci_low_ha"], row["ci_high_ha"], change))
        gain = (world["after"] & ~world["before"]).sum() * ha
        out.append(
            (f"gain, {label}", row["gain_ha"], row["gain_se_ha"], row["gain_ci_low_ha"], row["gain_ci_high_ha"], gain)
        )
    return out


def segment_rows(world, rng):
    """Segments observed whole, by expansion and with the map's help, and in two stages."""
    frame = world.attrs.get("frame")
    if frame is None:
        sums = world.assign(coca_ha=world["before"] * world["ha"], mapped_ha=world["share"] * world["ha"])
        frame = sums.groupby("segment")[["coca_ha", "mapped_ha", "ha"]].sum()
        world.attrs["frame"] = frame
    # the eighth of the segments with the most mapped coca is a stratum of its own
    sizes = {"high": len(frame) // 8, "low": len(frame) - len(frame) // 8}
    order = np.argsort(-frame["mapped_ha"].to_numpy(), kind="stable")
    high, low = order[: sizes["high"]], order[sizes["high"] :]
    drawn = np.concatenate([rng.choice(high, 40, replace=False), rng.choice(low, 40, replace=False)])
    units = frame.iloc[drawn].assign(stratum=np.repeat(["high", "low"], 40))
    truth, out = frame["coca_ha"].sum(), []
    for name in ("expansion", "ratio", "regression", "difference"):
        row = frame_area(
            units, population=sizes, estimator=name, auxiliary="mapped_ha", auxiliary_total=frame["mapped_ha"].sum()
        ).loc["all"]
        out.append((f"80 segments, {name}", *interval(row), truth))
    cells = (drawn[:, None] * 100 + np.array([rng.choice(100, 12, replace=False) for _ in drawn])).ravel()
    inner = world.iloc[cells]
    inner = pd.DataFrame({
        "coca_ha": (inner["before"] * inner["ha"]).to_numpy(), "segment": inner["segment"].to_numpy(), "of": 100.0,
        "stratum": np.repeat(["high", "low"], 480),
    })  # fmt: skip
    row = frame_area(inner, population=sizes, cluster="segment", elements_in_cluster="of").loc["all"]
    return [*out, ("80 segments, 12 points in each (two stages)", *interval(row), truth)]


def interval(row):
    return row["area_ha"], row["se_ha"], row["ci_low_ha"], row["ci_high_ha"]


def counting(world, table, label):
    """What counting the map's pixels says, and by how many standard errors of the sample it is wrong."""
    ha = world["ha"].iloc[0]
    counted, truth = (world["mapped"] == "coca").sum() * ha, world["before"].sum() * ha
    spread = table[table["what"] == f"stratified, {label}"]["estimate"].std()
    return {
        "counted_ha": round(float(counted), 1), "true_ha": round(float(truth), 1),
        "bias_percent": round(100 * float(counted / truth - 1), 1), "bias_in_se": round(float((counted - truth) / spread), 2),
    }  # fmt: skip


def figures(part):
    """Coverage, bias and size of the standard errors of one kind of estimate."""
    known = part[part["se"].notna()]
    error = known["estimate"] - known["truth"]
    # the truth differs between landscapes: errors are compared as they are
    spread = float(error.std())
    held = (known["low"] <= known["truth"]) & (known["truth"] <= known["high"])
    return {
        "n": len(known),
        "not_estimable": int(len(part) - len(known)),
        "coverage": round(100 * float(held.mean()), 2),
        "bias_in_se": round(float(error.mean() / spread), 3),
        "se_ratio": round(float(np.sqrt((known["se"] ** 2).mean()) / spread), 3),
        "mean_ha": round(float(known["estimate"].mean()), 2),
        "se_ha": round(spread, 2),
    }


def draw(results):
    """One figure: coverage of every kind of interval, between the lines of 93 and 97 %."""
    import matplotlib.pyplot as plt

    rows = [
        (name, found["coverage"], found["n"], part)
        for part in ("landscapes", "samples")
        for name, found in results.get(part, {}).items()
        if isinstance(found, dict) and "coverage" in found
    ]
    figure, axes = plt.subplots(figsize=(8.5, 0.34 * len(rows) + 1.2), layout="constrained")
    axes.axvspan(93, 97, color="#dfe8df", zorder=0)
    axes.axvline(95, color="#8aa08a", linewidth=1, zorder=1)
    for position, (name, coverage, n, part) in enumerate(rows):
        # the years of one landscape are not independent
        alone = n / len(YEARS) if part == "landscapes" and "slopes" not in name else n
        half = 196 * np.sqrt(coverage / 100 * (1 - coverage / 100) / alone)
        color = "#0072b2" if part == "landscapes" else "#d55e00"
        if coverage < LEAST:
            axes.plot(LEAST + 0.3, position, marker="<", color=color, markersize=7, zorder=2)
            axes.annotate(f"{coverage:.0f}", (LEAST + 0.6, position), va="center", fontsize=9, color=color)
            continue
        axes.errorbar(coverage, position, xerr=half, fmt="o", color=color, markersize=5, linewidth=1.2, zorder=2)
    axes.set_xlim(LEAST, 100)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("95 % intervals that hold the truth, per cent")
    axes.set_title("Error budget: blue 2,000 landscapes, orange 2,000 samples of one", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})


def document(results):
    """Put the figures into docs/accuracy.md, between its marks."""
    head = "| case | coverage, % | bias, SE | mean SE / true SE | SE, ha | n |\n|---|---|---|---|---|---|"
    lines = [head]
    for part in ("landscapes", "samples"):
        for name, found in results.get(part, {}).items():
            if isinstance(found, dict) and "coverage" in found:
                spread = f"{found['bias_in_se']:+.3f} | {found['se_ratio']:.3f} | {found['se_ha']:,.1f}"
                lines.append(f"| {name} | {found['coverage']:.1f} | {spread} | {found['n']:,} |")
    account = results.get("landscapes", {}).get("31 December account")
    text = "\n".join(lines)
    counted = [(n, f) for n, f in results.get("samples", {}).items() if n.startswith("pixel counting")]
    text += (
        "\n\n| pixel counting | counted, ha | true, ha | bias, % | bias, SE of the estimate |\n|---|---|---|---|---|"
    )
    for name, found in counted:
        figures_of = f"{found['counted_ha']:,.1f} | {found['true_ha']:,.1f} | {found['bias_percent']:+.1f}"
        text += f"\n| {name.removeprefix('pixel counting, ')} | {figures_of} | {found['bias_in_se']:+.2f} |"
    if account:
        text += (
            f"\n\n31 December account over {account['landscapes']} landscapes: bias {account['bias_percent']:+.2f} % "
            f"(± {account['bias_percent_se']:.2f} SE) of the total; without the age correction "
            f"{account['without_age_correction_percent']:+.2f} %, with observed hectares alone "
            f"{account['observed_only_percent']:+.1f} %. Largest gap between the lines and their total: "
            f"{account['largest_gap_of_the_lines_ha']:g} ha."
        )
    before, _, rest = DOCS.read_text(encoding="utf-8").partition("<!-- coverage -->")
    _, _, after = rest.partition("<!-- end -->")
    DOCS.write_text(f"{before}<!-- coverage -->\n\n{text}\n\n<!-- end -->{after}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("landscapes", "samples"))
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="keep the results")
    parser.add_argument(
        "--figure", action="store_true", help="draw the kept results and put them into docs/accuracy.md"
    )
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    if options.part:
        started = time.perf_counter()
        found = {"landscapes": landscapes, "samples": samples}[options.part](options.repeats)
        found["run"] = machine_facts(1) | {"repeats": options.repeats, "seconds": round(time.perf_counter() - started)}
        print(json.dumps(found, indent=1))
        if options.write:
            results[options.part] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        draw(results)
        document(results)


if __name__ == "__main__":
    main()
