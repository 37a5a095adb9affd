"""Variance of expanded totals under strata, clusters and two stages, from the sampled units themselves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geococa.errors import AccuracyError

__all__ = ["SampledUnits", "bootstrap_weights", "degrees_of_freedom", "total_covariance"]


@dataclass(frozen=True)
class SampledUnits:
    """Sampled elements with the design that they were drawn by.

    Attributes
    ----------
    weight : numpy.ndarray
        float64 ``(n,)``, how many elements of the population each one stands for: 1 / inclusion probability.
    stratum : numpy.ndarray
        int64 ``(n,)``, stratum number, 0, 1, 2, ...
    cluster : numpy.ndarray
        int64 ``(n,)``, number of the cluster (primary unit), 0, 1, 2, ...; each element its own where there are no clusters.
        A cluster lies in one stratum.
    clusters_in_stratum : numpy.ndarray or None
        float64 ``(strata,)``, number of clusters in the population, for the finite population correction; None = many.
    elements_in_cluster : numpy.ndarray or None
        float64 ``(clusters,)``, number of elements of each sampled cluster in the population, where only some of them were
        observed (two stages); None where clusters were observed whole.
    """

    weight: np.ndarray
    stratum: np.ndarray
    cluster: np.ndarray
    clusters_in_stratum: np.ndarray | None = None
    elements_in_cluster: np.ndarray | None = None

    @property
    def stratum_of_cluster(self) -> np.ndarray:
        """int64 ``(clusters,)``."""
        out = np.zeros(int(self.cluster.max()) + 1 if len(self.cluster) else 0, np.int64)
        out[self.cluster] = self.stratum
        if (out[self.cluster] != self.stratum).any():
            raise AccuracyError(
                "some clusters lie in more than one stratum; strata must be formed of whole clusters, or weigh by the strata "
                "afterwards (post-stratification)"
            )
        return out


def total_covariance(values: np.ndarray, units: SampledUnits) -> np.ndarray:
    """Estimate the covariance of the expanded totals of several variables.

    Parameters
    ----------
    values : numpy.ndarray
        float64 ``(n, m)``, one row an element; zero outside a domain. For a ratio or a regression estimator the residuals of
        the elements take the place of the values (linearisation).
    units : SampledUnits
        The elements and their design.

    Returns
    -------
    numpy.ndarray
        float64 ``(m, m)``; NaN where a stratum holds a single cluster that is not the whole of it, or where a cluster that was
        not observed whole holds a single element whose value is not zero.

    Notes
    -----
    First stage: between clusters within strata; second stage: between the elements of a cluster, times the share of clusters
    that were drawn. Unbiased for simple random sampling without replacement at both stages; with unequal probabilities and no
    number of clusters, it is that of sampling with replacement and as a rule a little too large.

    References
    ----------
    Särndal, C.-E., Swensson, B. and Wretman, J. (1992), Model Assisted Survey Sampling, sections 4.2 to 4.6 and 5.5. Cochran,
    W. G. (1977), Sampling Techniques, 3rd ed., equation 11.24.
    """
    expanded = values * units.weight[:, None]
    home = units.stratum_of_cluster
    sums = np.zeros((len(home), values.shape[1]))
    np.add.at(sums, units.cluster, expanded)
    size = np.bincount(home)
    drawn = np.zeros(len(size))
    if units.clusters_in_stratum is not None:
        drawn = size / units.clusters_in_stratum
    first = _within(sums, home, size, np.maximum(1.0 - drawn, 0.0), zeros_tell=False)
    if units.elements_in_cluster is None:
        return first
    count = np.bincount(units.cluster, minlength=len(home))
    left = np.maximum(1.0 - count / units.elements_in_cluster, 0.0)
    # a cluster observed whole has no second stage, however few elements it has
    return first + _within(expanded, units.cluster, count, left * drawn[home], zeros_tell=True)


def _within(
    values: np.ndarray, group: np.ndarray, size: np.ndarray, factor: np.ndarray, *, zeros_tell: bool
) -> np.ndarray:
    """Sum over groups of factor * n / (n - 1) * sum of squares about the group's mean."""
    width = values.shape[1]
    sums = np.zeros((len(size), width))
    np.add.at(sums, group, values)
    centred = values - (sums / np.maximum(size, 1)[:, None])[group]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(factor > 0, factor * size / (size - 1.0), 0.0)
    # a single unit says nothing of the spread in its group
    alone = (size == 1) & (factor > 0)
    if alone.any() and (not zeros_tell or np.abs(values[alone[group]]).max() > 0):
        return np.full((width, width), np.nan)
    scale[alone] = 0.0
    out: np.ndarray = (centred * scale[group][:, None]).T @ centred
    return out


def degrees_of_freedom(units: SampledUnits, used: np.ndarray | None = None) -> int:
    """Clusters minus strata, of the design or of the elements that are ``used`` (bool ``(n,)``)."""
    here = np.ones(len(units.cluster), bool) if used is None else used
    return len(np.unique(units.cluster[here])) - len(np.unique(units.stratum[here]))


def bootstrap_weights(units: SampledUnits, replicates: int, seed: int) -> np.ndarray:
    """Weights of bootstrap samples of clusters.

    In each stratum ``n - 1`` of the ``n`` clusters are drawn with replacement and weighed so that the variance of a total over
    the replicates is that of `total_covariance` without a finite population correction.

    Returns
    -------
    numpy.ndarray
        float64 ``(replicates, n)``.

    Raises
    ------
    AccuracyError
        A stratum holds a single cluster.

    References
    ----------
    Rao, J. N. K., Wu, C. F. J. and Yue, K. (1992), Some recent work on resampling methods for complex surveys, Survey Methodology
    18, 209-217.
    """
    home = units.stratum_of_cluster
    size = np.bincount(home)
    if (size == 1).any():
        raise AccuracyError(
            "a stratum holds a single cluster, so there is nothing to resample; join it with another stratum"
        )
    rng = np.random.default_rng(seed)
    factor = np.zeros((replicates, len(home)))
    for h in np.flatnonzero(size):
        members = np.flatnonzero(home == h)
        n = len(members)
        counts = rng.multinomial(n - 1, np.full(n, 1 / n), size=replicates)
        factor[:, members] = counts * n / (n - 1)
    out: np.ndarray = factor[:, units.cluster] * units.weight
    return out
