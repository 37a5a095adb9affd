"""Spectral indices by name, and band formulas read without ever being run as code."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from geococa.errors import InputRefused

__all__ = ["FUNCTIONS", "INDICES", "Index", "Node", "bands_in", "parse_formula"]

_LONGEST = 2000
_MOST_NODES = 400
_LARGEST_POWER = 8.0
_LARGEST_CONSTANT = 1e9

FUNCTIONS = {"abs": 1, "exp": 1, "log": 1, "sqrt": 1, "tanh": 1, "minimum": 2, "maximum": 2}
"""Functions that a formula may use, with their number of arguments."""


class Index(NamedTuple):
    """A spectral index: its full name, its formula over common band names, and where it was published."""

    long_name: str
    formula: str
    reference: str


INDICES: dict[str, Index] = {
    "arvi": Index(
        "atmospherically resistant vegetation index",
        "(nir - (red - (red - blue))) / (nir + (red - (red - blue)))",
        "doi:10.1109/36.134076",
    ),
    "aweinsh": Index(
        "automated water extraction index",
        "4.0 * (green - swir16) - 0.25 * nir + 2.75 * swir22",
        "doi:10.1016/j.rse.2013.08.029",
    ),
    "aweish": Index(
        "automated water extraction index with shadows removed",
        "blue + 2.5 * green - 1.5 * (nir + swir16) - 0.25 * swir22",
        "doi:10.1016/j.rse.2013.08.029",
    ),
    "bai": Index(
        "burned area index", "1.0 / ((0.1 - red) ** 2 + (0.06 - nir) ** 2)", "Martín 1998, Serie Geográfica 7"
    ),
    "bsi": Index(
        "bare soil index",
        "((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue))",
        "Rikimaru et al. 2002, Tropical Ecology 43",
    ),
    "cire": Index("red-edge chlorophyll index", "nir / rededge071 - 1", "doi:10.1078/0176-1617-00887"),
    "dvi": Index("difference vegetation index", "nir - red", "doi:10.1016/0034-4257(94)00114-3"),
    "evi": Index(
        "enhanced vegetation index, catalogue constants (L = 0.5)",
        "2.5 * (nir - red) / (nir + 6.0 * red - 7.5 * blue + 0.5)",
        "doi:10.1016/S0034-4257(96)00112-5",
    ),
    "evi2": Index(
        "two-band enhanced vegetation index, catalogue constants (L = 0.5)",
        "2.5 * (nir - red) / (nir + 2.4 * red + 0.5)",
        "doi:10.1016/j.rse.2008.06.006",
    ),
    "evi2_modis": Index(
        "two-band enhanced vegetation index as published (L = 1)",
        "2.5 * (nir - red) / (nir + 2.4 * red + 1.0)",
        "doi:10.1016/j.rse.2008.06.006",
    ),
    "evi_modis": Index(
        "enhanced vegetation index as published and as MODIS products have it (L = 1)",
        "2.5 * (nir - red) / (nir + 6.0 * red - 7.5 * blue + 1.0)",
        "doi:10.1016/S0034-4257(02)00096-2",
    ),
    "gemi": Index(
        "global environment monitoring index",
        "((2.0 * (nir ** 2 - red ** 2) + 1.5 * nir + 0.5 * red) / (nir + red + 0.5))"
        " * (1.0 - 0.25 * ((2.0 * (nir ** 2 - red ** 2) + 1.5 * nir + 0.5 * red) / (nir + red + 0.5)))"
        " - (red - 0.125) / (1 - red)",
        "doi:10.1007/bf00031911",
    ),
    "gndvi": Index(
        "green normalised difference vegetation index",
        "(nir - green) / (nir + green)",
        "doi:10.1016/S0034-4257(96)00072-7",
    ),
    "ireci": Index(
        "inverted red-edge chlorophyll index",
        "(rededge078 - red) / (rededge071 / rededge075)",
        "doi:10.1016/j.isprsjprs.2013.04.007",
    ),
    "kndvi": Index(
        "kernel normalised difference vegetation index",
        "tanh(((nir - red) / (nir + red)) ** 2)",
        "doi:10.1126/sciadv.abc7447",
    ),
    "mcari": Index(
        "modified chlorophyll absorption in reflectance index",
        "((rededge071 - red) - 0.2 * (rededge071 - green)) * (rededge071 / red)",
        "doi:10.1016/S0034-4257(00)00113-9",
    ),
    "mndwi": Index(
        "modified normalised difference water index",
        "(green - swir16) / (green + swir16)",
        "doi:10.1080/01431160600589179",
    ),
    "msavi": Index(
        "modified soil-adjusted vegetation index",
        "0.5 * (2.0 * nir + 1 - ((2 * nir + 1) ** 2 - 8 * (nir - red)) ** 0.5)",
        "doi:10.1016/0034-4257(94)90134-1",
    ),
    "nbr": Index("normalised burn ratio", "(nir - swir22) / (nir + swir22)", "doi:10.3133/ofr0211"),
    "nbr2": Index(
        "normalised burn ratio 2", "(swir16 - swir22) / (swir16 + swir22)", "USGS, Landsat Normalized Burn Ratio 2"
    ),
    "ndbi": Index(
        "normalised difference built-up index", "(swir16 - nir) / (swir16 + nir)", "doi:10.1080/01431160304987"
    ),
    "ndmi": Index(
        "normalised difference moisture index", "(nir - swir16) / (nir + swir16)", "doi:10.1016/S0034-4257(01)00318-2"
    ),
    "ndrei": Index(
        "normalised difference red-edge index",
        "(nir - rededge071) / (nir + rededge071)",
        "doi:10.1016/1011-1344(93)06963-4",
    ),
    "ndsi": Index(
        "normalised difference snow index", "(green - swir16) / (green + swir16)", "doi:10.1109/IGARSS.1994.399618"
    ),
    "ndvi": Index(
        "normalised difference vegetation index", "(nir - red) / (nir + red)", "Rouse et al. 1974, NASA SP-351"
    ),
    "ndwi": Index(
        "normalised difference water index", "(green - nir) / (green + nir)", "doi:10.1080/01431169608948714"
    ),
    "nirv": Index(
        "near-infrared reflectance of vegetation", "((nir - red) / (nir + red)) * nir", "doi:10.1126/sciadv.1602244"
    ),
    "osavi": Index(
        "optimised soil-adjusted vegetation index",
        "(nir - red) / (nir + red + 0.16)",
        "doi:10.1016/0034-4257(95)00186-7",
    ),
    "rvi": Index("ratio vegetation index", "rededge075 / red", "doi:10.2134/agronj1968.00021962006000060016x"),
    "s2rep": Index(
        "Sentinel-2 red-edge position (nm)",
        "705.0 + 35.0 * (((rededge078 + red) / 2.0 - rededge071) / (rededge075 - rededge071))",
        "doi:10.1016/j.isprsjprs.2013.04.007",
    ),
    "savi": Index(
        "soil-adjusted vegetation index", "1.5 * (nir - red) / (nir + red + 0.5)", "doi:10.1016/0034-4257(88)90106-X"
    ),
    "sr": Index("simple ratio", "nir / red", "doi:10.2307/1936256"),
    "tcari": Index(
        "transformed chlorophyll absorption in reflectance index",
        "3 * ((rededge071 - red) - 0.2 * (rededge071 - green) * (rededge071 / red))",
        "doi:10.1016/S0034-4257(02)00018-4",
    ),
    "vari": Index(
        "visible atmospherically resistant index",
        "(green - red) / (green + red - blue)",
        "doi:10.1016/S0034-4257(01)00289-9",
    ),
}
"""Spectral indices by lower-case name.

Formulas and constants are those of the awesome-spectral-indices catalogue, with one L = 0.5 for all indices that have
it. EVI and EVI2 were published with L = 1: `evi_modis` and `evi2_modis` are those, to be compared with MODIS products.
"""

_ALLOWED = re.compile(r"[A-Za-z0-9_+\-*/(). ,]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
}


@dataclass(frozen=True)
class Node:
    """An operation of a parsed formula; equal nodes are equal values, so they need computing once.

    Attributes
    ----------
    kind : str
        ``band``, ``constant``, ``add``, ``subtract``, ``multiply``, ``divide``, ``negate``, ``power``, or a
        name out of `FUNCTIONS`.
    operands : tuple of Node
        What it works on.
    name : str
        Band, for ``band``.
    value : float
        Number, for ``constant``.
    """

    kind: str
    operands: tuple[Node, ...] = ()
    name: str = ""
    value: float = 0.0


def parse_formula(formula: str, known: Iterable[str] | None = None) -> Node:
    """Read a band formula: numbers, band and index names, ``+ - * / **``, parentheses and a few functions.

    The text is taken apart and checked piece by piece; nothing of it is ever executed.

    Parameters
    ----------
    formula : str
        For example ``"(nir - red) / (nir + red + 0.16)"``. Powers must be constants up to 8. Functions: abs,
        exp, log, sqrt, tanh, minimum, maximum. A name that is no band may be one of `INDICES`.
    known : iterable of str, optional
        Bands there are; any name is taken for a band where not given.

    Returns
    -------
    Node
        The formula as a tree.

    Raises
    ------
    InputRefused
        The text holds anything else.

    Examples
    --------
    >>> sorted(bands_in(parse_formula("(nir - red) / (nir + red)")))
    ['nir', 'red']
    """
    text = formula.strip() if isinstance(formula, str) else ""
    if not text or len(text) > _LONGEST:
        raise InputRefused(f"a formula is a text of 1 to {_LONGEST} characters, got {str(formula)[:60]!r}")
    if not _ALLOWED.fullmatch(text):
        strange = sorted(set(re.sub(r"[A-Za-z0-9_+\-*/(). ,]", "", text)))
        raise _refusal(text, f"holds {' '.join(map(repr, strange[:5]))}")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _refusal(text, f"is not arithmetic ({error})") from None
    if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
        raise _refusal(text, f"has more than {_MOST_NODES} parts")
    return _node(tree, text, None if known is None else frozenset(known))


def bands_in(node: Node) -> set[str]:
    """Names of the bands that a formula uses."""
    if node.kind == "band":
        return {node.name}
    return set().union(*(bands_in(part) for part in node.operands)) if node.operands else set()


def _refusal(text: str, reason: str) -> InputRefused:
    return InputRefused(
        f"the formula {text[:80]!r} {reason}; allowed: numbers, band names, + - * / ** ( ), {', '.join(FUNCTIONS)}"
    )


def _node(tree: ast.expr, text: str, known: frozenset[str] | None) -> Node:
    if isinstance(tree, ast.Constant):
        return Node("constant", value=_number(tree.value, text))
    if isinstance(tree, ast.Name):
        return _named(tree.id, text, known)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        part = _node(tree.operand, text, known)
        if isinstance(tree.op, ast.UAdd):
            return part
        return Node("constant", value=-part.value) if part.kind == "constant" else Node("negate", (part,))
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Pow):
        return _power(_node(tree.left, text, known), _node(tree.right, text, known), text)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
        return Node(_OPERATORS[type(tree.op)], (_node(tree.left, text, known), _node(tree.right, text, known)))
    if isinstance(tree, ast.Call):
        return _call(tree, text, known)
    raise _refusal(text, f"holds a {type(tree).__name__}")


def _number(value: object, text: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refusal(text, f"holds {value!r}, which is not a number")
    if not abs(value) <= _LARGEST_CONSTANT:
        raise _refusal(text, f"holds a number beyond {_LARGEST_CONSTANT:g}")
    return float(value)


def _named(name: str, text: str, known: frozenset[str] | None) -> Node:
    if not _NAME.fullmatch(name) or name in FUNCTIONS:
        raise _refusal(text, f"uses {name!r} as a band name")
    if known is None:
        return Node("band", name=name)
    if name in known:
        return Node("band", name=name)
    if name == "nir" and "nir08" in known:
        # Landsat 8 and 9 and MODIS call their only near-infrared band nir08
        return Node("band", name="nir08")
    if name.lower() in INDICES:
        return parse_formula(INDICES[name.lower()].formula, known)
    near = difflib.get_close_matches(name, [*known, *INDICES], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputRefused(f"{name!r} is neither a band nor an index: the bands are {', '.join(sorted(known))}{hint}")


def _power(base: Node, exponent: Node, text: str) -> Node:
    if exponent.kind != "constant" or abs(exponent.value) > _LARGEST_POWER:
        raise _refusal(text, f"has a power that is not a constant of at most {_LARGEST_POWER:g}")
    if base.kind == "constant":
        try:
            value = base.value**exponent.value
        except (ZeroDivisionError, OverflowError):
            raise _refusal(text, "has a power of a number without a value") from None
        return Node("constant", value=_number(value, text))
    if exponent.value == 0.5:
        return Node("sqrt", (base,))
    return Node("power", (base, exponent))


def _call(tree: ast.Call, text: str, known: frozenset[str] | None) -> Node:
    if not isinstance(tree.func, ast.Name) or tree.func.id not in FUNCTIONS:
        raise _refusal(text, "calls a function that is not allowed")
    name = tree.func.id
    if tree.keywords or len(tree.args) != FUNCTIONS[name] or any(isinstance(part, ast.Starred) for part in tree.args):
        raise _refusal(
            text, f"calls {name} with other than {FUNCTIONS[name]} argument{'s' if FUNCTIONS[name] > 1 else ''}"
        )
    return Node(name, tuple(_node(part, text, known) for part in tree.args))
