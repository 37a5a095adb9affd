"""Tables of every kind on their way into a trend, by the reader and by `geococa trends`."""

from __future__ import annotations

import io
import json
import math

import pandas as pd
import pytest
from click.testing import CliRunner

from geococa.cli import main
from geococa.errors import InputRefused
from geococa.reference import unodc_national
from geococa.trend_tables import municipal_notes, read_trend_table
from geococa.trends import area_trend

MUNICIPAL = (
    "CODDEPTO,DEPARTAMENTO,CODMPIO,MUNICIPIO,2017,2018,2019,2020,2021\n"
    '05,ANTIOQUIA,05040,ANORI,"1,312.3",969.5,768.4,"1.088,9",- 0\n'
    '05,ANTIOQUIA,05031,AMALFI,10.5,11.5,12.5,"13,5",14.5\n'
    '52,NARIÑO,52835,TUMACO,20.0,,30.5,"40,5",50.5\n'
)
TIDY = "zone,year,area_ha\n" + "".join(f"Paya,{2010 + k},{100 + 10 * k}\n" for k in range(8))


@pytest.fixture
def file(tmp_path):
    def write(text, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


def run(*args, code=0):
    result = CliRunner().invoke(main, ["trends", *map(str, args)])
    assert result.exit_code == code, result.stderr
    return result


def rows_of(result):
    return pd.read_csv(io.StringIO(result.stdout), dtype={"zone": "str"})


# ---------------------------------------------------------------- the raw municipal table


def test_raw_municipal_table_is_read_as_published(file):
    path = file(MUNICIPAL)
    table = read_trend_table(path)
    assert table.loc[(table.code == "05040") & (table.year == 2020), "area_ha"].item() == 1088.9
    trends = rows_of(run(path))
    assert trends.zone.tolist() == ["05040", "05031", "52835"]
    assert trends.municipality.tolist() == ["ANORI", "AMALFI", "TUMACO"]
    assert trends.n_years.tolist() == [5, 5, 4]


def test_sums_by_department_miss_the_year_that_a_municipality_misses(file):
    path = file(MUNICIPAL)
    table = read_trend_table(path, by="department").set_index(["zone", "year"]).area_ha
    assert table["ANTIOQUIA", 2017] == pytest.approx(1322.8)
    assert math.isnan(table["NARIÑO", 2018])
    country = read_trend_table(path, by="country").set_index("year").area_ha
    assert country[2020] == pytest.approx(1088.9 + 13.5 + 40.5)
    assert math.isnan(country[2018])
    assert rows_of(run(path, "--by", "department")).zone.tolist() == ["ANTIOQUIA", "NARIÑO"]
    with pytest.raises(InputRefused, match="municipality, department, country"):
        read_trend_table(path, by="village")


def test_a_table_of_part_of_the_country_says_so_on_stderr(file):
    result = run(file(MUNICIPAL))
    assert "part of the country (2 departments)" in result.stderr
    assert "part of the country" not in result.stdout


def test_years_that_do_not_sum_to_the_published_total_are_named(file):
    sums = unodc_national().set_index("year").area_ha.to_dict() | {2001: 136_918.0, 2009: 68_027.0}
    header = "CODMPIO,DEPARTAMENTO,MUNICIPIO," + ",".join(map(str, sums))
    shares = (("05040", 0.25), ("52835", 0.75))
    rows = [
        f"{code},D{code[:2]},M{code}," + ",".join(f"{v * share:.1f}" for v in sums.values()) for code, share in shares
    ]
    path = file("\n".join([header, *rows]) + "\n")
    notes = municipal_notes(path)
    assert [note[:4] for note in notes] == ["2001", "2009"]
    assert "7,889 ha less" in notes[0]
    assert [line[:4] for line in run(path).stderr.splitlines()] == ["2001", "2009"]


def test_a_column_that_proves_no_decimal_mark_takes_the_one_given(file):
    path = file(MUNICIPAL.replace('"1.088,9"', "1.088").replace('"13,5"', "13").replace('"40,5"', "40"))
    assert "1.088" in run(path, code=4).stderr
    found = rows_of(run(path, "--decimal", "2020=,"))
    assert found.n_years.tolist() == [5, 5, 4]
    assert "YEAR=" in run(path, "--decimal", "2020;", code=2).stderr


def test_trend_of_the_municipal_table_says_that_it_mixes_adjusted_and_unadjusted_years(shared_data):
    path = shared_data / "coca" / "odc_coca_municipal_2001_2023_raw_8depts.csv"
    table = read_trend_table(path, by="country")
    notice = area_trend(table, find_breaks=False).notice.item()
    assert "not adjusted 2001-2009" in notice
    assert "adjusted 2010-2023" in notice
    assert "adjust" not in area_trend(table[table.year >= 2010], find_breaks=False).notice.item()
    assert len(rows_of(run(path, "--by", "department"))) == 8


# ---------------------------------------------------------------- other tables


def test_national_series_has_a_name(file):
    found = json.loads(run("unodc", "--json", "--test", "mann_kendall_normal").stdout)[0]
    assert found["s"] == 98
    assert found["p_value"] == pytest.approx(0.0161, abs=5e-5)
    assert found["slope_ha_per_year"] == pytest.approx(6354, abs=1)
    assert found["breaks"] == "2012"


def test_one_column_a_year(file):
    path = file('park,2010,2011,2012,2013,2014,2015\nPaya,"1,5",2,3,4,5,6\nNukak,- 0,,"2,5",3,2,1\n')
    table = read_trend_table(path)
    assert table.loc[(table.zone == "Paya") & (table.year == 2010), "area_ha"].item() == 1.5
    assert rows_of(run(path)).n_years.tolist() == [6, 5]
    named = file("id,name,2010,2011,2012,2013\n1,Paya,1,2,3,4\n", "named.csv")
    assert rows_of(run(named, "--zone", "name")).zone.tolist() == ["Paya"]
    assert "'park'" in run(named, "--zone", "park", code=4).stderr


def test_codes_stay_text(file):
    assert rows_of(run(file(TIDY.replace("zone", "code").replace("Paya", "05040")))).zone.tolist() == ["05040"]


def test_semicolons_decimal_commas_and_a_byte_order_mark(file):
    text = "\ufeff" + TIDY.replace(",", ";").replace(";100", ";1.000,5").replace("Paya", "Cañón")
    path = file(text)
    table = read_trend_table(path)
    assert table.area_ha.iloc[0] == 1000.5
    assert rows_of(run(path)).zone.tolist() == ["Cañón"]
    windows = file(text.lstrip("\ufeff"), "windows.csv", "cp1252")
    pd.testing.assert_frame_equal(read_trend_table(windows), table)


def test_thousands_in_a_tidy_table_are_read_and_text_is_refused_with_its_line(file):
    assert read_trend_table(file(TIDY.replace(",120", ',"1,120.5"'))).area_ha.iloc[2] == 1120.5
    assert "line 4, column area_ha reads 'many'" in run(file(TIDY.replace(",120", ",many")), code=4).stderr


def test_standard_errors_may_have_another_name(file):
    path = file(TIDY.replace("area_ha", "area_ha,error").replace("0\n", "0,5\n"))
    assert "slope_se_sampling" not in rows_of(run(path))
    assert "slope_se_sampling" in rows_of(run(path, "--se", "error"))


@pytest.mark.parametrize("column", ["land_cover", "class"])
def test_one_class_of_several_is_taken(file, column):
    lines = TIDY.splitlines()
    both = [f"{column},{lines[0]}", *(f"{name},{line}" for name in ("coca", "forest") for line in lines[1:])]
    path = file("\n".join(both).replace("forest,Paya", "forest,Nukak") + "\n")
    assert rows_of(run(path)).zone.tolist() == ["Paya"]
    assert rows_of(run(path, "--land-cover", "forest")).zone.tolist() == ["Nukak"]


def test_missing_hectares_are_no_zeros(file):
    found = rows_of(run(file(TIDY.replace(",120", ",").replace(",130", ",NA"))))
    assert found.n_years.item() == 6
    assert found.slope_ha_per_year.item() == 10


def test_one_year_has_no_trend_and_says_why(file):
    found = rows_of(run(file("zone,year,area_ha\nPaya,2010,3\n")))
    assert found.verdict.item() == "cannot tell"
    assert "one year is too few" in found.notice.item()
    assert "un solo año" in found.notice_es.item()


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        (TIDY, ("--value", "hectares"), "no column 'hectares', only zone, year, area_ha"),
        (TIDY, ("--zone", "park"), "no column 'park'"),
        (TIDY, ("--test", "hamed_rao"), "mann_kendall_ar1"),
        (TIDY, ("--confidence", "95"), "between 0 and 1"),
        (TIDY + "Paya,2012,4\n", (), "year 2012 twice"),
        (TIDY.replace("2012", "20x2"), (), "write years as 2019"),
        (TIDY.replace(",120", ",inf"), (), "infinite"),
        ("", (), "no rows"),
        ("zone,year,area_ha\n", (), "no rows"),
        (
            "land_" + TIDY.replace("zone", "cover,zone", 1).replace("Paya", "coca,Paya"),
            ("--land-cover", "maize"),
            "only coca",
        ),
    ],
)
def test_what_is_no_table_of_hectares_is_refused_in_words(file, text, args, message):
    result = run(file(text), *args, code=4)
    assert message in result.stderr
    assert result.stdout.strip() == ""


def test_missing_file_names_the_other_ways(tmp_path):
    assert "'unodc'" in run(tmp_path / "none.csv", code=4).stderr
