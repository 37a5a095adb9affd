"""What is installed: types, data, nothing but the package; the same sources give the same files; extras name themselves."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from tests.markdown_blocks import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.slow
def test_wheel_and_sdist_are_the_same_twice_and_hold_types_and_data(tmp_path):
    pytest.importorskip("hatchling")
    made = []
    for name in ("one", "two"):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", str(tmp_path / name)],
            cwd=ROOT, check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
        )  # fmt: skip
        made.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    wheel = next((tmp_path / "one").glob("*.whl"))
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        points = file.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "geococa/py.typed" in names
    assert "geococa/data/unodc_national.csv" in names
    assert any(name.startswith("geococa/report_assets/") for name in names)
    assert all(name.startswith(("geococa/", "geococa-")) for name in names), "the package and nothing else"
    assert "[rasterio.rio_plugins]" in points
    with tarfile.open(next((tmp_path / "one").glob("*.tar.gz"))) as file:
        inside = {name.split("/", 1)[-1] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "geococa/py.typed"} <= inside


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("sklearn", "ml", 'import pandas as pd; r = pd.DataFrame({"class": ["a", "b"] * 9, "x": range(18)}); coca.train(r, ["x"])'),
        ("jinja2", "report", "coca.write_report(coca.zonal_area(m, s), None, 'report.html')"),
        ("matplotlib", "report", "coca.figures.map_figure(m)"),
        ("zarr", "interop", 'coca.write_cube(m, "map.zarr")'),
        ("h5netcdf", "interop", 'coca.write_cube(m, "map.nc")'),
        ("dask", "dask", 'coca.open_tile("sample_tiles/18NXG", chunks={})'),
    ],
)  # fmt: skip
def test_a_missing_extra_names_itself(module, extra, call, tmp_path, monkeypatch):
    import geopandas
    import shapely

    import geococa as coca

    (tmp_path / "sample_tiles").symlink_to(ROOT / "sample_tiles")
    monkeypatch.chdir(tmp_path)
    m = coca.synthetic.simple_land_cover((8, 8), years=(2024,))
    grid = coca.Grid.from_xarray(m)
    zones = geopandas.GeoDataFrame({"zone": ["a"]}, geometry=[shapely.box(*grid.bounds)], crs=grid.crs)
    s = coca.coverage_fraction(zones, grid)
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # importing it now fails
    with pytest.raises(coca.errors.MissingExtra, match=rf"pip install 'geococa\[{extra}\]'") as caught:
        exec(call, {"coca": coca, "m": m, "s": s})
    assert module.replace("sklearn", "s") in str(caught.value)
    assert extra in PROJECT["optional-dependencies"]


def test_every_extra_is_in_the_install_page():
    text = (ROOT / "docs" / "howto" / "install.md").read_text(encoding="utf-8")
    missing = [
        name for name in PROJECT["optional-dependencies"] if f"`{name}`" not in text and name not in ("bench", "dev")
    ]
    assert missing == []
