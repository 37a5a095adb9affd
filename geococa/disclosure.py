"""Disclosure control of published sums: noise that belongs to a set of plots, and cells that must be left out.

A reader who holds two sums, such as those of two years or of two zones that differ by a valley, subtracts them to learn
what lies between. Rounding does not help: the difference still shows. The cell key method gives every plot a fixed random
number; those of a set are added up and choose the noise of its sum. The same set has the same noise wherever it is
published, and two sets that differ in one plot have noise that has nothing to do with each other.

References
----------
Fraser & Wooton (2005), A proposed method for confidentialising tabular output to protect against differencing, UNECE work
session on statistical data confidentiality, Geneva. Thompson, Broadfoot & Elazar (2013), Methodology for the automatic
confidentialisation of statistical outputs from remote servers at the Australian Bureau of Statistics, UNECE, Ottawa.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["NOISE_PLOTS", "hidden_cells", "noisy_sum", "plot_keys", "value_key"]

NOISE_PLOTS = 2.0
"""Largest noise of a sum, in plots as large as its largest: the noise of two sums hides four plots between them."""


def plot_keys(longitude: Any, latitude: Any, area_ha: Any) -> np.ndarray:
    """Random number of each plot, uint64 (n,), from its centre (degrees, to about 1 cm) and hectares (to 1 m2)."""
    rows = zip(np.asarray(longitude).tolist(), np.asarray(latitude).tolist(), np.asarray(area_ha).tolist(), strict=True)
    return np.array([_hashed(f"{x:.7f} {y:.7f} {ha:.4f}") for x, y, ha in rows], dtype=np.uint64)


def value_key(value: float) -> np.ndarray:
    """Key of a sum whose plots are not known, uint64 (1,): the same hectares (to 1 m2) have the same noise."""
    return np.array([_hashed(f"{value:.4f}")], dtype=np.uint64)


def noisy_sum(area_ha: np.ndarray, keys: np.ndarray, *, largest: float | None = None) -> float:
    """Hectares of a set of plots with the noise of that set, at least 0.

    Parameters
    ----------
    area_ha : numpy.ndarray
        float64 (n,), hectares of each plot.
    keys : numpy.ndarray
        uint64 (n,), from `plot_keys`.
    largest : float, optional
        Hectares of the largest plot, where ``area_ha`` holds something else than plots.

    Returns
    -------
    float
        The order of the plots does not matter.

    Examples
    --------
    >>> area, key = np.array([1.0, 2.0, 0.5]), np.array([3, 14, 15], dtype=np.uint64)
    >>> noisy_sum(area, key) == noisy_sum(area[::-1], key[::-1])
    True
    >>> abs(noisy_sum(area, key) - 3.5) <= 4.0
    True
    """
    total = float(np.sort(area_ha).sum())
    scale = NOISE_PLOTS * (float(np.max(area_ha, initial=0.0)) if largest is None else largest)
    # keys wrap at 2**64: a sum of uniform numbers is uniform whatever is added, until all are known
    together = int(np.sum(keys, dtype=np.uint64))
    return max(0.0, total + scale * (_hashed(f"set {together}") / 2.0**63 - 1.0))


def hidden_cells(plots: np.ndarray, groups: Sequence[Sequence[int]], order: np.ndarray, k: int) -> np.ndarray:
    """Cells to leave out: those with few plots, and as many more as their differences with published totals ask for.

    Parameters
    ----------
    plots : numpy.ndarray
        int (n,), plots in each cell.
    groups : sequence of sequence of int
        Cells that add up to something published (all cells of a year, the cells of a zone).
    order : numpy.ndarray
        int (n,), positions of the cells in the order in which equals are taken.
    k : int
        Smallest number of plots.

    Returns
    -------
    numpy.ndarray
        bool (n,). In each group the cells left out hold ``k`` plots in two cells at least, are all of its cells, or none.
        What is left out at one ``k`` is left out at every larger one, so that two exports show no more than one of them.

    Notes
    -----
    One more cell left out for one group can only widen what is left out for another, so a pass over all groups that
    changes nothing is the end.
    """
    hidden = np.zeros(len(plots), dtype=bool)
    rank = np.empty(len(plots), dtype=np.int64)
    rank[order] = np.arange(len(plots))
    rank[np.lexsort((rank, plots))] = np.arange(len(plots))
    for least in range(2, k + 1):
        hidden |= plots < least
        changed = True
        while changed:
            changed = False
            for group in groups:
                left_out = [i for i in group if hidden[i]]
                if not left_out or (len(left_out) > 1 and plots[left_out].sum() >= least):
                    continue
                shown = [i for i in group if not hidden[i]]
                if shown:
                    hidden[min(shown, key=lambda i: rank[i])] = True
                    changed = True
    return hidden


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"geococa {text}".encode()).digest()[:8], "big")
