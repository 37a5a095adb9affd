"""Years inform each other: a hidden Markov chain over the yearly classes of every pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.labelling import as_label_map, label, legend_of
from geococa.year_changes import YearChain, changed_classes, follow_changes, weigh_changes
from geococa.year_runs import posterior_labels, posteriors, viterbi
from geococa.year_transitions import (
    check_evidence,
    estimate_transitions,
    fitting_evidence,
    inverse_prior_of,
    matrix_of,
    persistence_matrix,
    shares_of,
    systematic_sample,
    years_of,
)

__all__ = ["EVIDENCE", "estimate_transitions", "persistence_matrix", "stabilise"]

_SAMPLED_PIXELS = 40_000
EVIDENCE = 4.0
"""Weight of a year in recipes that estimate the matrix; benchmarks/stabilise.py compares others."""
_FEWEST_STEPS = 50
"""Steps from an observed year to the next for each pair of classes that an estimate needs."""
_ROUNDS, _TOLERANCE = 100, 1e-4
"""EM for `stabilise` ends after so many rounds, or when no probability of the matrix moves by more."""


def stabilise(
    probability: xr.DataArray,
    *,
    transitions: pd.DataFrame | np.ndarray | Literal["estimate"] | None = None,
    method: Literal["changes", "posterior", "viterbi"] | None = None,
    persistence: float | Mapping[str, float] | None = None,
    evidence: float | None = None,
    changes_of: str | None = None,
    initial: Sequence[float] | None = None,
    prior: Sequence[float] | None = None,
    fill: bool = False,
    floor: float = 1e-6,
    output: Literal["probability", "labels"] = "probability",
    min_probability: float = 0.0,
    overwrite: bool = False,
    threads: int = 1,
) -> xr.DataArray:
    """Let the years of each pixel inform each other with a hidden Markov model.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``(time, land_cover, y, x)``, one time a year in rising order; NaN = not observed that year.
    transitions : pandas.DataFrame, numpy.ndarray, "estimate" or None
        Probability of going from a class (row) to a class (column) within a year. A DataFrame is matched by class
        name; an array follows the order of the classes. ``"estimate"`` finds the matrix by EM on this very array (see
        `estimate_transitions`), so a run in blocks should estimate once and give the matrix. None: the same, or where
        ``persistence`` is given, or there is too little to estimate from (fewer than 50 observed steps from year to year for
        each pair of classes), `persistence_matrix`, which depends on no data.
    method : {"changes", "posterior", "viterbi"}, optional
        ``"posterior"``: probability of each class given all years (forward-backward). ``"viterbi"``: 1 for the classes
        of the most likely path and 0 for the others. ``"changes"``: the posterior, but where labels of each year by
        itself show coca come or go, those of these changes stay that are worth it (see Notes). None: ``"changes"``
        where neither matrix nor ``evidence`` is given, else ``"posterior"``.
    persistence : float or mapping, optional
        Probability that a class stays from one year to the next, instead of an estimated matrix.
    evidence : float, optional
        Weight of what a year shows against what the years beside it say: likelihoods are raised to this power. 1, the
        default, takes them at their word, as for any hidden Markov chain; more keeps more of the change, true and false.
    changes_of : str, optional
        Class whose changes ``"changes"`` keeps. None: coca, or every class where there is none of this name.
    initial : sequence of float, optional
        Class shares before the first year is seen; equal where not given (estimated with ``"estimate"``).
    prior : sequence of float, optional
        Class shares that the classifier was trained with, where these differ from equal shares: probabilities are
        divided by them to become likelihoods.
    fill : bool
        Also give the years in which a pixel was not observed, from its other years. By default they stay NaN, so
        that unobserved hectares stay apart.
    floor : float
        Probabilities below this count as this, so that no single year can rule a class out.
    output : {"probability", "labels"}
        ``"labels"``: the map that `label` makes of the probabilities, with ``min_probability``. For ``"posterior"`` it is made in
        the same pass, and the probabilities are never written.
    min_probability : float
        As in `label`; for labels only.
    overwrite : bool
        Allow the answer to take the place of ``probability``, which is then of no more use. It saves half of the memory and
        the time to get it. Only probabilities of ``"posterior"`` in a float32 numpy array of the dims (time, land_cover, y, x) are
        overwritten.
    threads : int
        Threads over pieces of the array. Results do not depend on it.

    Returns
    -------
    xarray.DataArray
        float32 probabilities with the dims of the input, or a land-cover map as from `label`. A single year passes through unchanged. Gaps between the
        times are honoured: two years apart means two steps of the chain. Dask in gives Dask out; a matrix to estimate is then
        estimated when the result is computed.

    Raises
    ------
    InputRefused
        The matrix does not fit the classes or is not one of probabilities, times do not rise year by year, or a
        parameter is out of range.

    Notes
    -----
    A chain that takes probabilities at their word gives the most accurate map, but a rare change has a small prior
    probability and is lost: of the coca changes that labels of each year by itself find, an estimated matrix keeps 61 to
    86 % on simulated chains. ``"changes"`` therefore weighs each such change by its probability given all years of the pixel,
    and chooses the path with the highest expected worth: a true change counts its weight, a false one -1. The weight is the
    one at which 65 % of the false changes on a sample of the array are expected to go; classes but coca, and pixels in which
    coca neither comes nor goes, keep their posterior. Where the matrix is estimated, likelihoods are raised to a power that
    the agreement of the years bears out (1 where probabilities are right, about 2 for a random forest after `smooth`).
    Changes are counted between the years in which a pixel was observed, so one under cloud falls on the next clear year.

    The default takes its time: 0.4 to 0.5 million pixels a second on 1000 x 1000 pixels of 8 years and 5 classes, one thread of
    a busy machine, where ``persistence=0.9`` does 3. About 0.5 to 1 second of it goes into the matrix, the power and the weight,
    which come from at most 40,000 pixels, so small arrays have 0.1 million; the rest grows with the pixels that blink.

    On chains of 8 years under 40 to 70 % of cloud, with 17 or 29 % of the labels wrong, 64 % of the false changes of coca go,
    and 96 to 102 % as many true ones are found; of the very same ones, 96 to 98 % and 92 to 95 %. On eight simulated archives
    that a random forest classified (the share and the power were chosen on six of them), 50 to 69 % go (60 % or more on seven),
    87 to 148 % as many true ones are found, and 69 to 89 % of the very same. At a cut of 60 %, no threshold on the posterior
    keeps more than 94 % and 90 % of those on two of them, since a map that blinks often blinks on the right day.

    A path is not a probability: where the posterior says otherwise, the class on the path is raised to just above it.

    References
    ----------
    Hamada, M., Kiryu, H., Sato, K., Mituyama, T., & Asai, K. (2009). Prediction of RNA secondary structure using generalized
    centroid estimators. Bioinformatics 25(4), 465-473. (paths of the highest expected worth)

    Grünwald, P., & van Ommen, T. (2017). Inconsistency of Bayesian inference for misspecified linear models, and a
    proposal for repairing it. Bayesian Analysis 12(4), 1069-1103. (likelihoods to a power)

    Rabiner, L. R. (1989). A tutorial on hidden Markov models and selected applications in speech recognition.
    Proceedings of the IEEE 77(2), 257-286.

    Abercrombie, S. P., & Friedl, M. A. (2016). Improving the consistency of multitemporal land cover maps using a hidden
    Markov model. IEEE Transactions on Geoscience and Remote Sensing 54(2), 703-713.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> forest = np.array([0.9, 0.9, 0.4, 0.9, 0.9], dtype="float32")
    >>> values = np.stack([1 - forest, forest], axis=1)[:, :, None, None]
    >>> years = np.array([f"{year}-12-31" for year in range(2018, 2023)], dtype="datetime64[ns]")
    >>> probability = xr.DataArray(values, dims=("time", "land_cover", "y", "x"),
    ...                            coords={"time": years, "land_cover": ["coca", "forest"]})
    >>> bool((stabilise(probability).sel(land_cover="forest") > 0.5).all())
    True
    """
    check_kind(probability, "probability")
    check_dims(probability, "land_cover", "y", "x", optional=("time",))
    if method not in (None, "changes", "posterior", "viterbi"):
        raise InputRefused(f"method must be 'changes', 'posterior' or 'viterbi', got {method!r}")
    if output not in ("probability", "labels"):
        raise InputRefused(f"output must be 'probability' or 'labels', got {output!r}")
    if not 0.0 <= min_probability <= 1.0:
        raise InputRefused(f"min_probability must lie in 0..1, got {min_probability!r}")
    if not 0.0 < floor < 0.5:
        raise InputRefused(f"floor must be above 0 and below 0.5, got {floor!r}")
    names = [str(name) for name in probability["land_cover"].values]
    years = years_of(probability)
    if isinstance(transitions, str) and transitions != "estimate":
        raise InputRefused(f"transitions must be a matrix, 'estimate' or None, got {transitions!r}")
    unknown = isinstance(transitions, str) or (transitions is None and persistence is None)
    rule = method or ("changes" if unknown and evidence is None else "posterior")
    weight = 1.0 if evidence is None else float(evidence)
    check_evidence(weight)
    fits = rule == "changes" and evidence is None and unknown
    kept = changed_classes(names, changes_of) if rule == "changes" else None
    start = None if initial is None else shares_of(initial, names, "initial")
    inverse_prior = inverse_prior_of(prior, names)
    fixed = None
    if not unknown:
        plain = persistence_matrix(names, 0.9 if persistence is None else persistence)
        fixed = matrix_of(plain if transitions is None else transitions, names)
    if len(years) < 2:
        alone = probability.astype(np.float32)
        return label(alone, min_probability=min_probability) if output == "labels" else alone
    ordered = probability.transpose("time", "land_cover", "y", "x")
    matrix = persistence_matrix(names, 0.9).to_numpy() if fixed is None else fixed
    first = shares_of(None, names, "initial") if start is None else start
    plain_chain = YearChain(matrix, first, inverse_prior, years, floor, weight)

    def learn(sample: np.ndarray) -> YearChain:
        """What the array itself has to tell, by a sample of it."""
        chain = plain_chain
        if fixed is None:
            if transitions is None and _steps_seen(sample) < _FEWEST_STEPS * len(names) ** 2:
                return chain
            array = xr.DataArray(sample, dims=ordered.dims, coords={"time": years, "land_cover": names})
            power = fitting_evidence(array, prior=prior, floor=floor) if fits else weight
            frame = estimate_transitions(
                array, prior=prior, floor=floor, evidence=power, max_iterations=_ROUNDS, tolerance=_TOLERANCE
            )
            found = np.asarray(frame.attrs["initial"]) if start is None else start
            chain = chain._replace(matrix=frame.to_numpy(), initial=found, evidence=power)
        if kept is None:
            return chain
        flat = np.ascontiguousarray(sample).reshape(*sample.shape[:2], -1)
        return chain._replace(weights=weigh_changes(flat, chain, kept))

    def settle(block: np.ndarray, chain: YearChain) -> np.ndarray:
        values = np.ascontiguousarray(block, dtype=np.float32).reshape(*block.shape[:2], -1)
        if rule == "viterbi":
            out = viterbi(values, chain, fill, threads)
        else:
            mine = overwrite and chain.weights is None and values.flags.writeable and not is_lazy(ordered)
            out = values if mine else np.empty_like(values)
            posteriors(values, chain, fill, threads, out)
            follow_changes(values, out, chain, threads=threads)
        return out.reshape(block.shape)

    known = plain_chain if fixed is not None and kept is None else None
    if output == "labels" and rule == "posterior":
        legend, codes = legend_of(ordered, may_be_unclassified=min_probability > 0)

        def settle_labels(block: np.ndarray, chain: YearChain) -> np.ndarray:
            values = np.ascontiguousarray(block, dtype=np.float32).reshape(*block.shape[:2], -1)
            out = posterior_labels(values, chain, fill, threads, codes, min_probability)
            return out.reshape(block.shape[0], *block.shape[2:])

        return as_label_map(_over_blocks(ordered, known, learn, settle_labels, labels=True), ordered, legend)
    settled = ordered.copy(data=_over_blocks(ordered, known, learn, settle))
    if output == "labels":
        return label(settled, min_probability=min_probability)
    return settled.transpose(*probability.dims)


def _steps_seen(sample: np.ndarray) -> int:
    """Steps from an observed year to the next."""
    seen = ~np.isnan(sample).any(axis=1)
    return int((seen[1:] & seen[:-1]).sum())


def _over_blocks(
    ordered: xr.DataArray,
    known: YearChain | None,
    learn: Callable[[np.ndarray], YearChain],
    settle: Callable[[np.ndarray, YearChain], np.ndarray],
    *,
    labels: bool = False,
) -> Any:
    """Run the chain over an array, eager or lazy, with a chain that is known or learnt on a sample of the array."""
    sample = systematic_sample(ordered, _SAMPLED_PIXELS).data if known is None else None
    if not is_lazy(ordered):
        found = learn(np.asarray(sample, np.float32)) if known is None else known
        return settle(np.asarray(ordered.data), found)
    import dask

    data = ordered.data.rechunk({0: -1, 1: -1})
    later = dask.delayed(learn)(sample) if known is None else known
    if labels:
        return data.map_blocks(settle, later, drop_axis=1, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    return data.map_blocks(settle, later, dtype=np.float32, meta=np.empty((0, 0, 0, 0), np.float32))
