"""Tables that open safely in a spreadsheet and come back as they were."""

from __future__ import annotations

import csv
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geococa.errors import InputRefused
from geococa.tables import read_table, write_table

TRIGGERS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
hostile = st.builds(lambda a, b: a + b, st.sampled_from([*TRIGGERS, "'", '"', ",", "'=", "''", ""]), text)


@given(st.lists(hostile, min_size=1, max_size=8))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_and_none_starts_a_formula(tmp_path, cells):
    path = write_table(pd.DataFrame({"name": cells, "=x()": cells}), tmp_path / "t.csv")
    back = read_table(path)
    assert back["name"].tolist() == cells
    assert back["=x()"].tolist() == cells
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(TRIGGERS) for cell in row)


@given(st.lists(st.floats(allow_nan=True), min_size=1), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_keep_every_digit_and_their_sign(tmp_path, floats, whole):
    size = min(len(floats), len(whole))
    table = pd.DataFrame({"area_ha": np.asarray(floats[:size], float), "n": np.asarray(whole[:size], np.int64)})
    back = read_table(write_table(table, tmp_path / "t.csv"))
    assert back.n.tolist() == table.n.tolist()
    np.testing.assert_array_equal(back.area_ha.astype(float), table.area_ha)


def test_negative_numbers_are_not_touched(tmp_path):
    path = write_table(pd.DataFrame({"difference_ha": [-5.5, 3.0]}), tmp_path / "t.csv")
    assert path.read_text() == '"difference_ha"\n-5.5\n3.0\n'


def test_types_come_back(tmp_path):
    table = pd.DataFrame(
        {
            "code": ["05031", "91263"],
            "year": [2001, 2002],
            "area_ha": [1.5, math.nan],
            "inside": [True, False],
            "unknown": pd.array([True, None], dtype="boolean"),
            "time": pd.to_datetime(["2001-12-31", "2002-12-31"]).astype("datetime64[ns]"),
            "note": ["", None],
        }
    )
    back = read_table(write_table(table, tmp_path / "t.csv"))
    assert back.code.tolist() == ["05031", "91263"]
    assert back.year.dtype == np.int64
    assert back.area_ha.dtype == np.float64
    assert back.inside.tolist() == [True, False]
    assert back.unknown.isna().tolist() == [False, True]
    assert back.time.tolist() == table.time.tolist()
    assert back.note.iloc[0] == ""
    assert pd.isna(back.note.iloc[1])


def test_foreign_csv_keeps_leading_zeros_and_reads_numbers(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufeffcode,year,area_ha\r\n05031,2001,1e3\r\n91263,2002,\r\n".encode())
    back = read_table(path)
    assert back.code.tolist() == ["05031", "91263"]
    assert back.year.tolist() == [2001, 2002]
    assert back.area_ha.iloc[0] == 1000
    assert math.isnan(back.area_ha.iloc[1])


def test_parquet_comes_back(tmp_path):
    table = pd.DataFrame({"zone": ["=a"], "area_ha": [1.5]})
    pd.testing.assert_frame_equal(read_table(write_table(table, tmp_path / "t.parquet")), table)


def test_same_table_same_bytes(tmp_path):
    table = pd.DataFrame({"zone": ["Paya"], "area_ha": [0.1 + 0.2]})
    first = write_table(table, tmp_path / "a.csv").read_bytes()
    assert write_table(table, tmp_path / "b.csv").read_bytes() == first


def test_link_at_the_final_name_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("keep")
    (tmp_path / "t.csv").symlink_to(target)
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    assert target.read_text() == "keep"
    assert not (tmp_path / "t.csv").is_symlink()


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.csv")
    before = path.read_bytes()

    class Unprintable:
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(RuntimeError):
        write_table(pd.DataFrame({"a": [Unprintable()]}, dtype=object), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_unusable_paths_and_tables_are_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"\.xlsx"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "t.xlsx")
    with pytest.raises(InputRefused, match="twice"):
        write_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "t.csv")
    with pytest.raises(InputRefused, match="no table"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "ragged.csv").write_text("a,b\n1\n")
    with pytest.raises(InputRefused, match="row 2 has 1 cells"):
        read_table(tmp_path / "ragged.csv")
    (tmp_path / "broken.csv").write_text('a,b\n"x"y,2\n')
    with pytest.raises(InputRefused, match="quote"):
        read_table(tmp_path / "broken.csv")
