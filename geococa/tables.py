"""Tables as CSV that opens safely in a spreadsheet and reads back as it was; Parquet besides."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geococa._files import replace_file
from geococa.errors import InputRefused

__all__ = ["read_table", "write_table"]

_TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")
_CELL = re.compile(r'"((?:[^"]|"")*)"|([^",\r\n]*)')
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|-?inf|nan")  # 05031 is a code, not a number
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d(\.\d+)?)?")


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as CSV or, by its suffix, as Parquet; whole or not at all.

    In CSV a text cell or column name that a spreadsheet would run as a formula (it begins with ``= + - @``, their full-width
    forms, a tab, a line break or a NUL) or that begins with an apostrophe gets an apostrophe in front; `read_table`
    takes it off. Text is always quoted, numbers never, and a missing value is an empty cell without quotes, so that codes such
    as ``05031`` come back as text. Numbers keep every digit.

    Parameters
    ----------
    table : DataFrame
        Columns of text, numbers, booleans or dates; the index is not written.
    path : str or Path
        ``.csv`` or ``.parquet``; an existing file is replaced, a link at that name is not followed.

    Returns
    -------
    Path

    Raises
    ------
    InputRefused
        Another suffix, or a column name twice.

    References
    ----------
    OWASP Application Security Verification Standard 5.0, requirement 1.2.10.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "areas.csv"
    >>> _ = write_table(pd.DataFrame({"park": ["=cmd()", "Paya"], "code": ["05031", "91263"]}), path)
    >>> read_table(path).park.tolist(), read_table(path).code.tolist()
    (['=cmd()', 'Paya'], ['05031', '91263'])
    """
    path = Path(path)
    if table.columns.duplicated().any():
        raise InputRefused(
            f"{path}: column {table.columns[table.columns.duplicated()][0]!r} is there twice; rename one"
        )
    if path.suffix == ".parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return replace_file(path, buffer.getvalue())
    if path.suffix != ".csv":
        raise InputRefused(f"{path}: tables are written as .csv or .parquet, not {path.suffix or 'without a suffix'}")
    columns = [[_cell(value) for value in table[name].tolist()] for name in table.columns]
    lines = [",".join(_text(str(name)) for name in table.columns)]
    lines += [",".join(cells) for cells in zip(*columns, strict=True)]
    return replace_file(path, ("\n".join(lines) + "\n").encode())


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that `write_table` wrote, or any CSV with commas, or Parquet.

    Parameters
    ----------
    path : str or Path
        ``.csv`` or ``.parquet``.

    Returns
    -------
    DataFrame
        A quoted cell makes its column text. A column without quotes is of whole numbers, floats, booleans or dates where
        every cell is one, else text.

    Raises
    ------
    InputRefused
        No file, another suffix, no header, or a line with another number of cells.
    """
    path = Path(path)
    if not path.is_file():
        raise InputRefused(f"no table at {path}")
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix != ".csv":
        raise InputRefused(f"{path}: expected a .csv or .parquet table")
    lines = _split(path.read_bytes().decode("utf-8-sig"), path)
    if not lines:
        raise InputRefused(f"{path} is empty; expected a header line")
    header = [_unescaped(text) for text, _ in lines[0]]
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise InputRefused(f"{path}, row {number} has {len(line)} cells, the header {len(header)}")
    return pd.DataFrame({name: _column([line[k] for line in lines[1:]]) for k, name in enumerate(header)})


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(float(value))
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return _text(str(value))


def _text(text: str) -> str:
    if text.startswith((*_TRIGGERS, "'")):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"'


def _unescaped(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith((*_TRIGGERS, "'")) else text


def _split(text: str, path: Path) -> list[list[tuple[str, bool]]]:
    """Cells of every line, each with whether it was quoted."""
    lines: list[list[tuple[str, bool]]] = []
    line: list[tuple[str, bool]] = []
    place = 0
    while place < len(text):
        found = _CELL.match(text, place)
        assert found is not None
        quoted = found.group(1) is not None
        line.append((found.group(1).replace('""', '"') if quoted else found.group(2), quoted))
        place = found.end()
        after = text[place : place + 1]
        if after == ",":
            place += 1
            if place == len(text):
                line.append(("", False))
            continue
        if after not in ("\r", "\n", ""):
            raise InputRefused(f"{path}, row {len(lines) + 1}: a quote in the middle of the cell {line[-1][0][:40]!r}")
        place += 2 if text.startswith("\r\n", place) else 1
        lines.append(line)
        line = []
    return [*lines, line] if line else lines


def _column(cells: list[tuple[str, bool]]) -> pd.Series:
    if any(quoted for _, quoted in cells):
        return pd.Series([_unescaped(text) if quoted or text else None for text, quoted in cells], dtype="str")
    texts = [text for text, _ in cells]
    given = [text for text in texts if text]
    if given and all(text in ("True", "False") for text in given):
        kind = "bool" if len(given) == len(texts) else "boolean"
        return pd.Series([text == "True" if text else pd.NA for text in texts], dtype=kind)
    if given and all(_WHOLE.fullmatch(text) for text in given) and len(given) == len(texts):
        whole = [int(text) for text in texts]
        if all(-(2**63) <= number < 2**63 for number in whole):
            return pd.Series(whole, dtype="int64")
    if given and all(_DATE.fullmatch(text) for text in given):
        return pd.to_datetime(pd.Series([text or None for text in texts]), format="ISO8601").astype("datetime64[ns]")
    if all(_NUMBER.fullmatch(text) for text in given):
        return pd.Series([float(text) if text else math.nan for text in texts], dtype="float64")
    return pd.Series([_unescaped(text) if text else None for text in texts], dtype="str")
