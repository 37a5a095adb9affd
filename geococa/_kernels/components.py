"""Connected components of class maps, from runs of equal codes, and the minimum mapping unit.

A map is cut into runs: stretches of equal code along a row. Runs of neighbouring rows are joined with a
union-find whose root is always the smaller index, so that a root precedes its members: one forward pass
flattens the forest, and the number of a component does not depend on how the map was cut into strips.
Sizes are whole numbers (cells, or areas in whole units), so that no sum depends on its order.

Runs are ``starts`` (int32, first column), ``codes`` (uint8) and ``row_runs`` (int64, shape rows + 1: runs
``row_runs[r] .. row_runs[r + 1]`` belong to row ``r``); a run ends where the next one of its row starts.
"""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = [
    "add_run_sizes",
    "count_runs",
    "fill_runs",
    "flatten",
    "join_pairs",
    "join_rows",
    "link_neighbours",
    "paint_runs",
    "resolve_chains",
    "vote_neighbours",
]


@kernel
def count_runs(codes: np.ndarray, row_runs: np.ndarray) -> None:
    """Count the runs of each row and write where the runs of a row begin.

    Parameters
    ----------
    codes : ndarray of uint8, shape (rows, columns)
    row_runs : ndarray of int64, shape (rows + 1,)
    """
    rows, columns = codes.shape
    row_runs[0] = 0
    for y in range(rows):
        count = 1 if columns > 0 else 0
        for x in range(1, columns):
            count += codes[y, x] != codes[y, x - 1]
        row_runs[y + 1] = row_runs[y] + count


@kernel
def fill_runs(codes: np.ndarray, row_runs: np.ndarray, starts: np.ndarray, run_codes: np.ndarray) -> None:
    """Write the first column and the code of every run.

    Parameters
    ----------
    codes : ndarray of uint8, shape (rows, columns)
    row_runs : ndarray of int64, shape (rows + 1,)
    starts : ndarray of int32, shape (runs,)
    run_codes : ndarray of uint8, shape (runs,)
    """
    rows, columns = codes.shape
    for y in range(rows):
        run = row_runs[y]
        for x in range(columns):
            if x == 0 or codes[y, x] != codes[y, x - 1]:
                starts[run] = x
                run_codes[run] = codes[y, x]
                run += 1


@inline
def _root(parent: np.ndarray, node: int) -> int:
    """Root of a node; every second link on the way is shortened."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@inline
def _join(parent: np.ndarray, a: int, b: int) -> None:
    """Put two nodes into one tree whose root is the smaller of their roots."""
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@inline
def _end(starts: np.ndarray, run: int, row_end: int, columns: int) -> int:
    """Column after the last one of a run."""
    return starts[run + 1] if run + 1 < row_end else columns


@kernel
def join_rows(
    starts: np.ndarray,
    codes: np.ndarray,
    row_runs: np.ndarray,
    first: int,
    last: int,
    columns: int,
    diagonal: bool,
    missing: int,
    parent: np.ndarray,
) -> None:
    """Join the runs of rows ``first .. last - 1`` with those of the row above each.

    Parameters
    ----------
    starts, codes, row_runs : ndarrays
        Runs, see the module's first lines.
    first, last : int
        Rows; ``first`` is at least 1.
    columns : int
        Columns of the map.
    diagonal : bool
        Whether cells that share only a corner are neighbours (8-connected).
    missing : int
        Code of cells that were not observed: they belong to no component (``-1`` for none).
    parent : ndarray of int64 or int32, shape (runs,)
        Union-find forest, changed in place; it starts as ``parent[i] = i``.
    """
    reach = 1 if diagonal else 0
    for y in range(first, last):
        above, above_end, below_end = row_runs[y - 1], row_runs[y], row_runs[y + 1]
        below = above_end
        while above < above_end and below < below_end:
            a_end = _end(starts, above, above_end, columns)
            b_end = _end(starts, below, below_end, columns)
            touch = starts[above] < b_end + reach and starts[below] < a_end + reach
            if touch and codes[above] == codes[below] and codes[below] != missing:
                _join(parent, above, below)
            if a_end < b_end:
                above += 1
            elif b_end < a_end:
                below += 1
            else:
                # both end here: each still meets the other's follower at the corner
                if diagonal and above + 1 < above_end and below + 1 < below_end:
                    if codes[above] == codes[below + 1] and codes[above] != missing:
                        _join(parent, above, below + 1)
                    if codes[below] == codes[above + 1] and codes[below] != missing:
                        _join(parent, below, above + 1)
                above += 1
                below += 1


@kernel
def flatten(parent: np.ndarray, component: np.ndarray) -> int:
    """Number the components in the order of their roots, and give every node its component's number.

    Parameters
    ----------
    parent : ndarray of int32, shape (nodes,)
        Union-find forest whose roots precede their members.
    component : ndarray of int32, shape (nodes,)
        0, 1, 2, ... in the order of first nodes.

    Returns
    -------
    int
        Number of components.
    """
    count = 0
    for node in range(parent.shape[0]):
        if parent[node] == node:
            component[node] = count
            count += 1
        else:
            # the parent precedes the node, so it already has its number
            component[node] = component[parent[node]]
    return count


@inline
def _size_before(nodes: np.ndarray, sums: np.ndarray, step: int, y: int, column: int) -> int:
    """Sum of the cell sizes of row ``y`` in the columns before ``column``."""
    if nodes.shape[1] == 1:
        return nodes[y, 0] * step * np.int64(column)
    node = min(column // step, nodes.shape[1] - 2)
    m = np.int64(column - node * step)
    ramp = m * (m - 1) // 2
    return sums[y, node] + nodes[y, node] * (m * step - ramp) + nodes[y, node + 1] * ramp


@kernel
def add_run_sizes(
    starts: np.ndarray,
    row_runs: np.ndarray,
    columns: int,
    nodes: np.ndarray,
    sums: np.ndarray,
    step: int,
    component: np.ndarray,
    sizes: np.ndarray,
) -> None:
    """Add the size of every run to that of its component.

    Cell sizes are linear between nodes, in whole numbers: the cell in column ``n * step + j`` has size
    ``nodes[n] * (step - j) + nodes[n + 1] * j``. So the size of a run is a difference of two closed forms, exactly.

    Parameters
    ----------
    starts, row_runs : ndarrays
        Runs, see the module's first lines.
    columns : int
        Columns of the map.
    nodes : ndarray of int64, shape (rows, nodes) or (rows, 1)
        Sizes at every ``step``-th column; with a single node every cell of the row has size ``nodes[0] * step``.
    sums : ndarray of int64, shape (rows, nodes)
        Sum of the sizes of the cells before each node.
    step : int
        Columns between nodes.
    component : ndarray of int32, shape (runs,)
    sizes : ndarray of int64, shape (components,)
        Added to in place.
    """
    for y in range(row_runs.shape[0] - 1):
        row_end = row_runs[y + 1]
        before = 0
        for run in range(row_runs[y], row_end):
            after = _size_before(nodes, sums, step, y, _end(starts, run, row_end, columns))
            sizes[component[run]] += after - before
            before = after


@inline
def _offer(neighbour: np.ndarray, sizes: np.ndarray, least: int, a: int, b: int) -> None:
    """Note two touching components as each other's largest neighbour so far; the first of equals stays."""
    if a == b:
        return
    if sizes[a] < least and (neighbour[a] < 0 or sizes[neighbour[a]] < sizes[b]):
        neighbour[a] = b
    if sizes[b] < least and (neighbour[b] < 0 or sizes[neighbour[b]] < sizes[a]):
        neighbour[b] = a


@kernel
def link_neighbours(
    starts: np.ndarray,
    codes: np.ndarray,
    row_runs: np.ndarray,
    first: int,
    last: int,
    columns: int,
    diagonal: bool,
    missing: int,
    component: np.ndarray,
    sizes: np.ndarray,
    least: int,
    neighbour: np.ndarray,
) -> None:
    """Find the largest neighbour of every component smaller than ``least``, by GDAL's rule for ties.

    GDAL visits cells row by row and compares each with the cell above, above left, above right and left, in
    this order; of equally large neighbours the one met first stays. Runs meet in the same order here.

    Parameters
    ----------
    starts, codes, row_runs : ndarrays
        Runs, see the module's first lines.
    first, last : int
        Rows to compare with the row above and within themselves.
    columns, diagonal, missing
        As in `join_rows`.
    component : ndarray of int32, shape (runs,)
    sizes : ndarray of int64, shape (components,)
    least : int
        Size from which on a component needs no neighbour.
    neighbour : ndarray of int32, shape (components,)
        -1 where none is known yet; changed in place. Call for the rows from the top down.
    """
    for y in range(first, last):
        row_start, row_end = row_runs[y], row_runs[y + 1]
        above_start = row_runs[y - 1] if y > 0 else row_start
        above = above_start
        for run in range(row_start, row_end):
            here = component[run]
            start, end = starts[run], _end(starts, run, row_end, columns)
            usable = codes[run] != missing
            # the run above the first cell
            while above < row_start and _end(starts, above, row_start, columns) <= start:
                above += 1
            other = above
            if usable and other < row_start:
                if codes[other] != missing:
                    _offer(neighbour, sizes, least, here, component[other])
                if diagonal and other > above_start and starts[other] == start and codes[other - 1] != missing:
                    _offer(neighbour, sizes, least, here, component[other - 1])
                other += 1
                # above right of the first cell comes before its left
                if diagonal and other < row_start and starts[other] == start + 1:
                    if codes[other] != missing:
                        _offer(neighbour, sizes, least, here, component[other])
                    other += 1
            if usable and run > row_start and codes[run - 1] != missing:
                _offer(neighbour, sizes, least, here, component[run - 1])
            reach = end + 1 if diagonal else end
            while usable and other < row_start and starts[other] < reach:
                if codes[other] != missing:
                    _offer(neighbour, sizes, least, here, component[other])
                other += 1


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
def _vote(
    a: int, b: int, target_size: np.ndarray, target_code: np.ndarray, best_size: np.ndarray, best_code: np.ndarray
) -> None:
    """Offer the target of ``b`` to ``a``, which has none: the larger wins, of equals the lower code."""
    if target_size[a] >= 0 or target_size[b] < 0:
        return
    size, code = target_size[b], target_code[b]
    if size > best_size[a] or (size == best_size[a] and code < best_code[a]):
        best_size[a] = size
        best_code[a] = code


@kernel
def vote_neighbours(
    starts: np.ndarray,
    codes: np.ndarray,
    row_runs: np.ndarray,
    first: int,
    last: int,
    columns: int,
    diagonal: bool,
    missing: int,
    component: np.ndarray,
    target_size: np.ndarray,
    target_code: np.ndarray,
    best_size: np.ndarray,
    best_code: np.ndarray,
) -> None:
    """Find, for every component without a target, the largest target among its neighbours.

    Parameters
    ----------
    starts, codes, row_runs, first, last, columns, diagonal, missing, component
        As in `link_neighbours`.
    target_size : ndarray of int64, shape (components,)
        Size of the large component that a component belongs to by now, -1 where it has none.
    target_code : ndarray of uint8, shape (components,)
        Its code.
    best_size : ndarray of int64, shape (components,)
        Largest target met so far, -1 for none; changed in place.
    best_code : ndarray of uint8, shape (components,)
        Its code, changed in place. The order of the calls does not matter.
    """
    reach = 1 if diagonal else 0
    for y in range(first, last):
        row_start, row_end = row_runs[y], row_runs[y + 1]
        above_start = row_runs[y - 1] if y > 0 else row_start
        above = above_start
        for run in range(row_start, row_end):
            if codes[run] == missing:
                continue
            here = component[run]
            start, end = starts[run], _end(starts, run, row_end, columns)
            if run > row_start and codes[run - 1] != missing:
                other = component[run - 1]
                _vote(here, other, target_size, target_code, best_size, best_code)
                _vote(other, here, target_size, target_code, best_size, best_code)
            while above < row_start and _end(starts, above, row_start, columns) + reach <= start:
                above += 1
            upper = above
            while upper < row_start and starts[upper] < end + reach:
                if codes[upper] != missing and component[upper] != here:
                    other = component[upper]
                    _vote(here, other, target_size, target_code, best_size, best_code)
                    _vote(other, here, target_size, target_code, best_size, best_code)
                upper += 1


@kernel
def paint_runs(starts: np.ndarray, row_runs: np.ndarray, columns: int, run_values: np.ndarray, out: np.ndarray) -> None:
    """Write the value of every run into its cells.

    Parameters
    ----------
    starts, row_runs : ndarrays
        Runs, see the module's first lines.
    columns : int
        Columns of the map.
    run_values : ndarray, shape (runs,)
    out : ndarray of the same dtype, shape (rows, columns)
    """
    for y in range(row_runs.shape[0] - 1):
        row_end = row_runs[y + 1]
        for run in range(row_runs[y], row_end):
            for x in range(starts[run], _end(starts, run, row_end, columns)):
                out[y, x] = run_values[run]


@kernel
def join_pairs(a: np.ndarray, b: np.ndarray, parent: np.ndarray) -> None:
    """Join each node of ``a`` with that of ``b`` (int32 or int64, same length) in a union-find forest."""
    for pair in range(a.shape[0]):
        _join(parent, a[pair], b[pair])
