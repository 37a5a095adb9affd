"""Season statistics against the same words in plain Python and numpy, on random series with gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geococa._kernels import season


def drops_of(values, days, depth, within):
    """Sharp drops as (depth, day of the low, days until half of it was made good or the series ended)."""
    found, i, last = [], 0, len(values) - 1
    while i < last:
        if values[i + 1] >= values[i]:
            i += 1
            continue
        low = i + 1
        while low < last and values[low + 1] < values[low] and days[low + 1] - days[i] <= within:
            low += 1
        fall = values[i] - values[low]
        if fall >= depth and days[low] - days[i] <= within:
            half = values[low] + fall / 2
            later = [k for k in range(low, last + 1) if values[k] >= half] or [last]
            found.append((fall, days[low], days[later[0]] - days[low]))
        i = low
    return found


def expected(values, days, fewest, depth, within):
    seen = ~np.isnan(values)
    v, d = values[seen].astype(float), days[seen]
    if len(v) < max(fewest, 1):
        return dict.fromkeys(season.STATISTICS, math.nan)
    levels = dict(zip(("p10", "p25", "p50", "p75", "p90"), np.percentile(v, (10, 25, 50, 75, 90)), strict=True))
    slope = np.polyfit(d, v, 1)[0] * 365.25 if len(v) > 1 else 0.0
    found = drops_of(v, d, depth, within)
    out = levels | {"amplitude": levels["p90"] - levels["p10"], "mean": v.mean(), "std": v.std(), "slope": slope}
    out |= {
        "drops": len(found),
        "drop_depth": np.mean([f[0] for f in found]) if found else 0.0,
        "drop_spread_days": np.std([f[1] for f in found]) if found else 0.0,
        "recovery_days": np.mean([f[2] for f in found]) if found else 0.0,
        "harmonic_amplitude": math.nan,
        "harmonic_phase_days": math.nan,
    }
    if len(v) >= 5:
        angle = 2 * np.pi * d / 365.25
        _, b, c = np.linalg.lstsq(np.c_[np.ones_like(d), np.cos(angle), np.sin(angle)], v, rcond=None)[0]
        out["harmonic_amplitude"] = math.hypot(b, c)
        out["harmonic_phase_days"] = math.atan2(c, b) / (2 * math.pi) % 1 * 365.25
    return out


@pytest.mark.parametrize("seed", range(6))
def test_every_statistic_is_that_of_its_definition(seed):
    rng = np.random.default_rng(seed)
    dates, pixels = int(rng.integers(4, 40)), 60
    days = np.sort(rng.choice(365, dates, replace=False)).astype(float)
    series = (0.6 + 0.2 * np.cos(days / 58)[:, None] + rng.normal(0, 0.12, (dates, pixels))).astype(np.float32)
    series[rng.random(series.shape) < rng.uniform(0, 0.6)] = np.nan
    out = np.empty((len(season.STATISTICS), pixels), np.float32)
    season.season_statistics(series, days, 3, 0.15, 60.0, out)
    for p in range(pixels):
        wanted = expected(series[:, p], days, 3, 0.15, 60.0)
        for k, name in enumerate(season.STATISTICS):
            if name == "harmonic_phase_days" and not math.isnan(wanted[name]):
                gap = abs(out[k, p] - wanted[name])
                assert min(gap, 365.25 - gap) < 0.05, name
            else:
                assert out[k, p] == pytest.approx(wanted[name], rel=2e-5, abs=2e-5, nan_ok=True), name


@pytest.mark.parametrize("harvests", [3, 5, 7])
def test_harvests_out_of_step_are_all_counted(harvests):
    days = np.arange(0, 365, 8.0)
    starts = 10 + np.arange(harvests) * 340 / harvests
    since = np.min(np.where(days[:, None] >= starts, days[:, None] - starts, np.inf), axis=1)
    # leaves come back within 40 days
    values = np.where(np.isfinite(since), 0.85 - 0.4 * np.clip(1 - since / 40, 0, 1), 0.85)
    out = np.empty((len(season.STATISTICS), 1), np.float32)
    season.season_statistics(values.astype(np.float32)[:, None], days, 3, 0.15, 60.0, out)
    found = dict(zip(season.STATISTICS, out[:, 0], strict=True))
    assert found["drops"] == harvests
    assert 0.3 < found["drop_depth"] <= 0.4 + 1e-6
    assert 16 <= found["recovery_days"] <= 28
    assert found["drop_spread_days"] == pytest.approx(np.std(starts), rel=0.05)


def test_an_empty_series_and_one_date_are_defined():
    out = np.empty((len(season.STATISTICS), 2), np.float32)
    season.season_statistics(np.float32([[np.nan, 0.4]]), np.array([10.0]), 1, 0.15, 60.0, out)
    assert np.isnan(out[:, 0]).all()
    found = dict(zip(season.STATISTICS, out[:, 1], strict=True))
    assert found["p50"] == np.float32(0.4)
    assert found["slope"] == found["drops"] == found["std"] == 0
