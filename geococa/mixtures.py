"""Synthetic mixtures of pure pixels: training data for class fractions where only pure samples exist."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from geococa._checks import check_seed, check_type, check_whole
from geococa.errors import InputRefused
from geococa.formula_program import compile_formulas, evaluate
from geococa.formulas import INDICES, bands_in, parse_formula
from geococa.training import class_order, feature_columns

__all__ = ["class_shares", "linear_features", "mixture_table"]

_TEXTURE = re.compile(r".+_(mean|std|contrast|homogeneity|entropy)\d+")


def linear_features(names: Sequence[str]) -> list[str]:
    """Features that mix in proportion to area: bands, but no indices, texture or season statistics.

    Names that are none of these are taken for bands.

    Examples
    --------
    >>> linear_features(["red", "nir", "ndvi", "ndvi_p90", "red_std5"])
    ['red', 'nir']
    """
    return [
        name
        for name in names
        if name.lower() not in INDICES
        and name.split("_")[0].lower() not in INDICES
        and (not _TEXTURE.fullmatch(name) or "_mean" in name)
    ]


def class_shares(chosen: Any, classes: Sequence[str], found: pd.Series) -> np.ndarray:
    """Share of each class that priors mean: ``"samples"``, ``"equal"`` or a mapping by class; they sum to 1."""
    if isinstance(chosen, Mapping):
        numbers = [chosen.get(name, np.nan) for name in classes]
        values = np.asarray([float(one) if isinstance(one, int | float) else np.nan for one in numbers])
        if set(chosen) != set(classes) or not np.isfinite(values).all() or (values <= 0).any():
            raise InputRefused(f"priors must give a positive number for each of {list(classes)}, got {dict(chosen)}")
    elif chosen == "equal":
        values = np.ones(len(classes))
    elif chosen == "samples":
        values = np.asarray([float((found == name).sum()) for name in classes])
    else:
        raise InputRefused(f"priors must be 'samples', 'equal' or a mapping by class, got {chosen!r}")
    return values / values.sum()


def mixture_table(
    samples: pd.DataFrame,
    features: Sequence[str] | None = None,
    *,
    rows: int = 6000,
    priors: str | Mapping[str, float] = "samples",
    pure_share: float = 0.4,
    most_members: int = 3,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Mix pure samples linearly into pixels whose class fractions are known.

    Parameters
    ----------
    samples : pandas.DataFrame
        Pure pixels: ``class`` and one column a feature, from `geococa.training_table`. A sample whose pixel is itself
        mixed teaches a wrong fraction: take points at least a pixel inside their class.
    features : sequence of str, optional
        Feature columns; every numeric column that does not describe the sample where not given. Bands are mixed in
        proportion to area. Spectral indices do not mix so: they are computed anew from the mixed bands, which must be
        among the features. Texture and season statistics can't be mixed and are refused.
    rows : int
        Mixtures to make.
    priors : {"samples", "equal"} or mapping of str to float
        Share of the landscape that each class covers; ``"samples"`` takes it from the samples.
    pure_share : float
        Share of the rows that stay pure, in 0..1.
    most_members : int
        Most pixels in a mixture; the number of each is drawn from 2 to this.
    classes : sequence of str, optional
        Order of the classes.
    seed : int
        Seed; the same arguments give the same table.

    Returns
    -------
    pandas.DataFrame
        ``fraction_<class>`` float64 for each class, sums 1, and the features as float32.

    Raises
    ------
    InputRefused
        Fewer than two classes, a feature that can't be mixed, or a setting out of its range.

    Notes
    -----
    Members of a mixture are drawn independently by ``priors`` (so two may be of one class), their weights are uniform
    on the simplex. The expected fraction of each class is therefore its prior, in pure and mixed rows alike: a
    regression on the table is unbiased on average over a landscape whose shares are the priors. Where they are not (a
    rare class with as many samples as forest), hectares of the rare class come out too high: give the shares.

    References
    ----------
    Okujeni, A., van der Linden, S., Tits, L., Somers, B. & Hostert, P. (2013). Support vector regression and
    synthetically mixed training data for quantifying urban land cover. Remote Sensing of Environment 137, 184-197.

    Examples
    --------
    >>> pure = pd.DataFrame({"class": ["coca", "forest"], "red": [0.05, 0.02], "nir": [0.3, 0.4]})
    >>> table = mixture_table(pure, rows=500, seed=1)
    >>> round(float(table["fraction_coca"].mean()), 1)
    0.5
    >>> mixed = table["fraction_coca"] * 0.05 + table["fraction_forest"] * 0.02
    >>> bool(np.allclose(table["red"], mixed, atol=1e-6))
    True
    """
    rows, most_members = check_whole(rows, "rows", 2), check_whole(most_members, "most_members", 2)
    seed = check_seed(seed)
    if not isinstance(pure_share, int | float) or not 0 <= pure_share <= 1:
        raise InputRefused(f"pure_share must lie in 0..1, got {pure_share!r}")
    check_type(samples, pd.DataFrame, "samples", "make a geococa.training_table of pure samples")
    if "class" not in samples.columns:
        raise InputRefused(f"the samples have no column 'class', only {', '.join(map(str, samples.columns[:30]))}")
    names = feature_columns(samples, features)
    labels = samples["class"].astype(str)
    order = class_order(labels, classes)
    shares = class_shares(priors, order, labels)
    values = samples[names].to_numpy(dtype=np.float64)
    rng = np.random.default_rng([seed, 0xF7AC])
    member = rng.choice(len(order), size=(rows, most_members), p=shares)
    pixel = _pixels(member, labels.to_numpy(), order, rng)
    weight = _weights(rows, most_members, pure_share, rng)
    mixed = np.einsum("rm,rmf->rf", weight, values[pixel])
    fraction = np.zeros((rows, len(order)))
    for place in range(most_members):
        np.add.at(fraction, (np.arange(rows), member[:, place]), weight[:, place])
    columns = {f"fraction_{name}": fraction[:, k] for k, name in enumerate(order)}
    return pd.DataFrame(columns | _features(mixed, names))


def _pixels(member: np.ndarray, labels: np.ndarray, order: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Row of the samples that stands for each member, at random within its class."""
    out = np.empty(member.shape, dtype=np.int64)
    for k, name in enumerate(order):
        chosen = member == k
        out[chosen] = rng.choice(np.flatnonzero(labels == name), size=int(chosen.sum()))
    return out


def _weights(rows: int, most_members: int, pure_share: float, rng: np.random.Generator) -> np.ndarray:
    """Weights ``(rows, most_members)`` that sum to 1: one member in pure rows, several in the others."""
    count = rng.integers(2, most_members + 1, rows)
    count[rng.random(rows) < pure_share] = 1
    # exponential numbers over their sum are uniform on the simplex
    weight = rng.exponential(size=(rows, most_members)) * (np.arange(most_members) < count[:, None])
    out: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return out


def _features(mixed: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Mixed bands as they are, and indices anew from them."""
    linear = linear_features(names)
    bands = {name: np.ascontiguousarray(mixed[:, names.index(name)], dtype=np.float32) for name in linear}
    indices = [name for name in names if name.lower() in INDICES]
    lost = [name for name in names if name not in linear and name not in indices]
    if lost:
        raise InputRefused(
            f"features {', '.join(lost)} do not follow from mixed bands; leave them out, or train on fractions of real "
            "pixels from geococa.fraction_table"
        )
    if not indices:
        return bands
    nodes = [parse_formula(name, linear) for name in indices]
    missing = sorted({band for node in nodes for band in bands_in(node)} - set(linear))
    if missing:
        raise InputRefused(f"indices {', '.join(indices)} need the bands {', '.join(missing)} among the features")
    out = np.empty((len(indices), len(mixed)), dtype=np.float32)
    evaluate(compile_formulas(nodes), bands, out)
    made = bands | dict(zip(indices, out, strict=True))
    return {name: made[name] for name in names}
