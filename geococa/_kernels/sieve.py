"""Which neighbour a patch below the minimum mapping unit goes to.

Runs and components are those of `geococa._kernels.components`. Strips of a map may be worked on in any order and at
once: a strip writes to the components that begin in it, and keeps what it finds for those that reach into it from
above in a list of its own, which `merge_neighbours` adds afterwards.

References
----------
GDAL/OGR contributors, gdal_sieve: documentation of the program and its published test cases, for the rule
``"gdal"``.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = ["link_neighbours", "merge_neighbours", "resolve_chains", "spread_targets", "waiting_pairs"]

_AT = np.uint64
"""Type of an index that cannot be negative, which spares the test for one that counts from the end."""
_LARGE, _SMALL, _MISSING = np.uint8(0), np.uint8(1), np.uint8(2)
"""What a run belongs to. A pair of runs matters where the bits of both are exactly those of ``_SMALL``."""


@inline
def _end(starts: np.ndarray, run: int, row_end: int, columns: int) -> int:
    """Column after the last one of a run."""
    return starts[_AT(run + 1)] if run + 1 < row_end else columns


@inline
def _larger(b: int, old: int, sizes: np.ndarray, codes: np.ndarray, gdal: bool) -> int:
    """The larger of a neighbour and the one so far, if any; of equals GDAL keeps the first, else the lower code wins."""
    known = max(old, 0)
    size, before = sizes[_AT(b)], sizes[_AT(known)]
    lower = (not gdal) & (before == size) & (codes[_AT(b)] < codes[_AT(known)])
    return b if (old < 0) | (before < size) | lower else old


@inline
def _place(component: int, own: int, foreign: np.ndarray) -> int:
    """Place of a component in the list of those of a strip: first those that begin in it, then those from above."""
    if component >= own:
        return component - own
    low, high = 0, foreign.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if foreign[_AT(middle)] < component:
            low = middle + 1
        else:
            high = middle
    return low - foreign.shape[0]


@inline
def _note(run: int, other: int, touch: bool, kind: np.ndarray, met: np.ndarray, count: int) -> int:
    """Write two runs to a list, and keep them if they touch, one is small and none is missing; the new length."""
    met[_AT(count), 0] = run
    met[_AT(count), 1] = other
    # always written, so that there is no branch to foresee
    return count + (touch & ((kind[_AT(run)] | kind[_AT(other)]) == _SMALL))


@inline
def _meetings(
    y: int,
    starts: np.ndarray,
    row_runs: np.ndarray,
    columns: int,
    diagonal: bool,
    kind: np.ndarray,
    met: np.ndarray,
) -> int:
    """List the runs of a row and those that they touch above and on the left, in GDAL's order; returns their number.

    A pair may be listed twice, which changes nothing.
    """
    row_start, row_end = row_runs[y], row_runs[y + 1]
    count = 0
    if y == 0:
        for run in range(row_start + 1, row_end):
            count = _note(run, run - 1, True, kind, met, count)
        return count
    above_start = row_runs[y - 1]
    above = above_start
    above_end = _end(starts, above, row_start, columns)
    for run in range(row_start, row_end):
        start, end = starts[_AT(run)], _end(starts, run, row_end, columns)
        # what the first cell meets: above, above left, above right, left
        count = _note(run, above, True, kind, met, count)
        corner = diagonal & (above > above_start) & (starts[_AT(above)] == start)
        count = _note(run, above - corner, corner, kind, met, count)
        corner = diagonal & (above + 1 < row_start) & (above_end == start + 1)
        count = _note(run, above + corner, corner, kind, met, count)
        inner = run > row_start
        count = _note(run, run - inner, inner, kind, met, count)
        while above_end < end:
            above += 1
            above_end = _end(starts, above, row_start, columns)
            count = _note(run, above, True, kind, met, count)
        if above_end == end and above + 1 < row_start:
            above += 1
            above_end = _end(starts, above, row_start, columns)
            count = _note(run, above, diagonal, kind, met, count)
    return count


@kernel
def link_neighbours(
    starts: np.ndarray,
    run_codes: np.ndarray,
    row_runs: np.ndarray,
    first: int,
    last: int,
    columns: int,
    diagonal: bool,
    missing: int,
    component: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    least: int,
    gdal: bool,
    own: int,
    foreign: np.ndarray,
    kind: np.ndarray,
    met: np.ndarray,
    best: np.ndarray,
    pairs: np.ndarray,
) -> int:
    """Find the largest neighbour of every component smaller than ``least`` in some rows.

    GDAL visits cells row by row and compares each with the cell above, above left, above right and left, in
    this order; of equally large neighbours the one met first stays. Runs meet in the same order here.

    Parameters
    ----------
    starts, run_codes, row_runs : ndarrays
        Runs, see `geococa._kernels.components`.
    first, last : int
        Rows to compare with the row above and within themselves. Call for the rows of a strip from the top down.
    columns, diagonal, missing
        As in `geococa._kernels.components.join_rows`.
    component : ndarray of int32, shape (runs,)
    sizes : ndarray of int64, shape (components,)
    codes : ndarray of uint8, shape (components,)
    least : int
        Size from which on a component needs no neighbour.
    gdal : bool
        True: any neighbour counts. False: those of at least ``least`` count, and pairs of small ones are noted.
    own : int
        Number of the first component that begins in this strip.
    foreign : ndarray of int32
        Sorted numbers of the small components of the strip that begin above it.
    kind : ndarray of uint8, shape (runs,)
        Working memory.
    met : ndarray of int32, shape (at least 6 times the most runs of a row + 1, 2)
        Working memory.
    best : ndarray of int32, shape (components,)
        The neighbour so far, -1 where none is known; changed in place for components from ``own`` on.
    aside : ndarray of int32, shape as foreign
        The same for the foreign ones.
    pairs : ndarray of int32, shape (at least 6 * runs, 2)
        Touching small components are written here, unless ``gdal``.

    Returns
    -------
    int
        Number of pairs.
    """
    count = 0
    for run in range(row_runs[max(first - 1, 0)], row_runs[last]):
        if run_codes[_AT(run)] == missing:
            kind[_AT(run)] = _MISSING
        else:
            kind[_AT(run)] = _SMALL if sizes[_AT(component[_AT(run)])] < least else _LARGE
    for y in range(first, last):
        for meeting in range(_meetings(y, starts, row_runs, columns, diagonal, kind, met)):
            run, other = met[_AT(meeting), 0], met[_AT(meeting), 1]
            a, b = component[_AT(run)], component[_AT(other)]
            if kind[_AT(run)] == kind[_AT(other)]:
                if a == b:
                    continue
                if gdal:
                    place = _place(b, own, foreign)
                    best[place] = _larger(a, best[place], sizes, codes, gdal)
                else:
                    # which of two small ones finds a large neighbour first is known only later
                    pairs[_AT(count), 0] = a
                    pairs[_AT(count), 1] = b
                    count += 1
                    continue
            elif kind[_AT(other)] == _SMALL:
                a, b = b, a
            place = _place(a, own, foreign)
            best[place] = _larger(b, best[place], sizes, codes, gdal)
    return count


@kernel
def waiting_pairs(pairs: np.ndarray, own: int, foreign: np.ndarray, best: np.ndarray) -> int:
    """Move the pairs that may still matter to the front: those in which one has no large neighbour in the strip.

    Parameters
    ----------
    pairs : ndarray of int32, shape (pairs, 2)
        Changed in place.
    own, foreign, best
        As in `link_neighbours`, after all rows of the strip.

    Returns
    -------
    int
        Number of pairs that may matter.
    """
    kept = 0
    for pair in range(pairs.shape[0]):
        a, b = pairs[_AT(pair), 0], pairs[_AT(pair), 1]
        if best[_place(a, own, foreign)] < 0 or best[_place(b, own, foreign)] < 0:
            pairs[_AT(kept), 0] = a
            pairs[_AT(kept), 1] = b
            kept += 1
    return kept


@kernel
def merge_neighbours(
    foreign: np.ndarray,
    aside: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    gdal: bool,
    neighbour: np.ndarray,
) -> None:
    """Add what one strip found for the components that begin above it. Call for the strips from the top down.

    Parameters
    ----------
    foreign, aside, sizes, codes, gdal
        As in `link_neighbours`.
    neighbour : ndarray of int32, shape (components,)
        What all strips wrote to ``best``, changed in place.
    """
    for place in range(foreign.shape[0]):
        a, b = foreign[place], aside[place]
        if b >= 0:
            neighbour[_AT(a)] = _larger(b, neighbour[_AT(a)], sizes, codes, gdal)


@kernel
def resolve_chains(sizes: np.ndarray, least: int, neighbour: np.ndarray, codes: np.ndarray, out: np.ndarray) -> None:
    """Follow largest neighbours until one is large enough, and take its code (GDAL's rule).

    Parameters
    ----------
    sizes : ndarray of int64, shape (components,)
    least : int
        Components of at least this size keep their code.
    neighbour : ndarray of int32, shape (components,)
        Largest neighbour, -1 for none.
    codes : ndarray of uint8, shape (components,)
    out : ndarray of uint8, shape (components,)
        New codes; a chain that ends without a large component leaves the code as it is.
    """
    for component in range(sizes.shape[0]):
        out[component] = codes[component]
        if sizes[component] >= least:
            continue
        node = component
        # sizes never shrink along a chain, so a step to an equal one can only repeat; a second runner finds the loop
        slow = component
        move = False
        while True:
            node = neighbour[node]
            if node < 0 or sizes[node] >= least:
                break
            if move:
                slow = neighbour[slow]
            move = not move
            if node == slow:
                node = -1
                break
        if node >= 0:
            out[component] = codes[node]


@inline
def _bid(
    a: int, goal: int, sizes: np.ndarray, codes: np.ndarray, offer: np.ndarray, found: np.ndarray, count: int
) -> int:
    """Offer the large component ``goal`` to ``a``; returns the number of components that have an offer."""
    if offer[_AT(a)] < 0:
        found[_AT(count)] = a
        count += 1
    offer[_AT(a)] = _larger(goal, offer[_AT(a)], sizes, codes, False)
    return count


@kernel
def spread_targets(
    pairs: np.ndarray,
    sizes: np.ndarray,
    codes: np.ndarray,
    target: np.ndarray,
    offer: np.ndarray,
    found: np.ndarray,
) -> None:
    """Let small components without a large neighbour follow their neighbours, from the outside in.

    In each round a component without a target takes the largest of those that its neighbours had before the round.

    Parameters
    ----------
    pairs : ndarray of int32, shape (pairs, 2)
        Touching small components, in any order; overwritten.
    sizes : ndarray of int64, codes : ndarray of uint8, shape (components,)
    target : ndarray of int32, shape (components,)
        The large component that each belongs to, -1 for none yet; changed in place.
    offer : ndarray of int32, shape (components,)
        -1 everywhere; working memory.
    found : ndarray of int32, shape (at least min(components, pairs),)
        Working memory.
    """
    waiting = pairs.shape[0]
    while True:
        count, kept = 0, 0
        for pair in range(waiting):
            a, b = pairs[_AT(pair), 0], pairs[_AT(pair), 1]
            goal_a, goal_b = target[_AT(a)], target[_AT(b)]
            if goal_a < 0 and goal_b < 0:
                pairs[_AT(kept), 0] = a
                pairs[_AT(kept), 1] = b
                kept += 1
            elif goal_a < 0:
                count = _bid(a, goal_b, sizes, codes, offer, found, count)
            elif goal_b < 0:
                count = _bid(b, goal_a, sizes, codes, offer, found, count)
        if count == 0:
            return
        for place in range(count):
            target[_AT(found[_AT(place)])] = offer[_AT(found[_AT(place)])]
        waiting = kept
