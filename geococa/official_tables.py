"""Reader of the municipal table of coca hectares as published, number formats and all."""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from geococa.errors import InputRefused

__all__ = ["is_municipal", "parse_numbers", "read_cells", "read_coca_municipal", "table_text", "year_columns"]

_HEADERS = {
    "code": ("codmpio", "codigomunicipio", "coddane", "codigodane", "divipola"),
    "department": ("departamento", "nombredepartamento"),
    "municipality": ("municipio", "nombremunicipio"),
    "department_code": ("coddepto", "codigodepartamento"),
}
_MISSING = ("", "-", "na", "n/a", "nd", "n.d.", "s/d", "null", "nan")
_ADJUSTED_FROM = 2010
"""First year of the open municipal table whose sum is the total that the census adjusted for small plots.

The census adjusts from 2009 on; the municipalities of 2009 still sum to 68,027 ha, the adjusted total is 73,139 ha.
"""

_ZERO = re.compile(r"-\s*0(?:[.,]0+)?")
_WHOLE = re.compile(r"\d+")


def read_coca_municipal(path: str | Path, *, decimal: Mapping[str, str] | None = None) -> pd.DataFrame:
    r"""Read the municipal table "Deteccion de cultivos de coca" in its raw form.

    One row a municipality, one column a year. The number format is decided column by column from what its cells prove:
    ``1,325.1`` and ``0.5`` prove a decimal point, ``1.088,9`` and ``61,5`` a decimal comma. ``- 0`` is how the publisher's
    spreadsheet prints zero. An empty cell (also ``-``, ``NA``, ``ND``) is a missing value, never zero.

    Parameters
    ----------
    path : str or Path
        CSV with comma or semicolon between the cells, UTF-8 or Windows-1252.
    decimal : mapping of str to str, optional
        Decimal mark ("." or ",") by year, for columns that prove none, for example ``{"2020": ","}``.

    Returns
    -------
    DataFrame
        ``code`` (text of five digits, leading zeros kept), ``department``, ``municipality``, ``year`` (int64), ``area_ha``
        (float64, hectares at 31 December, NaN = missing), ``small_plot_adjustment`` ("adjusted" from 2010 on: a trend across
        both says so in its notice); sorted as in the file, then by year. ``attrs["decimal"]`` holds the decimal mark of
        every year.

    Raises
    ------
    InputRefused
        Missing columns, a code twice or not of five digits, a cell that is not a number, or a column whose number format its
        cells contradict or leave open (``1.263``); the message names the cell.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "municipal.csv"
    >>> _ = path.write_text('CODMPIO,DEPARTAMENTO,MUNICIPIO,2019,2020\n05040,ANTIOQUIA,ANORI,"1,312.3","1.088,9"\n')
    >>> read_coca_municipal(path).area_ha.tolist()
    [1312.3, 1088.9]
    """
    path = Path(path)
    header, rows = read_cells(path)
    names = _match_headers(header, path)
    years = year_columns(header)
    if not years:
        raise InputRefused(f"{path} has no column named by a year, only {', '.join(header)}; expected 2001, 2002, ...")
    if len({name for _, name in years}) < len(years):
        raise InputRefused(f"{path} has a year twice in its header: {', '.join(name for _, name in years)}")
    codes = _read_codes(rows, names, path)
    unknown = set(decimal or {}) - {name for _, name in years}
    if unknown:
        raise InputRefused(f"decimal names {', '.join(sorted(unknown))}, which is no year of {path}")
    columns, marks = {}, {}
    for k, year in years:
        cells = [row[k] for row in rows]
        places = [f"{path}, line {line}, column {year}" for line in range(2, len(rows) + 2)]
        columns[year], marks[year] = parse_numbers(cells, places, decimal=(decimal or {}).get(year))
    count = len(years)
    table = pd.DataFrame(
        {
            "code": np.repeat(np.asarray(codes, dtype=object), count),
            "department": np.repeat(np.asarray([row[names["department"]] for row in rows], dtype=object), count),
            "municipality": np.repeat(np.asarray([row[names["municipality"]] for row in rows], dtype=object), count),
            "year": np.tile(np.asarray([int(year) for _, year in years], dtype=np.int64), len(rows)),
            "area_ha": np.column_stack([columns[year] for _, year in years]).reshape(-1),
        }
    )
    table["small_plot_adjustment"] = np.where(table["year"] >= _ADJUSTED_FROM, "adjusted", "not adjusted")
    for name in ("code", "department", "municipality", "small_plot_adjustment"):
        table[name] = table[name].astype("str")
    table.attrs = {"decimal": marks, "source": path.name}
    return table


def table_text(path: Path) -> tuple[str, str]:
    """Text of a CSV, UTF-8 or Windows-1252, and what stands between its cells: a comma or a semicolon."""
    if not path.is_file():
        raise InputRefused(f"no table at {path}")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    first = text.split("\n", 1)[0]
    return text, ";" if first.count(";") > first.count(",") else ","


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV as text, blanks trimmed; refuses rows that are longer or shorter than the header."""
    text, delimiter = table_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    lines = [[_squeeze(cell) for cell in line] for line in reader]
    lines = [line for line in lines if any(line)]
    if len(lines) < 2:
        raise InputRefused(f"{path} holds no rows; expected a header and one row a zone")
    header = lines[0]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise InputRefused(
                f"{path}, line {number} has {len(line)} cells, the header {len(header)}; numbers with a comma need quotes"
            )
    return header, lines[1:]


def year_columns(header: Sequence[str]) -> list[tuple[int, str]]:
    """Places and names of the columns named by a year."""
    return [(k, name) for k, name in enumerate(header) if re.fullmatch(r"(19|20)\d\d", name)]


def is_municipal(header: Sequence[str]) -> bool:
    """Whether a header is that of the municipal table: code, department, municipality and years."""
    plain = [_plain(name) for name in header]
    keys = ("code", "department", "municipality")
    return bool(year_columns(header)) and all(any(name in plain for name in _HEADERS[key]) for key in keys)


def _squeeze(cell: str) -> str:
    return re.sub(r"\s+", " ", cell.replace("\xa0", " ").replace("\u2212", "-")).strip()


def _plain(name: str) -> str:
    """Lower-case letters and digits of a header, without accents."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name).casefold())


def _match_headers(header: Sequence[str], path: Path) -> dict[str, int]:
    plain = [_plain(name) for name in header]
    found = {key: next((plain.index(n) for n in names if n in plain), -1) for key, names in _HEADERS.items()}
    missing = [key for key in ("code", "department", "municipality") if found[key] < 0]
    if missing:
        raise InputRefused(
            f"{path} has no column for {', '.join(missing)}, only {', '.join(header)}; expected CODMPIO, DEPARTAMENTO, MUNICIPIO"
        )
    return {key: place for key, place in found.items() if place >= 0}


def _read_codes(rows: Sequence[Sequence[str]], names: Mapping[str, int], path: Path) -> list[str]:
    codes: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        code = row[names["code"]]
        # a spreadsheet that took the codes for numbers has dropped the zero of departments 05 and 08
        code = code.zfill(5) if _WHOLE.fullmatch(code) and len(code) == 4 else code
        if not re.fullmatch(r"\d{5}", code):
            raise InputRefused(f"{path}, line {line}: {code!r} is not a municipality code of five digits")
        if "department_code" in names and not code.startswith(row[names["department_code"]].zfill(2)):
            raise InputRefused(
                f"{path}, line {line}: municipality {code} is not of department {row[names['department_code']]}; "
                "correct the code or the department"
            )
        if code in codes:
            raise InputRefused(f"{path}: municipality {code} is on lines {codes[code]} and {line}; keep one of them")
        codes[code] = line
    return list(codes)


def parse_numbers(
    cells: Sequence[str], places: Sequence[str], *, decimal: str | None = None
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], str]:
    """Numbers of one column whose decimal mark its own cells prove.

    Parameters
    ----------
    cells : sequence of str
        Text as published.
    places : sequence of str
        Where each cell stands, for the message.
    decimal : {".", ","}, optional
        Decimal mark, where it is known.

    Returns
    -------
    numbers : ndarray of float64
        NaN where a cell is missing.
    decimal : str
        The decimal mark; "." for a column of whole numbers.

    Raises
    ------
    InputRefused
        A cell that is no number; cells that prove both marks; cells such as ``1.263`` in a column that proves neither.

    Examples
    --------
    >>> parse_numbers(["1.263", "61,5", "- 0", ""], list("abcd"))[0].tolist()
    [1263.0, 61.5, 0.0, nan]
    """
    if decimal not in (None, ".", ","):
        raise InputRefused(f"the decimal mark is '.' or ',', got {decimal!r}")
    proofs: dict[str, int] = {}
    open_cell: int | None = None
    for k, cell in enumerate(cells):
        mark = _proves(cell)
        if mark in (".", ","):
            proofs.setdefault(mark, k)
        elif mark == "?" and open_cell is None:
            open_cell = k
    if decimal is None and len(proofs) > 1:
        point, comma = proofs["."], proofs[","]
        raise InputRefused(
            f"{places[point]} reads {cells[point]!r} (decimal point) but {places[comma]} reads {cells[comma]!r} "
            "(decimal comma); a column has one number format: correct the cell, or name it with decimal="
        )
    if decimal is None and not proofs and open_cell is not None:
        raise InputRefused(
            f"{places[open_cell]} reads {cells[open_cell]!r}, which is either thousands or decimals, and no other cell of "
            "the column tells; name the decimal mark of the column with decimal="
        )
    mark = decimal or next(iter(proofs), ".")
    return np.asarray([_number(cell, mark, place) for cell, place in zip(cells, places, strict=True)]), mark


def _proves(cell: str) -> str:
    """Decimal mark that a cell proves: "." or ","; "?" where it could be thousands; "" where it says nothing."""
    marks = [c for c in cell if c in ".,"]
    if not marks:
        return ""
    last = marks[-1]
    other = "," if last == "." else "."
    if other in marks:
        return last
    head, _, tail = cell.partition(last)
    if len(marks) > 1:
        # 1.234.567: a mark that repeats separates thousands
        return other
    if len(tail) == 3 and 1 <= len(head) <= 3 and head != "0":
        return "?"
    return last


def _number(cell: str, mark: str, place: str) -> float:
    if cell.casefold() in _MISSING:
        return math.nan
    if _ZERO.fullmatch(cell):
        return 0.0
    thousands = "," if mark == "." else "."
    pattern = rf"(\d+|\d{{1,3}}(?:{re.escape(thousands)}\d{{3}})+)(?:{re.escape(mark)}\d+)?"
    if not re.fullmatch(pattern, cell):
        raise InputRefused(
            f"{place} reads {cell!r}, expected hectares with {mark!r} before decimals and {thousands!r} between thousands"
        )
    return float(cell.replace(thousands, "").replace(mark, "."))
