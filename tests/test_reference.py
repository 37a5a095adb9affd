"""Published figures, the raw municipal table with its traps, and estimates held against both."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geococa.errors import InputRefused
from geococa.official_tables import parse_numbers
from geococa.reference import (
    compare_with_reference,
    read_coca_municipal,
    read_protected_areas,
    reconcile,
    unodc_national,
)
from geococa.trends import area_trend

HEADER = "CODDEPTO,DEPARTAMENTO,CODMPIO,MUNICIPIO,2019,2020\n"


def write(tmp_path, *rows, header=HEADER, encoding="utf-8"):
    path = tmp_path / "municipal.csv"
    path.write_bytes((header + "".join(row + "\n" for row in rows)).encode(encoding))
    return path


def area(table, code, year):
    return table.loc[(table.code == code) & (table.year == year), "area_ha"].item()


# ---------------------------------------------------------------- national series


def test_national_series_is_whole_and_says_where_it_comes_from():
    table = unodc_national()
    assert table.year.tolist() == list(range(2001, 2025))
    first = [144_807, 102_071, 86_340, 80_350, 85_750, 77_870, 98_899, 80_953, 73_139, 61_812, 63_765, 47_788]
    later = [48_189, 69_132, 96_085, 146_140, 171_495, 169_018, 154_476, 142_784, 204_257, 230_028, 252_572, 261_386]
    assert table.area_ha.tolist() == first + later
    assert table.vintage.unique().tolist() == ["2015 report", "2024 report"]
    assert table.source.str.contains("UNODC").all()
    assert (table.small_plot_adjustment == np.where(table.year >= 2009, "adjusted", "not adjusted")).all()


def test_national_series_is_a_fresh_copy_each_time():
    mine = unodc_national()
    mine["area_ha"] = 0.0
    assert (unodc_national().area_ha > 0).all()


# ---------------------------------------------------------------- raw table, as published


@pytest.fixture(scope="module")
def raw(shared_data):
    return read_coca_municipal(shared_data / "coca" / "odc_coca_municipal_2001_2023_raw_8depts.csv")


def test_raw_table_has_every_municipality_and_year(raw):
    assert raw.columns.tolist() == ["code", "department", "municipality", "year", "area_ha", "small_plot_adjustment"]
    assert len(raw) == 144 * 23
    assert raw.department.nunique() == 8
    assert raw.area_ha.notna().all()
    assert raw.year.dtype == np.int64


def test_raw_table_uses_a_decimal_comma_in_2020_only(raw):
    assert {year for year, mark in raw.attrs["decimal"].items() if mark == ","} == {"2020"}


@pytest.mark.parametrize(
    ("code", "year", "expected"),
    [
        ("05040", 2019, 768.4),
        ("05040", 2020, 1088.9),  # 1.088,9
        ("05040", 2018, 969.5),
        ("05040", 2017, 1312.3),  # 1,312.3
        ("91530", 2020, 61.5),  # 61,5
        ("19809", 2020, 1263.0),  # 1.263
        ("19809", 2010, 1581.0),  # 1,581.0
        ("91263", 2021, 0.0),  # - 0
        ("91263", 2020, 0.0),  # 0
    ],
)
def test_raw_cells_are_read_as_meant(raw, code, year, expected):
    assert area(raw, code, year) == expected


def test_raw_codes_keep_their_leading_zeros(raw):
    assert raw.code.str.fullmatch(r"\d{5}").all()
    assert raw.loc[raw.department == "ANTIOQUIA", "code"].str.startswith("05").all()


def test_raw_names_keep_their_accents(raw):
    assert set(raw.loc[raw.code == "19821", "municipality"]) == {"TORIBÍO"}


def test_2020_lies_between_its_neighbours_as_no_misread_column_would(raw):
    totals = raw.groupby("year").area_ha.sum()
    assert 0.5 < totals[2020] / ((totals[2019] + totals[2021]) / 2) < 1.5


def test_raw_table_goes_straight_into_a_trend(raw):
    trends = area_trend(raw[raw.code.isin(["05040", "19809"])])
    assert trends.zone.tolist() == ["05040", "19809"]
    assert trends.n_years.tolist() == [23, 23]


# ---------------------------------------------------------------- its traps, one by one


def test_empty_cell_is_missing_and_dash_nought_is_zero(tmp_path):
    path = write(tmp_path, '05,ANTIOQUIA,05040,ANORI,,"- 0"', '05,ANTIOQUIA,05045,APARTADO,-,"1,5"')
    table = read_coca_municipal(path)
    assert math.isnan(area(table, "05040", 2019))
    assert area(table, "05040", 2020) == 0.0
    assert math.isnan(area(table, "05045", 2019))


def test_codes_that_lost_their_zero_get_it_back(tmp_path):
    table = read_coca_municipal(write(tmp_path, "5,ANTIOQUIA,5040,ANORI,1.5,2.5"))
    assert table.code.unique().tolist() == ["05040"]


@pytest.mark.parametrize("code", ["504", "050401", "5A040", ""])
def test_impossible_code_is_refused(tmp_path, code):
    with pytest.raises(InputRefused, match="five digits"):
        read_coca_municipal(write(tmp_path, f"05,ANTIOQUIA,{code},ANORI,1.5,2.5"))


def test_code_of_another_department_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="not of department 19"):
        read_coca_municipal(write(tmp_path, "19,CAUCA,05040,ANORI,1.5,2.5"))


def test_municipality_twice_is_refused_with_its_lines(tmp_path):
    row = "05,ANTIOQUIA,05040,ANORI,1.5,2.5"
    with pytest.raises(InputRefused, match="lines 2 and 3"):
        read_coca_municipal(write(tmp_path, row, row))


def test_ambiguous_column_is_refused_with_its_cell(tmp_path):
    path = write(tmp_path, "05,ANTIOQUIA,05040,ANORI,1.5,1.263", "05,ANTIOQUIA,05045,APARTADO,2.5,7")
    with pytest.raises(InputRefused, match=r"line 2, column 2020 reads '1.263'"):
        read_coca_municipal(path)
    assert area(read_coca_municipal(path, decimal={"2020": ","}), "05040", 2020) == 1263.0
    assert area(read_coca_municipal(path, decimal={"2020": "."}), "05040", 2020) == 1.263


def test_column_with_both_formats_is_refused_with_both_cells(tmp_path):
    path = write(tmp_path, '05,ANTIOQUIA,05040,ANORI,1.5,"1.088,9"', '05,ANTIOQUIA,05045,APARTADO,2.5,"1,088.9"')
    with pytest.raises(InputRefused, match=r"'1,088.9'.*'1.088,9'"):
        read_coca_municipal(path)


@pytest.mark.parametrize("cell", ["-5.1", "12 ha", "1,23,456.7", "*", "1.2.3"])
def test_cell_that_is_no_area_is_refused_with_its_place(tmp_path, cell):
    with pytest.raises(InputRefused, match=r"line 2, column 2019"):
        read_coca_municipal(write(tmp_path, f'05,ANTIOQUIA,05040,ANORI,"{cell}",2.5'))


def test_unquoted_decimal_commas_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="line 2 has 7 cells, the header 6"):
        read_coca_municipal(write(tmp_path, "05,ANTIOQUIA,05040,ANORI,1,5,2.5"))


def test_semicolons_byte_order_mark_and_windows_letters_are_read(tmp_path):
    rows = ("05;ANTIOQUIA;05040;ANORÍ;1,5;2.000,5",)
    header = HEADER.replace(",", ";")
    marked = write(tmp_path, *rows, header="\ufeff" + header)
    assert read_coca_municipal(marked).area_ha.tolist() == [1.5, 2000.5]
    windows = write(tmp_path, *rows, header=header, encoding="cp1252")
    assert read_coca_municipal(windows).municipality.unique().tolist() == ["ANORÍ"]


def test_missing_columns_and_years_are_named(tmp_path):
    with pytest.raises(InputRefused, match="code"):
        read_coca_municipal(write(tmp_path, "a,1", header="MUNICIPIO,2019\n"))
    with pytest.raises(InputRefused, match="no column named by a year"):
        read_coca_municipal(write(tmp_path, "05040,A,B", header="CODMPIO,DEPARTAMENTO,MUNICIPIO\n"))
    with pytest.raises(InputRefused, match="a year twice"):
        read_coca_municipal(write(tmp_path, "05040,A,B,1,2", header="CODMPIO,DEPARTAMENTO,MUNICIPIO,2019,2019\n"))


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="no table at"):
        read_coca_municipal(tmp_path / "none.csv")
    with pytest.raises(InputRefused, match="no rows"):
        read_coca_municipal(write(tmp_path))


def test_decimal_mark_of_an_unknown_year_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="1999"):
        read_coca_municipal(write(tmp_path, "05,ANTIOQUIA,05040,ANORI,1.5,2.5"), decimal={"1999": ","})


@given(st.lists(st.integers(0, 10**8), min_size=1), st.sampled_from([".", ","]))
def test_numbers_survive_both_formats(tenths, mark):
    other = "," if mark == "." else "."
    cells = [f"{t // 10:,}".replace(",", other) + f"{mark}{t % 10}" for t in tenths]
    numbers, found = parse_numbers(cells, cells)
    assert found == mark
    assert numbers.tolist() == [t / 10 for t in tenths]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.234.567", "1.5".replace(".", ",")], [1_234_567, 1.5]),  # a repeated mark separates thousands
        (["0.125"], [0.125]),  # thousands do not begin with a nought
        (["1234.567"], [1234.567]),  # nor follow four digits
        (["12", "7"], [12, 7]),
    ],
)
def test_cells_that_prove_their_format(cells, expected):
    assert parse_numbers(cells, cells)[0].tolist() == expected


# ---------------------------------------------------------------- comparison


def test_estimate_beside_the_published_figure():
    mine = pd.DataFrame(
        {"year": [2012, 2013], "area_ha": [50_000.0, 40_000.0], "ci_low_ha": [45e3, 35e3], "ci_high_ha": [55e3, 45e3]}
    )
    table = compare_with_reference(mine, unodc_national())
    assert table.difference_ha.tolist() == [50_000 - 47_788, 40_000 - 48_189]
    assert table.ratio.tolist() == pytest.approx([50_000 / 47_788, 40_000 / 48_189])
    assert table.inside_interval.tolist() == [True, False]
    assert table.vintage.tolist() == ["2024 report", "2024 report"]


def test_without_interval_or_reference_inside_is_unknown():
    mine = pd.DataFrame({"year": [2012, 1990], "area_ha": [5.0, 5.0]})
    table = compare_with_reference(mine, unodc_national())
    assert table.inside_interval.isna().all()
    assert math.isnan(table.reference_ha.iloc[1])
    interval = mine.assign(ci_low_ha=0.0, ci_high_ha=1e9)
    assert compare_with_reference(interval, unodc_national()).inside_interval.isna().tolist() == [False, True]


def test_zones_are_compared_by_zone_and_zero_reference_has_no_ratio():
    mine = pd.DataFrame({"zone": ["Paya", "Nukak"], "year": 2019, "area_ha": [10.0, 20.0]})
    published = pd.DataFrame({"zone": ["Nukak", "Paya"], "year": 2019, "area_ha": [25.0, 0.0]})
    table = compare_with_reference(mine, published)
    assert table.difference_ha.tolist() == [10.0, -5.0]
    assert math.isnan(table.ratio.iloc[0])


def test_comparisons_that_make_no_sense_are_refused():
    mine = pd.DataFrame({"year": [2012], "area_ha": [5.0]})
    with pytest.raises(InputRefused, match="no year in common"):
        compare_with_reference(mine.assign(year=1990), unodc_national())
    with pytest.raises(InputRefused, match="zones"):
        compare_with_reference(mine.assign(zone="Paya"), unodc_national())
    with pytest.raises(InputRefused, match="twice"):
        compare_with_reference(mine, pd.concat([unodc_national(), unodc_national()]))
    with pytest.raises(InputRefused, match="area_ha"):
        compare_with_reference(mine.drop(columns="area_ha"), unodc_national())


# ---------------------------------------------------------------- reconciliation


def full_table():
    """A municipal table of the whole country that sums to the total, but for 2001 and 2009, as the open one does."""
    sums = unodc_national().set_index("year").area_ha.to_dict() | {2001: 136_918.0, 2009: 68_027.0}
    shares = {"05040": 0.2, "52835": 0.5, "54810": 0.3}
    rows = [(code, code[:2], year, total * share) for year, total in sums.items() for code, share in shares.items()]
    return pd.DataFrame(rows, columns=["code", "department", "year", "area_ha"])


def test_full_table_does_not_sum_in_2001_and_2009():
    table = reconcile(full_table(), unodc_national())
    assert table.loc[table.status == "does not sum", "year"].tolist() == [2001, 2009]
    assert (table.status == "agrees").sum() == 22
    assert "7,889 ha less" in table.loc[table.year == 2001, "note"].item()
    assert "5,112 ha less" in table.loc[table.year == 2009, "note"].item()


def test_table_of_eight_departments_is_called_incomplete(raw):
    table = reconcile(raw, unodc_national())
    assert (table.status == "incomplete").all()
    assert "8 departments" in table.attrs["coverage"]
    assert "part of the country" in table.attrs["coverage"]


def test_year_with_missing_values_is_incomplete_and_not_a_mismatch():
    rows = full_table()
    rows.loc[(rows.year == 2015) & (rows.code == "05040"), "area_ha"] = math.nan
    table = reconcile(rows, unodc_national()).set_index("year")
    assert table.status[2015] == "incomplete"
    assert table.missing[2015] == 1
    assert table.status[2014] == "agrees"


def test_more_than_the_total_is_a_mismatch_too():
    rows = full_table()
    rows.loc[rows.year == 2018, "area_ha"] *= 1.1
    table = reconcile(rows, unodc_national()).set_index("year")
    assert table.status[2018] == "does not sum"
    assert "more" in table.note[2018]


def test_reconciling_different_years_is_refused():
    with pytest.raises(InputRefused, match="share no year"):
        reconcile(full_table().assign(year=1990), unodc_national())
    with pytest.raises(InputRefused, match="no column"):
        reconcile(full_table().drop(columns="year"), unodc_national())


# ---------------------------------------------------------------- protected areas


WDPA = (
    "WDPAID,WDPA_PID,NAME,ORIG_NAME,DESIG_ENG,IUCN_CAT,REP_AREA,GIS_AREA,STATUS,STATUS_YR\n"
    "144,144,La Paya,La Paya,National Natural Park,II,4220.0,4298.125,Designated,1984\n"
    "555,555_A,Nukak,Nukak,National Nature Reserve,Ia,8550,0,Designated,0\n"
    "555,555_B,Nukak,Nukak,National Nature Reserve,Ia,,12.5,Proposed,\n"
)
RUNAP = (
    'ap_id;ap_nombre;ap_categor;area_ha_to\n7;La Paya;Parques Nacionales Naturales;"422.000,5"\n12;Nukak;Reserva;- 0\n'
)


def parks(tmp_path, text, name="parks.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_wdpa_square_kilometres_become_hectares_and_unknown_years_stay_unknown(tmp_path):
    table = read_protected_areas(parks(tmp_path, WDPA))
    assert table.source.unique().tolist() == ["WDPA"]
    assert table.zone_id.tolist() == ["144", "555", "555"]
    assert table.parcel_id.tolist() == ["144", "555_A", "555_B"]
    assert table.area_ha.tolist()[:2] == [422_000.0, 855_000.0]
    assert math.isnan(table.area_ha[2])
    assert table.gis_area_ha[0] == 429_812.5
    assert math.isnan(table.gis_area_ha[1])
    assert table.status_year.tolist()[0] == 1984
    assert table.status_year.isna().tolist() == [False, True, True]
    assert table.category.tolist() == ["II", "Ia", "Ia"]


def test_runap_hectares_keep_their_unit_and_their_decimal_comma(tmp_path):
    table = read_protected_areas(parks(tmp_path, RUNAP))
    assert table.source.unique().tolist() == ["RUNAP"]
    assert table.zone.tolist() == ["La Paya", "Nukak"]
    assert table.designation.tolist() == ["Parques Nacionales Naturales", "Reserva"]
    assert table.area_ha[0] == 422_000.5
    assert math.isnan(table.area_ha[1])
    assert table.status.isna().all()


def test_attributes_of_a_vector_file_are_read_without_its_shapes(tmp_path):
    import geopandas as gpd
    from shapely.geometry import box

    frame = gpd.GeoDataFrame(
        {"WDPAID": [144.0, 555.0], "NAME": ["La Paya", "Nukak"], "REP_AREA": [4220.0, math.nan]},
        geometry=[box(0, 0, 1, 1), box(1, 1, 2, 2)],
        crs="EPSG:4326",
    )
    frame.to_file(tmp_path / "wdpa.gpkg")
    table = read_protected_areas(tmp_path / "wdpa.gpkg")
    assert table.zone_id.tolist() == ["144", "555"]
    assert table.area_ha[0] == 422_000.0
    assert math.isnan(table.area_ha[1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n1,Paya\n", "neither"),
        (WDPA.replace(",La Paya,La Paya,", ",,,"), "line 2 has no name"),
        (WDPA.replace("\n144,144,", "\n,144,"), "line 2 has no number"),
        (WDPA.replace("555_B", "555_A"), "twice"),
        (WDPA.replace("8550", "large"), "line 3, column REP_AREA reads 'large'"),
        (WDPA.replace("1984", "old"), "line 2, column STATUS_YR reads 'old'"),
        ("WDPAID,REP_AREA\n144,1\n", "no column for zone"),
    ],
)
def test_broken_tables_of_parks_are_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(InputRefused, match=message):
        read_protected_areas(parks(tmp_path, text))
    with pytest.raises(InputRefused, match="no table"):
        read_protected_areas(tmp_path / "none.csv")
