"""A whole archive: resumed, bad tiles named, every park and year in the table."""

from __future__ import annotations

import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest

from geococa.archive import plan_archive, run_archive
from geococa.errors import ArchiveBusy, InputRefused
from geococa.ledger import Ledger, file_sha256


@pytest.fixture(scope="module")
def finished(small_archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return run_archive(small_archive, small_archive / "recipe.toml", out=out)


def checksums(folder):
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".lock", "ledger.sqlite"))
    }


def test_the_table_tells_of_the_dates_behind_its_hectares(finished):
    table = pd.read_csv(finished.out / "areas.csv")
    seen = table[table["observed_share"] > 0.05]
    assert (seen["mean_observations"] >= 1).all()
    # without a cut-off date the age counts to 31 December
    assert seen["mean_age_days"].between(0, 365).all()
    assert seen["median_age_days"].between(0, 365).all()
    assert "fallback_share" not in table
    assert "mean_age_days" in (finished.out / "report.html").read_text(encoding="utf-8")


def test_the_table_has_every_park_and_year_and_adds_up(finished):
    table = pd.read_csv(finished.out / "areas.csv")
    years, zones = set(table["year"]), set(table["zone"])
    assert len(table.drop_duplicates(["zone", "year"])) == len(years) * len(zones)
    yearly = table.groupby(["zone", "year"]).agg(
        mapped=("area_ha", "sum"),
        unobserved=("unobserved_ha", "first"),
        outside=("outside_ha", "first"),
        zone_ha=("zone_ha", "first"),
    )
    np.testing.assert_allclose(yearly[["mapped", "unobserved", "outside"]].sum(axis=1), yearly["zone_ha"], rtol=1e-9)


def test_tables_are_the_same_as_csv_and_parquet(finished):
    for name in ("areas", "trends", "truth_comparison"):
        csv, parquet = pd.read_csv(finished.out / f"{name}.csv"), pd.read_parquet(finished.out / f"{name}.parquet")
        assert list(csv.columns) == list(parquet.columns)
        assert len(csv) == len(parquet)


def test_the_mapped_area_is_compared_with_the_truth_of_every_park_and_year(finished):
    truth = finished.outputs.truth
    assert len(truth) == finished.areas.sizes["zone"] * finished.areas.sizes["time"]
    assert truth["true_ha"].notna().all()


def test_a_second_run_computes_nothing_and_changes_nothing(finished, small_archive):
    before = checksums(finished.out)
    again = run_archive(small_archive, small_archive / "recipe.toml", out=finished.out)
    assert again.computed == ()
    assert set(again.reused) == set(finished.computed)
    assert checksums(finished.out) == before


def test_workers_and_blocks_do_not_change_a_byte(finished, small_archive, tmp_path):
    text = (small_archive / "recipe.toml").read_text() + "\n[run]\nblock_px = 40\n"
    recipe = small_archive / "recipe_blocks.toml"
    recipe.write_text(text)
    try:
        run_archive(small_archive, recipe, out=tmp_path / "out", workers=2, threads=1)
    finally:
        recipe.unlink()
    left, right = checksums(finished.out), checksums(tmp_path / "out")
    changed = {name for name in left | right if left.get(name) != right.get(name)}
    assert changed <= {"manifest.json", "provenance.json", "report.html"}, "only what names the block size may differ"


def test_a_tile_that_cannot_be_read_is_named_and_the_others_finish(small_archive, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(small_archive, archive)
    bad = sorted(archive.glob("19*/*/B04.tif"))[0]
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    model = tmp_path / "model"
    good = run_archive(small_archive, small_archive / "recipe.toml", out=tmp_path / "good")
    shutil.copy(good.out / "model.geococa", model)
    recipe = archive / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('samples = "samples.gpkg"', f'path = "{model}"'))
    result = run_archive(archive, recipe, out=tmp_path / "out")
    assert list(result.failed) == [bad.parent.parent.name]
    assert "B04.tif" in next(iter(result.failed.values()))
    assert len(result.computed) == 1
    # the failed tile's ground is unobserved, never zero hectares of coca out of a seen area
    assert float(result.areas.unobserved_ha.sum()) > float(good.areas.unobserved_ha.sum())
    total = result.areas.area_ha.sum("land_cover") + result.areas.unobserved_ha + result.areas.outside_ha
    np.testing.assert_allclose((total / result.areas.zone_ha).values, 1, rtol=1e-9)


def test_a_changed_scene_recomputes_its_tile_only(small_archive, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(small_archive, archive)
    first = run_archive(archive, archive / "recipe.toml", out=tmp_path / "out")
    model = tmp_path / "model"
    shutil.copy(first.out / "model.geococa", model)
    recipe = archive / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('samples = "samples.gpkg"', f'path = "{model}"'))
    run_archive(archive, recipe, out=tmp_path / "out2")
    touched = sorted(archive.glob("18*/*/B04.tif"))[0]
    shutil.copy(sorted(archive.glob("18*/*/B04.tif"))[1], touched)
    plan = plan_archive(archive, recipe, tmp_path / "out2").tasks.set_index("tile")["action"]
    assert plan[touched.parent.parent.name] == "compute"
    assert (plan.drop(touched.parent.parent.name) == "reuse").all()


def test_planning_writes_nothing(small_archive, tmp_path):
    plan = plan_archive(small_archive, small_archive / "recipe.toml", tmp_path / "out")
    assert set(plan.tasks["action"]) == {"compute"}
    assert not (tmp_path / "out").exists()


def test_every_output_is_in_the_ledger_and_verifies(finished):
    with Ledger.peek(finished.out) as ledger:
        assert set(ledger.verify()["status"]) == {"ok"}
        listed = set(ledger.outputs()["path"])
    assert set(checksums(finished.out)) == listed


def test_a_folder_of_somebody_else_is_not_written_to(small_archive, tmp_path):
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(InputRefused, match="not made by geococa"):
        run_archive(small_archive, small_archive / "recipe.toml", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_second_job_in_the_same_folder_is_turned_away(small_archive, tmp_path):
    from filelock import FileLock

    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(ArchiveBusy, match="in use by another job"):
        run_archive(small_archive, small_archive / "recipe.toml", out=out)


def test_no_machine_path_is_in_the_outputs(finished, small_archive):
    for name in ("manifest.json", "report.html", "areas.csv"):
        text = (finished.out / name).read_text(encoding="utf-8")
        assert str(small_archive) not in text
        assert str(finished.out) not in text


def test_a_tile_whose_files_are_no_rasters_is_named_and_the_others_finish(small_archive, tmp_path):
    archive = tmp_path / "archive"
    shutil.copytree(small_archive, archive)
    bad = sorted(archive.glob("19*/*/B04.tif"))[0]
    bad.write_text("<html>404 not found</html>")
    result = run_archive(archive, archive / "recipe.toml", out=tmp_path / "out")
    assert list(result.failed) == [bad.parent.parent.name]
    assert "B04.tif" in next(iter(result.failed.values()))
    assert len(result.computed) == 1
    total = result.areas.area_ha.sum("land_cover") + result.areas.unobserved_ha + result.areas.outside_ha
    np.testing.assert_allclose((total / result.areas.zone_ha).values, 1, rtol=1e-9)


def test_ground_that_only_the_neighbour_saw_counts_in_its_tile(small_archive, tmp_path, monkeypatch):
    import functools

    import rasterio
    import shapely

    from geococa import run_measures
    from geococa.footprints import footprint_of
    from geococa.polygons import polygon_area_ha
    from geococa.tiles import find_tiles

    archive = tmp_path / "archive"
    shutil.copytree(small_archive, archive)
    # the edge of a swath runs through the first tile: its eastern half was never seen
    for path in archive.glob("18*/*/*.tif"):
        with rasterio.open(path, "r+") as file:
            values = file.read()
            values[..., values.shape[-1] // 2 :] = 0
            file.write(values)
    first, second = find_tiles(archive)
    rows, columns = first.grid.shape
    blank = shapely.box(*first.grid.window(0, rows, columns // 2, columns).bounds)
    blank = geopandas.GeoSeries([blank], crs=first.grid.crs)
    other = geopandas.GeoSeries([shapely.box(*second.grid.bounds)], crs=second.grid.crs).to_crs(first.grid.crs)
    both = blank.iloc[0].intersection(other.iloc[0])
    zone = geopandas.GeoDataFrame(
        {"zone": ["seen by the second only"]}, geometry=[both.buffer(-30)], crs=first.grid.crs
    )
    zone.to_file(archive / "edge.gpkg")
    recipe = archive / "recipe.toml"
    text = recipe.read_text().replace('"parks.gpkg"', '"edge.gpkg"').replace('name = "park"', 'name = "zone"')
    recipe.write_text("\n".join(line for line in text.splitlines() if "truth" not in line))
    # patches of this small archive are below the hectares from which a gap is given away
    monkeypatch.setattr(run_measures, "footprint_of", functools.partial(footprint_of, smallest_ha=1.0))
    areas = run_archive(archive, recipe, out=tmp_path / "out").areas
    zone_ha = polygon_area_ha(zone.geometry.iloc[0], zone.crs)
    assert float(areas.zone_ha[0]) == pytest.approx(zone_ha, rel=1e-9)
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total / areas.zone_ha, 1, rtol=1e-9)
    assert zone_ha > 5
    # of three dates a year most of it is seen at least once; by the first tile it never is
    assert float(areas.unobserved_ha.sum()) < 0.3 * float(areas.zone_ha.sum()) * areas.sizes["time"]
    assert float(areas.outside_ha.max()) < 1e-6
