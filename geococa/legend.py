"""Legend: the codes, names and colours of a land-cover map, kept in CF flag attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from geococa.errors import InputRefused, KindMismatch

__all__ = ["NO_DATA", "PALETTE", "UNCLASSIFIED", "Legend", "as_land_cover"]

NO_DATA = 255
"""Code of a pixel that was not observed."""
UNCLASSIFIED = 0
"""Code of a pixel that was observed but given no class (no class was probable enough)."""

PALETTE: dict[str, str] = {
    "unclassified": "#bdbdbd",
    "coca": "#d81b60",
    "forest": "#1b5e20",
    "secondary_forest": "#7cb342",
    "pasture": "#f2d16b",
    "other_crops": "#e08214",
    "bare_soil": "#a1887f",
    "water": "#1e88e5",
    "settlement": "#5e35b1",
}
"""Colours of the usual classes, distinguishable with the common colour-vision deficiencies."""

_SPARE = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f")


@dataclass(frozen=True)
class Legend:
    """Codes, names and colours of the classes of a map, in the order of their codes.

    Parameters
    ----------
    names : tuple of str
        Class names, without blanks (CF separates ``flag_meanings`` by blanks).
    codes : tuple of int
        One code in 0..254 for each name; 255 is reserved for "not observed".
    colors : tuple of str
        ``#rrggbb`` for each name; the palette's where not given.

    Examples
    --------
    >>> Legend.of(["coca", "forest"]).codes
    (1, 2)
    """

    names: tuple[str, ...]
    codes: tuple[int, ...]
    colors: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.names) != len(self.codes) or not self.names:
            raise InputRefused(
                f"a legend needs one code for each name, got {len(self.names)} names and {len(self.codes)} codes"
            )
        if len(set(self.names)) != len(self.names) or len(set(self.codes)) != len(self.codes):
            raise InputRefused(
                f"class names and codes must be unique, got {dict(zip(self.codes, self.names, strict=True))}"
            )
        bad = [code for code in self.codes if not 0 <= code < NO_DATA]
        if bad:
            raise InputRefused(f"class codes must lie in 0..254 (255 means not observed), got {bad}")
        blank = [name for name in self.names if not name or re.search(r"\s", name)]
        if blank:
            raise InputRefused(f"class names must not be empty or hold blanks, got {blank}; use underscores")
        order = np.argsort(self.codes)
        colors = self.colors or tuple(
            PALETTE.get(name, _SPARE[position % len(_SPARE)]) for position, name in enumerate(self.names)
        )
        if len(colors) != len(self.names) or any(not re.fullmatch(r"#[0-9a-fA-F]{6}", c) for c in colors):
            raise InputRefused(f"colours must be one '#rrggbb' a class, got {colors}")
        for name, values in (("names", self.names), ("codes", self.codes), ("colors", colors)):
            object.__setattr__(self, name, tuple(values[i] for i in order))

    @classmethod
    def of(cls, classes: Mapping[int, str] | Iterable[str], colors: Mapping[str, str] | None = None) -> Legend:
        """Make a legend from ``{code: name}``, or from names that get the codes of `class_codes`.

        Raises
        ------
        InputRefused
            The classes are neither, a code is no whole number, or a colour is of no class.
        """
        if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
            raise InputRefused(
                f"classes must be a mapping such as {{1: 'coca', 2: 'forest'}} or a list of names, got {classes!r}"
            )
        if isinstance(classes, Mapping):
            pairs = dict(classes)
        else:
            names = list(classes)
            pairs = dict(zip(class_codes(len(names)), names, strict=True))
        if wrong := [code for code in pairs if _whole(code) is None]:
            raise InputRefused(f"class codes must be whole numbers, got {wrong[:10]!r}; write {{code: name}}")
        if wrong := [name for name in pairs.values() if not isinstance(name, str)]:
            raise InputRefused(f"class names must be texts, got {wrong[:10]!r}; write {{code: name}}")
        texts = tuple(str(name) for name in pairs.values())
        if colors is not None and not isinstance(colors, Mapping):
            raise InputRefused(f"colors must be a mapping such as {{'coca': '#d81b60'}}, got {type(colors).__name__}")
        given = colors or {}
        if unknown := sorted(set(given) - set(texts)):
            raise InputRefused(f"colours are given for {unknown}, the classes are {', '.join(texts)}")
        chosen = tuple(given.get(name, PALETTE.get(name, _SPARE[i % len(_SPARE)])) for i, name in enumerate(texts))
        return cls(texts, tuple(int(code) for code in pairs), chosen)

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any]) -> Legend:
        """Read the CF attributes ``flag_values`` and ``flag_meanings`` (and ``flag_colors``) of an array."""
        try:
            codes = tuple(int(code) for code in np.atleast_1d(attrs["flag_values"]))
            names = tuple(str(attrs["flag_meanings"]).split())
        except KeyError as error:
            raise KindMismatch(
                f"a land-cover map needs the CF attribute {error}; make one with geococa.as_land_cover(labels, classes)"
            ) from None
        except (TypeError, ValueError):
            raise KindMismatch(
                "the CF attribute flag_values of a land-cover map must be whole numbers, got "
                f"{attrs.get('flag_values') if isinstance(attrs, Mapping) else attrs!r}; make a map with "
                "geococa.as_land_cover(labels, classes)"
            ) from None
        return cls(names, codes, tuple(str(attrs.get("flag_colors", "")).split()))

    def to_attrs(self) -> dict[str, Any]:
        """CF attributes of a map with this legend."""
        return {
            "flag_values": np.asarray(self.codes, dtype=np.uint8),
            "flag_meanings": " ".join(self.names),
            "flag_colors": " ".join(self.colors),
        }

    def code(self, name: str) -> int:
        """Code of a class."""
        if name not in self.names:
            raise InputRefused(f"no class {name!r} in the legend, which has {', '.join(self.names)}")
        return self.codes[self.names.index(name)]

    def with_unclassified(self) -> Legend:
        """Return the same legend with code 0 for observed pixels without a class."""
        if UNCLASSIFIED in self.codes:
            return self
        return Legend(
            ("unclassified", *self.names),
            (UNCLASSIFIED, *self.codes),
            (PALETTE["unclassified"], *self.colors),
        )


def class_codes(count: int) -> range:
    """Codes of so many classes: 1, 2, 3, ...; 255 classes take 0 too, which then no longer means unclassified."""
    first = 0 if count == NO_DATA else 1
    return range(first, first + count)


def _whole(value: Any) -> int | None:
    """A number without a fraction, as int; None for anything else."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return int(value) if number and abs(value) < np.inf and value == int(value) else None


def _no_data_code(labels: xr.DataArray, nodata: Any) -> int | None:
    """Label that means "not observed": the one given, else that of the file; None where no label can have it."""
    if nodata is not None:
        given = _whole(nodata)
        if given is None:
            raise InputRefused(f"nodata must be a whole number, since labels are, got {nodata!r}")
        return _possible(given, labels.dtype)
    for key in ("_FillValue", "nodata"):
        for source in (labels.attrs, labels.encoding):
            value = np.asarray(source.get(key))
            if source.get(key) is None or (value.dtype.kind == "f" and np.isnan(value).all()):
                continue
            if value.size != 1 or isinstance(value.item(), bool) or not isinstance(value.item(), int | float):
                raise InputRefused(f"the array's {key} is {source[key]!r}, which is no number; give it as nodata=")
            return _possible(_whole(value.item()), labels.dtype)
    return None


def _possible(code: int | None, dtype: Any) -> int | None:
    """A no-data value that labels of a type can have: files say -3.4e38 or 0.5 of bytes, which hides nothing."""
    limits = np.iinfo(dtype)
    return code if code is not None and limits.min <= code <= limits.max else None


def as_land_cover(
    labels: xr.DataArray, classes: Mapping[int, str] | Sequence[str], *, nodata: int | None = None
) -> xr.DataArray:
    """Turn an integer label array or opened raster into a land-cover map that every later stage takes.

    Parameters
    ----------
    labels : xarray.DataArray
        Integer labels, dims ``(y, x)`` or ``(time, y, x)`` (a leading ``band`` of length one is dropped),
        with coordinates and CRS as ``.rio``, ``.odc`` or CF have them. Codes 0..254.
    classes : mapping of int to str, or sequence of str
        ``{code: name}``; a sequence names the codes 1, 2, 3, ...
    nodata : int, optional
        Label that means "not observed"; read from the array's ``_FillValue`` or ``nodata`` where not given.
        Never guessed from the values. A no-data value of the file that ``classes`` names counts as that class.

    Returns
    -------
    xarray.DataArray
        uint8 with CF flags, 255 = not observed, ``kind="land_cover"``. The input is not changed.

    Raises
    ------
    InputRefused
        Labels are not integers, or hold a value that ``classes`` does not name, or ``nodata`` is a class.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> labels = xr.DataArray(np.array([[1, 2], [2, 0]], dtype="int16"), dims=("y", "x"), attrs={"nodata": 0})
    >>> as_land_cover(labels, {1: "coca", 2: "forest"}).values.tolist()
    [[1, 2], [2, 255]]
    """
    if not isinstance(labels, xr.DataArray):
        raise InputRefused(
            f"labels must be an xarray.DataArray, got {type(labels).__name__}; open a raster with geococa.read_raster, or put "
            "a bare array on its grid with Grid(...).attach(xarray.DataArray(values, dims=('y', 'x')))"
        )
    if "band" in labels.dims and labels.sizes["band"] == 1:
        labels = labels.squeeze("band", drop=True)
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputRefused(
            f"labels must be integers, got {labels.dtype}; convert them with .astype('uint8') after "
            "replacing NaN by a no-data code"
        )
    legend = Legend.of(classes)
    fill = _no_data_code(labels, nodata)
    if nodata is not None and fill in legend.codes:
        raise InputRefused(
            f"nodata={nodata} is also the code of {legend.names[legend.codes.index(nodata)]!r}; a code means either"
        )
    lookup_values = np.asarray([*legend.codes, *([fill] if fill is not None else [])], dtype=np.int64)

    def recode(block: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(np.unique(block), [*lookup_values, NO_DATA])
        if unknown.size:
            raise InputRefused(
                f"the labels hold {unknown[:10].tolist()}, which the classes "
                f"{dict(zip(legend.codes, legend.names, strict=True))} do not name; name them, or give nodata="
            )
        out = block.astype(np.uint8)
        if fill is not None and fill not in legend.codes:
            out[block == fill] = NO_DATA
        return out

    data = labels.data
    recoded = (
        data.map_blocks(recode, dtype=np.uint8, meta=np.empty((0,) * data.ndim, np.uint8))
        if hasattr(data, "dask")
        else recode(np.asarray(data))
    )
    out = labels.copy(data=recoded)
    kept = {key: value for key, value in labels.attrs.items() if key in ("grid_mapping", "long_name")}
    out.attrs = {**kept, "kind": "land_cover", "nodata": NO_DATA, "units": "1", **legend.to_attrs()}
    # in the attributes, not the encoding: nothing is masked yet, and rioxarray reads it so
    out.attrs["_FillValue"] = np.uint8(NO_DATA)
    out.attrs.setdefault("long_name", "land cover")
    out.encoding = {key: value for key, value in labels.encoding.items() if key == "grid_mapping"}
    return out.rename("land_cover")
