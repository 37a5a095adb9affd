"""Slow, plain references for formulas, textures, seasons and survey estimates."""

from __future__ import annotations

import math

import numpy as np

VARIABLES = {
    "N": "nir", "R": "red", "B": "blue", "G": "green", "S1": "swir16", "S2": "swir22",
    "RE1": "rededge071", "RE2": "rededge075", "RE3": "rededge078",
}  # fmt: skip


def formula_value(formula: str, bands: dict[str, np.ndarray], constants: dict[str, float]) -> np.ndarray:
    """A catalogue formula in float64, evaluated by Python itself on the catalogue's own variable names."""
    names = {short: bands[long].astype(float) for short, long in VARIABLES.items()}
    sigma = 0.5 * (names["N"] + names["R"])
    names["kNN"] = np.ones_like(sigma)
    names["kNR"] = np.exp(-((names["N"] - names["R"]) ** 2) / (2 * sigma**2))
    with np.errstate(all="ignore"):
        return eval(formula, {"__builtins__": {}}, names | constants)  # noqa: S307


def local_moments(values: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.full(values.shape, np.nan), np.full(values.shape, np.nan)
    for r, c in np.argwhere(~np.isnan(values)):
        part = values[max(r - radius, 0) : r + radius + 1, max(c - radius, 0) : c + radius + 1].astype(float)
        mean[r, c], std[r, c] = np.nanmean(part), np.nanstd(part)
    return mean, std


def cooccurrence(levels: np.ndarray, count: int, radius: int) -> np.ndarray:
    """Contrast, homogeneity and entropy, window by window and pair by pair."""
    rows, cols = levels.shape
    out = np.full((3, rows, cols), np.nan)
    for r in range(rows):
        for c in range(cols):
            part = levels[max(r - radius, 0) : r + radius + 1, max(c - radius, 0) : c + radius + 1]
            pairs = np.zeros((count, count))
            for i in range(part.shape[0]):
                for j in range(part.shape[1]):
                    for di, dj in ((0, 1), (1, 0), (1, 1), (1, -1)):
                        if 0 <= i + di < part.shape[0] and 0 <= j + dj < part.shape[1]:
                            a, b = part[i, j], part[i + di, j + dj]
                            if a >= 0 and b >= 0:
                                pairs[a, b] += 1
                                pairs[b, a] += 1
            if levels[r, c] >= 0 and pairs.sum():
                share = pairs / pairs.sum()
                gap = (np.arange(count)[:, None] - np.arange(count)) ** 2
                seen = share[share > 0]
                out[:, r, c] = (share * gap).sum(), (share / (1 + gap)).sum(), -(seen * np.log(seen)).sum()
    return out


def olofsson(counts: np.ndarray, area_ha: np.ndarray) -> dict[str, np.ndarray]:
    """Equations 1 to 11 of Olofsson et al. (2014), term by term."""
    q = len(counts)
    weight = area_ha / area_ha.sum()
    per_row = counts.sum(axis=1)
    p = weight[:, None] * counts / per_row[:, None]
    users = np.diag(counts) / per_row
    producers = np.diag(p) / p.sum(axis=0)
    share_se = np.array([
        math.sqrt(sum(weight[i] ** 2 * (counts[i, k] / per_row[i]) * (1 - counts[i, k] / per_row[i]) / (per_row[i] - 1)
                      for i in range(q)))
        for k in range(q)
    ])  # fmt: skip
    return {
        "area_ha": p.sum(axis=0) * area_ha.sum(),
        "se_ha": share_se * area_ha.sum(),
        "users": users,
        "users_se": np.sqrt(users * (1 - users) / (per_row - 1)),
        "producers": producers,
        "overall_se": math.sqrt((weight**2 * users * (1 - users) / (per_row - 1)).sum()),
    }


def season(values: list[float]) -> dict[str, float]:
    return {
        **{f"p{q}": float(np.percentile(values, q)) for q in (10, 25, 50, 75, 90)},
        "mean": float(np.mean(values)),
        "std": float(np.std(values)),
    }


def spectral_medians(bands, days):
    """Median spectrum, count and median day of the dates that have all bands, pixel by pixel."""
    stack = np.stack(bands)
    out = np.full((len(stack), *stack.shape[2:]), np.nan, np.float32)
    counts, day = np.zeros(stack.shape[2:], np.uint16), np.full(stack.shape[2:], np.nan, np.float32)
    for place in np.ndindex(*stack.shape[2:]):
        here = np.isfinite(stack[(slice(None), slice(None), *place)]).all(axis=0)
        counts[place] = here.sum()
        if here.any():
            out[(slice(None), *place)] = np.median(stack[(slice(None), here, *place)], axis=1)
            day[place] = np.floor(np.median(np.asarray(days, float)[here]))
    return out, counts, day
