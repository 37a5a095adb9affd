"""Make-up of a training table: thin classes and polygons out, and weights that undo what that did to the priors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from geococa.errors import InputRefused

__all__ = ["balance", "prior_weights"]


def balance(
    table: pd.DataFrame,
    per_class: int | str | Mapping[str, int] = "smallest",
    *,
    per_sample: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Thin out a training table by chance, so that no class and no big polygon outweighs the others.

    .. warning::
       This changes the class shares, and with them the priors that a model learns: what is made more frequent than on
       the ground is mapped too often. Undo it in training with ``class_weight=prior_weights(table, shares)`` or, for the
       Gaussian methods, ``priors=shares``. Never thin the rows that a model is tested on.

    Parameters
    ----------
    table : pandas.DataFrame
        With ``class``, and ``sample`` where ``per_sample`` is given.
    per_class : int, "smallest" or mapping of str to int
        Most rows of each class; as many as the smallest class has; or by class, where classes not named keep all.
    per_sample : int, optional
        Most rows of one sample (the pixels of one polygon), thinned before the classes are.
    seed : int
        Of the draw.

    Returns
    -------
    pandas.DataFrame
        Rows of ``table`` in their order, with their index; ``attrs["kept_share"]`` by class.

    Raises
    ------
    InputRefused
        A number below 1, an unknown class, or no column ``sample``.

    Examples
    --------
    >>> table = pd.DataFrame({"class": ["coca"] * 2 + ["forest"] * 8})
    >>> balance(table)["class"].value_counts().to_dict()
    {'coca': 2, 'forest': 2}
    """
    names = table["class"].astype(str)
    counts = names.value_counts()
    if isinstance(per_class, str):
        if per_class != "smallest":
            raise InputRefused(f"per_class must be a number, 'smallest' or a mapping by class, got {per_class!r}")
    elif isinstance(per_class, Mapping):
        unknown = sorted(set(per_class) - set(counts.index))
        if unknown:
            raise InputRefused(f"per_class names {', '.join(unknown)}, the table has {', '.join(sorted(counts.index))}")
    numbers = [*per_class.values()] if isinstance(per_class, Mapping) else [per_class]
    if any(not isinstance(n, str) and n < 1 for n in (*numbers, 1 if per_sample is None else per_sample)):
        raise InputRefused(f"at least 1 row must be kept, got per_class={per_class!r}, per_sample={per_sample!r}")
    # one random order of all rows: the first so many of each group are kept
    rank = pd.Series(np.random.default_rng(seed).permutation(len(table)), index=names.index)
    frame = pd.DataFrame({"class": names.to_numpy(), "rank": rank.to_numpy()})
    if per_sample is not None:
        if "sample" not in table.columns:
            raise InputRefused(
                "the table has no column 'sample', so the pixels of one polygon can't be told; leave per_sample"
            )
        frame["sample"] = table["sample"].to_numpy()
        frame = frame[frame.groupby("sample")["rank"].rank() <= per_sample]
    left = frame["class"].value_counts()
    if isinstance(per_class, Mapping):
        most = frame["class"].map(lambda name: per_class.get(name, len(table)))
    else:
        most = pd.Series(int(left.min()) if isinstance(per_class, str) else per_class, index=frame.index)
    kept = frame[frame.groupby("class")["rank"].rank() <= most].index
    out = table.iloc[np.sort(kept.to_numpy())]
    shares = out["class"].astype(str).value_counts() / counts
    out.attrs["kept_share"] = {str(name): float(shares.get(name, 0.0)) for name in sorted(counts.index)}
    return out


def prior_weights(table: pd.DataFrame, shares: Mapping[str, float]) -> dict[str, float]:
    """Weights of the classes that make a training table count as if it had the class shares given.

    A model trained with ``class_weight`` set to them learns the priors of the landscape, whatever the make-up of its
    samples; the weights have mean 1 over the rows.

    Parameters
    ----------
    table : pandas.DataFrame
        With ``class``.
    shares : mapping of str to float
        Share of the landscape, or hectares, of each class of the table; positive.

    References
    ----------
    Elkan, C. (2001), The foundations of cost-sensitive learning, Proceedings of the 17th International Joint Conference on
    Artificial Intelligence, 973-978.

    Examples
    --------
    >>> table = pd.DataFrame({"class": ["coca"] * 5 + ["forest"] * 5})
    >>> prior_weights(table, {"coca": 0.02, "forest": 0.98})
    {'coca': 0.04, 'forest': 1.96}
    """
    counts = table["class"].astype(str).value_counts().sort_index()
    given = pd.to_numeric(
        pd.Series({str(name): value for name, value in shares.items()}, dtype=object), errors="coerce"
    )
    if set(given.index) != set(counts.index) or not np.isfinite(given).all() or (given <= 0).any():
        raise InputRefused(
            f"shares must give a positive number for each of {', '.join(counts.index)}, got {dict(shares)}"
        )
    weights = (given / given.sum()).reindex(counts.index) / (counts / counts.sum())
    return {str(name): round(float(value), 12) for name, value in weights.items()}
