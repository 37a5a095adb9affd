"""Training and test samples that share no place: spatial blocks, splits, folds and the leak check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyproj

from geococa._checks import check_positives, check_seed, check_type, check_whole
from geococa._checks import positive as check_positive_number
from geococa.errors import CRSMismatch, InputRefused, SampleLeak

__all__ = ["check_no_leak", "spatial_blocks", "spatial_folds", "split_samples"]

Fold = tuple[np.ndarray, np.ndarray]
_METRES_PER_DEGREE = 111_320.0


def spatial_blocks(table: pd.DataFrame, block_m: float, *, crs: Any | Mapping[str, Any] | None = None) -> np.ndarray:
    """Return the number of the square on the ground, out of a fixed lattice, in which each row lies.

    The lattice is laid out in latitude and longitude, so that the same place is in the same block whatever the tile
    or UTM zone that it was sampled from.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns ``x`` and ``y``; ``tile`` where the rows come from several tiles.
    block_m : float
        Side of a block in metres.
    crs : CRS, or mapping of tile to CRS, optional
        Of ``x`` and ``y``; ``table.attrs["crs"]`` where not given.

    Returns
    -------
    numpy.ndarray
        int64 block number of each row; equal numbers mean the same block, in any table.
    """
    check_positive_number(block_m, "block_m")
    longitude, latitude = _lon_lat(table, crs)
    north = np.floor(latitude * _METRES_PER_DEGREE / block_m)
    middle = np.clip((north + 0.5) * block_m / _METRES_PER_DEGREE, -89.9, 89.9)
    east = np.floor(longitude * _METRES_PER_DEGREE * np.cos(np.radians(middle)) / block_m)
    # one number out of two: an Earth of 1 m blocks has fewer than 2**26 of them around
    return (north.astype(np.int64) << 28) + east.astype(np.int64)


def _lon_lat(table: pd.DataFrame, crs: Any | Mapping[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    chosen = crs if crs is not None else table.attrs.get("crs")
    if chosen is None:
        raise CRSMismatch(
            "the table does not say in which coordinate reference system its x and y are (attrs['crs'] is "
            "missing); give crs=, for several tiles as {tile: crs}"
        )
    x, y = _coordinates(table)
    if not isinstance(chosen, Mapping):
        return _to_degrees(x, y, chosen)
    longitude, latitude = np.full(len(x), np.nan), np.full(len(x), np.nan)
    tiles = table["tile"].astype(str).to_numpy()
    for tile in np.unique(tiles):
        if tile not in chosen:
            raise CRSMismatch(
                f"no coordinate reference system for tile {tile!r}, only for {', '.join(map(str, chosen))}"
            )
        here = tiles == tile
        longitude[here], latitude[here] = _to_degrees(x[here], y[here], chosen[tile])
    return longitude, latitude


def _coordinates(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    check_type(table, pd.DataFrame, "table", "make one with geococa.training_table")
    missing = [name for name in ("x", "y") if name not in table.columns]
    if missing:
        raise InputRefused(
            f"the table has no column {' and no column '.join(missing)}, so nobody can tell where its rows are; make it with "
            "geococa.training_table"
        )
    x, y = (pd.to_numeric(table[name], errors="coerce").to_numpy(float) for name in ("x", "y"))
    lost = int((~(np.isfinite(x) & np.isfinite(y))).sum())
    if lost:
        raise InputRefused(f"{lost} of {len(table)} rows have no place: x or y is missing or no number; drop them")
    return x, y


def _to_degrees(x: np.ndarray, y: np.ndarray, crs: Any) -> tuple[np.ndarray, np.ndarray]:
    try:
        transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    except pyproj.exceptions.ProjError as error:
        raise CRSMismatch(f"crs={str(crs)[:60]!r} is no coordinate reference system ({error})") from None
    longitude, latitude = transformer.transform(x, y)
    return np.asarray(longitude), np.asarray(latitude)


def split_samples(
    table: pd.DataFrame,
    test_share: float = 0.3,
    *,
    block_m: float = 1000.0,
    buffer_m: float = 0.0,
    seed: int = 0,
    positive: str | None = "coca",
    crs: Any | Mapping[str, Any] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a training table into a training and a test part that share no place.

    Whole spatial blocks go to one side, together with every block that a common sample polygon touches.

    Parameters
    ----------
    table : pandas.DataFrame
        From `training_table`, or with columns ``class, x, y`` and perhaps ``sample``, ``tile``.
    test_share : float
        Share of the rows of each class that the test part aims at; blocks are not cut, so it is met roughly.
    block_m : float
        Side of a spatial block in metres.
    buffer_m : float
        Training rows nearer than this to a test row are left out.
    seed : int
        Of the draw.
    positive : str, optional
        Class that both parts must hold; None for no such demand.
    crs : CRS, or mapping of tile to CRS, optional
        Of ``x`` and ``y``; ``table.attrs["crs"]`` where not given.

    Returns
    -------
    train, test : pandas.DataFrame
        Rows of ``table`` with their index.

    Raises
    ------
    NoPositives
        One part holds no sample of ``positive``.
    InputRefused
        ``test_share`` is not between 0 and 1.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"class": ["coca", "forest"] * 50, "x": rng.uniform(0, 9000, 100), "y": rng.uniform(0, 9000, 100)})
    >>> table.attrs["crs"] = "EPSG:32618"
    >>> training, test = split_samples(table, 0.3, block_m=1000, seed=1)
    >>> len(training) + len(test), len(test) >= 20
    (100, True)
    """
    seed = check_seed(seed)
    if not isinstance(test_share, int | float) or not 0 < test_share < 1:
        raise InputRefused(f"test_share must lie between 0 and 1, got {test_share!r}")
    groups = _groups(table, block_m, crs)
    side = _deal(groups, table["class"].to_numpy(), np.array([1 - test_share, test_share]), seed)
    test = np.flatnonzero(side == 1)
    train = _outside_buffer(table, np.flatnonzero(side == 0), test, buffer_m, crs)
    _check_sides(table, train, test, positive, "split")
    return table.iloc[train], table.iloc[test]


def spatial_folds(
    table: pd.DataFrame,
    folds: int = 5,
    *,
    block_m: float = 1000.0,
    buffer_m: float = 0.0,
    seed: int = 0,
    positive: str | None = "coca",
    crs: Any | Mapping[str, Any] | None = None,
) -> list[Fold]:
    """Cut a training table into spatial folds for cross-validation.

    Each spatial block, with every block that a common sample polygon touches, is tested in exactly one fold;
    classes are spread over the folds as evenly as whole blocks allow.

    Parameters
    ----------
    table : pandas.DataFrame
        From `training_table`, or with columns ``class, x, y`` and perhaps ``sample``, ``tile``.
    folds : int
        Number of folds, at least 2.
    block_m, buffer_m, seed, positive, crs
        As for `split_samples`.

    Returns
    -------
    list of (train, test)
        int64 row positions, one pair a fold; scikit-learn takes it as ``cv=``.

    Raises
    ------
    NoPositives
        A fold's training or test part holds no sample of ``positive``.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"class": ["coca", "forest"] * 50, "x": rng.uniform(0, 9000, 100), "y": rng.uniform(0, 9000, 100)})
    >>> table.attrs["crs"] = "EPSG:32618"
    >>> folds = spatial_folds(table, 3, block_m=1000, seed=1)
    >>> len(folds)
    3
    """
    folds, seed = check_whole(folds, "folds", 2), check_seed(seed)
    groups = _groups(table, block_m, crs)
    side = _deal(groups, table["class"].to_numpy(), np.full(folds, 1 / folds), seed)
    pairs = []
    for fold in range(folds):
        test = np.flatnonzero(side == fold)
        train = _outside_buffer(table, np.flatnonzero(side != fold), test, buffer_m, crs)
        _check_sides(table, train, test, positive, f"fold {fold + 1} of {folds}")
        pairs.append((train, test))
    return pairs


def check_no_leak(
    train: pd.DataFrame,
    test: pd.DataFrame,
    block_m: float | None = None,
    *,
    buffer_m: float = 0.0,
    crs: Any = None,
) -> None:
    """Refuse a training and a test table that share a pixel, a sample, a spatial block or a neighbourhood.

    Parameters
    ----------
    train, test : pandas.DataFrame
        Columns ``x, y`` and perhaps ``tile``, ``sample``, ``block``.
    block_m : float, optional
        Side of the spatial blocks in metres; the ``block`` column is compared where not given.
    buffer_m : float
        Distance in metres that every training row must keep from every test row; 0 for no such demand.
    crs : CRS, or mapping of tile to CRS, optional
        Of ``x`` and ``y``; ``train.attrs["crs"]`` where not given.

    Raises
    ------
    SampleLeak
        They share a place; the message counts how many rows of the test part are concerned.
    """
    tiled = "tile" in train.columns and "tile" in test.columns
    pixel = ["tile", "x", "y"] if tiled else ["x", "y"]
    _refuse_common(train[pixel], test[pixel], "pixel")
    if "sample" in train.columns and "sample" in test.columns:
        _refuse_common(train[["sample"]], test[["sample"]], "sample")
    if block_m is not None:
        known = crs if crs is not None else train.attrs.get("crs")
        sides = [pd.DataFrame({"block": spatial_blocks(part, block_m, crs=known)}) for part in (train, test)]
        _refuse_common(sides[0], sides[1], f"block of {block_m:g} m")
    elif "block" in train.columns and "block" in test.columns:
        _refuse_common(train[["block"]], test[["block"]], "spatial block")
    check_positive_number(buffer_m, "buffer_m", zero=True)
    if buffer_m and len(train) and len(test):
        known = crs if crs is not None else train.attrs.get("crs")
        close = int((_distance_m(test, train, buffer_m, known) < buffer_m).sum())
        if close:
            raise SampleLeak(
                f"{close} of {len(test)} test rows lie within {buffer_m:g} m of a training row, so any score is too good; "
                "split with geococa.split_samples or geococa.spatial_folds and the same buffer_m"
            )


def _refuse_common(train: pd.DataFrame, test: pd.DataFrame, what: str) -> None:
    shared = pd.MultiIndex.from_frame(test).isin(pd.MultiIndex.from_frame(train))
    if shared.any():
        raise SampleLeak(
            f"{int(shared.sum())} of {len(test)} test rows share a {what} with the training rows, so any score is too "
            "good; split with geococa.split_samples or geococa.spatial_folds"
        )


def _groups(table: pd.DataFrame, block_m: float, crs: Any) -> np.ndarray:
    """Join blocks that a common sample touches; the number of the joined set, for each row."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, block = np.unique(spatial_blocks(table, block_m, crs=crs), return_inverse=True)
    if "sample" not in table.columns or not len(table):
        return block
    sample, _ = pd.factorize(table["sample"])
    blocks = int(block.max()) + 1
    size = blocks + int(sample.max()) + 1
    links = coo_array((np.ones(len(table), np.int8), (block, blocks + sample)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    return np.asarray(component[block], dtype=np.int64)


def _deal(groups: np.ndarray, classes: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Deal groups to sides so that each class comes near its share on every side.

    Large groups first, each to the side that lacks most of the classes it holds; the seed breaks ties and
    shuffles groups of equal size.
    """
    _, code = np.unique(classes.astype(str), return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    if not len(group):
        return np.empty(0, np.int64)
    counts = np.zeros((group.max() + 1, code.max() + 1))
    np.add.at(counts, (group, code), 1)
    weights = counts / counts.sum(axis=0)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(weights))
    order = order[np.argsort(-weights[order].max(axis=1), kind="stable")]
    filled = np.zeros((len(shares), counts.shape[1]))
    side = np.empty(len(weights), dtype=np.int64)
    for number in order:
        # how full each side would be in the classes of this group, weighed by what the group brings of them
        fullness = ((filled + weights[number]) / shares[:, None]) @ weights[number]
        best = np.flatnonzero(np.isclose(fullness, fullness.min()))
        side[number] = best[rng.integers(len(best))]
        filled[side[number]] += weights[number]
    return side[group]


def _outside_buffer(table: pd.DataFrame, train: np.ndarray, test: np.ndarray, buffer_m: float, crs: Any) -> np.ndarray:
    """Training rows that are no nearer than the buffer to any test row."""
    check_positive_number(buffer_m, "buffer_m", zero=True)
    if buffer_m == 0 or not len(train) or not len(test):
        return train
    places = table[_places(table)]
    chosen = crs if crs is not None else table.attrs.get("crs")
    distance = _distance_m(places.iloc[train], places.iloc[test], buffer_m, chosen)
    far: np.ndarray = train[~(distance < buffer_m)]
    return far


def _places(table: pd.DataFrame) -> list[str]:
    return [name for name in ("tile", "x", "y") if name in table.columns]


def _distance_m(table: pd.DataFrame, others: pd.DataFrame, limit_m: float, crs: Any) -> np.ndarray:
    """Metres from each row to the nearest of the others; infinite beyond the limit."""
    from scipy.spatial import cKDTree

    # chords between points on the ellipsoid: shorter than the way on the ground by less than 1e-6 up to 30 km
    to_earth = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:4978", always_xy=True)
    places = []
    for part in (table, others):
        longitude, latitude = _lon_lat(part, crs)
        places.append(np.column_stack(to_earth.transform(longitude, latitude, np.zeros(len(longitude)))))
    distance, _ = cKDTree(places[1]).query(places[0], distance_upper_bound=limit_m * 1.000001)
    return np.asarray(distance)


def _check_sides(table: pd.DataFrame, train: np.ndarray, test: np.ndarray, positive: str | None, where: str) -> None:
    if positive is None:
        return
    for name, rows in (("training", train), ("test", test)):
        check_positives(table["class"].iloc[rows].unique(), positive, where=f"the {name} part of the {where}")
