"""Connected components of class maps, from runs of equal codes.

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

_AT = np.uint64
"""Type of an index that cannot be negative, which spares the test for one that counts from the end."""

__all__ = [
    "add_run_sizes",
    "area_nodes",
    "component_codes",
    "count_runs",
    "fill_runs",
    "flatten",
    "gather",
    "join_pairs",
    "join_rows",
    "paint_cells",
    "renumber",
    "repaint_runs",
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
    if columns == 0:
        return
    for y in range(rows):
        row = codes[y]
        first, last = row_runs[y], row_runs[y + 1]
        row_starts, row_codes = starts[first:last], run_codes[first:last]
        row_starts[0] = 0
        run, count, x = _AT(1), _AT(last - first), 1
        # every column is written, and kept only where a run starts: cheaper than a branch that is hard to foresee
        while run < count:
            row_starts[run] = x
            run += _AT(row[_AT(x)] != row[_AT(x - 1)])
            x += 1
        for r in range(last - first):
            row_codes[_AT(r)] = row[_AT(row_starts[_AT(r)])]


@inline
def _root(parent: np.ndarray, node: int) -> int:
    """Root of a node; every second link on the way is shortened."""
    up = parent[_AT(node)]
    while up != node:
        over = parent[_AT(up)]
        parent[_AT(node)] = over
        node = over
        up = parent[_AT(node)]
    return node


@inline
def _join(parent: np.ndarray, a: int, b: int) -> None:
    """Put two nodes into one tree whose root is the smaller of their roots."""
    a, b = _root(parent, a), _root(parent, b)
    if a < b:
        parent[_AT(b)] = a
    elif b < a:
        parent[_AT(a)] = b


@inline
def _end(starts: np.ndarray, run: int, row_end: int, columns: int) -> int:
    """Column after the last one of a run."""
    return starts[_AT(run + 1)] if run + 1 < row_end else columns


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
    for y in range(first, last):
        above, above_end, below_end = row_runs[y - 1], row_runs[y], row_runs[y + 1]
        below = above_end
        while above < above_end and below < below_end:
            a_end = _end(starts, above, above_end, columns)
            b_end = _end(starts, below, below_end, columns)
            # runs cover their rows, so the two overlap wherever this walk stands
            code = codes[_AT(above)]
            if code == codes[_AT(below)] and code != missing:
                _join(parent, above, below)
            if a_end < b_end:
                above += 1
            elif b_end < a_end:
                below += 1
            else:
                # both end here: each still meets the other's follower at the corner
                if diagonal and above + 1 < above_end and below + 1 < below_end:
                    if code == codes[_AT(below + 1)] and code != missing:
                        _join(parent, above, below + 1)
                    if codes[_AT(below)] == codes[_AT(above + 1)] and codes[_AT(below)] != missing:
                        _join(parent, above + 1, below)
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


@kernel
def area_nodes(pieces: np.ndarray, piece: int, step: int, scale: float, nodes: np.ndarray, sums: np.ndarray) -> None:
    """Sizes of cells in whole units at every ``step``-th column, from parabolas, and their sums.

    Parameters
    ----------
    pieces : ndarray of float64, shape (rows, pieces, 3)
        The cell in column ``p * piece + i`` has area ``a + b i + c i²``.
    piece : int
        Columns of a piece.
    step : int
        Columns between nodes.
    scale : float
        Units of a node for a unit of area.
    nodes : ndarray of int64, shape (rows, nodes)
    sums : ndarray of int64, shape (rows, nodes)
        Sum of the sizes of the cells before each node, for cells as in `add_run_sizes`.
    """
    ramp = step * (step - 1) // 2
    last = pieces.shape[1] - 1
    for y in range(nodes.shape[0]):
        p, place = 0, 0
        total = 0
        before = 0
        for n in range(nodes.shape[1]):
            while place >= piece and p < last:
                place -= piece
                p += 1
            a, b, c = pieces[y, p, 0], pieces[y, p, 1], pieces[y, p, 2]
            node = int(np.rint((a + place * (b + place * c)) * scale))
            if n > 0:
                total += before * (step * step - ramp) + node * ramp
            nodes[y, n] = node
            sums[y, n] = total
            before = node
            place += step


@inline
def _size_before(nodes: np.ndarray, sums: np.ndarray, step: int, per_step: float, y: int, column: int) -> int:
    """Sum of the cell sizes of row ``y`` in the columns before ``column``."""
    if nodes.shape[1] == 1:
        return nodes[y, 0] * step * np.int64(column)
    # the closed forms of two neighbouring nodes agree where they meet, so one too few by rounding does no harm
    node = min(np.int64(column * per_step), nodes.shape[1] - 2)
    m = np.int64(column - node * step)
    ramp = m * (m - 1) // 2
    return sums[y, _AT(node)] + nodes[y, _AT(node)] * (m * step - ramp) + nodes[y, _AT(node + 1)] * ramp


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
    per_step = 1.0 / step
    for y in range(row_runs.shape[0] - 1):
        row_end = row_runs[y + 1]
        before = 0
        for run in range(row_runs[y], row_end):
            after = _size_before(nodes, sums, step, per_step, y, _end(starts, run, row_end, columns))
            sizes[_AT(component[_AT(run)])] += after - before
            before = after


@kernel
def component_codes(component: np.ndarray, run_codes: np.ndarray, codes: np.ndarray) -> None:
    """Write the code of every component.

    Parameters
    ----------
    component : ndarray of int32, shape (runs,)
    run_codes : ndarray of uint8, shape (runs,)
    codes : ndarray of uint8, shape (components,)
    """
    for run in range(component.shape[0]):
        codes[_AT(component[_AT(run)])] = run_codes[_AT(run)]


@kernel
def renumber(component: np.ndarray, number: np.ndarray) -> None:
    """Replace every component by its new number, in place.

    Parameters
    ----------
    component : ndarray of int32, shape (runs,)
    number : ndarray of int32, shape (components,)
    """
    for run in range(component.shape[0]):
        component[_AT(run)] = number[_AT(component[_AT(run)])]


@kernel
def gather(
    number: np.ndarray, part_sizes: np.ndarray, part_codes: np.ndarray, sizes: np.ndarray, codes: np.ndarray
) -> None:
    """Add the sizes of the components of a part of a map to those of the whole map, and note their codes.

    Parameters
    ----------
    number : ndarray of int32, shape (components of the part,)
        Number of each in the whole map.
    part_sizes : ndarray of int64, part_codes : ndarray of uint8
    sizes : ndarray of int64, codes : ndarray of uint8
        Of the components of the whole map, changed in place.
    """
    for part in range(number.shape[0]):
        whole = _AT(number[part])
        sizes[whole] += part_sizes[part]
        codes[whole] = part_codes[part]


@kernel
def paint_cells(cells: np.ndarray, row_runs: np.ndarray, run_values: np.ndarray, out: np.ndarray) -> None:
    """Write the value of every run into its cells.

    Parameters
    ----------
    cells : ndarray of uint8, shape (rows, columns)
        The codes that the runs were made from.
    row_runs : ndarray of int64, shape (rows + 1,)
    run_values : ndarray, shape (runs,)
    out : ndarray of the same dtype, shape (rows, columns)
    """
    rows, columns = cells.shape
    if columns == 0:
        return
    for y in range(rows):
        row, target = cells[y], out[y]
        run = _AT(row_runs[y])
        target[0] = run_values[run]
        # one addition a cell instead of a branch a run
        for x in range(1, columns):
            run += _AT(row[_AT(x)] != row[_AT(x - 1)])
            target[_AT(x)] = run_values[run]


@kernel
def repaint_runs(
    starts: np.ndarray,
    codes: np.ndarray,
    row_runs: np.ndarray,
    columns: int,
    component: np.ndarray,
    values: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the values of the components that differ from their codes; other cells are left alone.

    Parameters
    ----------
    starts, codes, row_runs : ndarrays
        Runs, see the module's first lines.
    columns : int
        Columns of the map.
    component : ndarray of int32, shape (runs,)
    values : ndarray of uint8, shape (components,)
    out : ndarray of uint8, shape (rows, columns)
        A copy of the map, changed in place.
    """
    for y in range(row_runs.shape[0] - 1):
        row_end = row_runs[y + 1]
        for run in range(row_runs[y], row_end):
            value = values[_AT(component[_AT(run)])]
            if value != codes[_AT(run)]:
                for x in range(starts[_AT(run)], _end(starts, run, row_end, columns)):
                    out[y, _AT(x)] = value


@kernel
def join_pairs(a: np.ndarray, b: np.ndarray, parent: np.ndarray) -> None:
    """Join each node of ``a`` with that of ``b`` (int32 or int64, same length) in a union-find forest."""
    for pair in range(a.shape[0]):
        _join(parent, a[pair], b[pair])
