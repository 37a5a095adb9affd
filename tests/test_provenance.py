"""From an input file to a table cell and back: flipped bits name their cells, and a manifest gives the same bytes."""

from __future__ import annotations

import itertools
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import rasterio
from click.testing import CliRunner

from geococa import Recipe, find_tiles, run_archive
from geococa.archive import train_model
from geococa.cli import main
from geococa.errors import InputRefused
from geococa.provenance import read_provenance, years_of_scene
from geococa.synthetic import landscape, write_archive
from geococa.verification import recipe_of_manifest, verify_run

FIXED = {"zone", "year", "image_age_days"}


def recipe_for(archive, model, *, stabilise):
    base = Recipe.read(archive / "recipe.toml")
    return base.model_copy(
        update={
            "model": base.model.model_copy(update={"path": model, "samples": None}),
            "labels": base.labels.model_copy(update={"stabilise": stabilise, "transitions": "persistence"}),
            "assessment": base.assessment.model_copy(update={"samples": None}),
            # a scene that is all too strange would be refused with its whole tile
            "reflectance": base.reflectance.model_copy(update={"radiometric_check": False}),
        }
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory, sample_tiles):
    """Two tiles of one lattice that overlap, and a model that is not made from them."""
    root = tmp_path_factory.mktemp("chain")
    scene = landscape(size_m=1000, tiles=2, years=range(2021, 2023), dates_per_year=2, cloud_cover=0.2, seed=5)
    write_archive(scene, root / "archive")
    text = (sample_tiles / "recipe.toml").read_text(encoding="utf-8")
    (root / "archive" / "recipe.toml").write_text(
        text.replace("seed = 7\n", "seed = 7\noptions = { n_estimators = 5 }\n", 1), encoding="utf-8"
    )
    recipe = Recipe.read(root / "archive" / "recipe.toml")
    train_model(root / "archive", recipe).write(root / "model.geococa")
    return root / "archive"


@pytest.fixture(scope="module")
def run(archive, tmp_path_factory):
    """The finished run, years apart."""
    recipe = recipe_for(archive, archive.parent / "model.geococa", stabilise=False)
    out = tmp_path_factory.mktemp("out") / "out"
    assert not run_archive(archive, recipe, out=out).failed
    return out


def flip(path, *, at=0.7):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def changed_cells(before, after):
    """Cells (table, row, column) of the CSV tables of two runs that differ."""
    cells = set()
    for path in sorted(before.glob("*.csv")):
        one, two = pd.read_csv(path), pd.read_csv(after / path.name)
        assert list(one.columns) == list(two.columns)
        if len(one) != len(two):
            # other rows altogether: each row of before that has no equal is a cell that changed
            kept = set(map(tuple, two.round(6).astype(str).to_numpy()))
            lost = [row for row, values in enumerate(one.round(6).astype(str).to_numpy()) if tuple(values) not in kept]
            cells |= {(path.stem, row, column) for row in lost for column in one.columns if column not in FIXED}
            continue
        for column in one.columns:
            same = (one[column] == two[column]) | (one[column].isna() & two[column].isna())
            if one[column].dtype.kind == "f":
                # another line between two owners rounds the sums of a whole tile anew, in their last digits
                same |= np.isclose(one[column].astype(float), two[column].astype(float), rtol=1e-9, atol=1e-9)
            cells |= {(path.stem, int(row), column) for row in np.flatnonzero(~same)}
    return cells


def named_cells(found):
    return {(c.table, c.row, column) for c in found.cells.itertuples() for column in c.columns}


def zone_years(cells, run):
    table = pd.read_csv(run / "areas.csv")
    return {tuple(table.loc[row, ["zone", "year"]]) for name, row, _ in cells if name == "areas"}


def test_a_finished_run_verifies_to_the_last_number(archive, run):
    found = verify_run(run, archive=archive)
    assert found.ok, (found.problems, found.numbers)
    assert {"areas.csv", "trends.csv", "report.html"} <= {
        text.split("(")[-1].rstrip(")") for text in found.numbers["what"]
    }
    assert set(found.numbers["status"]) == {"same"}
    assert set(found.inputs["status"]) == {"ok"}
    # bands that no feature uses are no inputs
    assert not found.inputs["path"].str.contains("B01").any()


@pytest.mark.parametrize("stabilise", [False, True])
def test_a_flipped_bit_names_the_cells_that_depend_on_its_tile_and_year_and_no_others(
    archive, run, tmp_path, stabilise
):
    """What truly depends is found by making the scene all sorts of things and running again."""
    before = run
    recipe = recipe_for(archive, archive.parent / "model.geococa", stabilise=stabilise)
    if stabilise:
        before = tmp_path / "before"
        assert not run_archive(archive, recipe, out=before).failed
    tile = find_tiles(archive)[0]
    scene = next(scene for scene in tile.scenes if scene.datetime.year == 2021)
    damaged = tmp_path / "damaged"
    shutil.copytree(archive, damaged)
    folder = damaged / tile.tile / scene.id
    band = next(folder.rglob("*B08*"))
    flip(band)
    found = verify_run(before, archive=damaged, rebuild=False)
    assert not found.ok
    bad = found.inputs[found.inputs["status"] == "changed"]
    assert set(bad["path"]) == {band.relative_to(damaged / tile.tile).as_posix()}
    named = named_cells(found)

    depend = set()
    for kind in ("clear", "cloud"):
        shutil.rmtree(folder)
        shutil.copytree(archive / tile.tile / scene.id, folder)
        disturb(folder, kind)
        after = tmp_path / kind
        shutil.copytree(before, after)
        assert not run_archive(damaged, recipe, out=after).failed
        depend |= changed_cells(before, after)
    assert depend, "the disturbance changed nothing"
    assert depend <= named, sorted(depend - named)[:5]
    entry = read_provenance(before)["tiles"][tile.tile]
    own, found_years = zone_years(depend, before), zone_years(named, before)
    # in a zone that another tile holds too, one pixel could move a place to that tile in all years
    assert {pair for pair in found_years - own if pair[0] not in entry["shared_zones"]} == set()
    years = {year for zone, year in found_years if zone not in entry["shared_zones"]}
    assert years == ({2021, 2022} if stabilise else {2021})
    assert {zone for zone, _ in own} == set(entry["zones"])
    everything = pd.read_csv(before / "areas.csv")
    assert len(zone_years(named, before)) < len(everything.drop_duplicates(["zone", "year"]))


def disturb(folder, kind):
    """Replace the pixels of a scene."""
    for path in folder.rglob("*.tif"):
        with rasterio.open(path) as file:
            data, profile, tags = file.read(), file.profile, file.tags()
        scl = "SCL" in path.name
        if scl:
            data[:] = 9 if kind == "cloud" else 4
        elif kind == "clear":
            data[data > 0] = np.minimum(data[data > 0].astype(np.int64) * 2 + np.arange((data > 0).sum()) % 997, 15000)
        else:
            continue
        with rasterio.open(path, "w", **profile) as file:
            file.write(data)
            file.update_tags(**tags)


def test_a_model_trained_in_the_run_hands_a_flipped_bit_to_every_row(archive, tmp_path):
    out = tmp_path / "out"
    run_archive(archive, archive / "recipe.toml", out=out)
    damaged = tmp_path / "damaged"
    shutil.copytree(archive, damaged)
    tile = find_tiles(damaged)[0]
    flip(next((damaged / tile.tile / tile.scenes[0].id).rglob("*B08*")))
    found = verify_run(out, archive=damaged, rebuild=False)
    areas = found.cells[found.cells["table"] == "areas"]
    assert len(areas) == len(pd.read_csv(out / "areas.csv"))
    assert {"accuracy", "trends", "zone_estimates"} <= set(found.cells["table"])


def test_a_changed_table_breaks_the_chain_and_is_not_what_the_maps_give(run, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(run, out)
    table = pd.read_csv(out / "areas.csv")
    row = table["area_ha"].idxmax()
    table.loc[row, "area_ha"] += 0.01
    table.to_csv(out / "areas.csv", index=False)
    found = verify_run(out)
    assert not found.ok
    assert any("chain of hashes does not hold" in text for text in found.problems)
    assert dict(found.files.values)["areas.csv"] == "changed"
    wrong = found.numbers[found.numbers["status"] == "differs"]["what"].tolist()
    assert "hectares from the maps (areas.csv)" in wrong
    assert "trends (trends.csv)" not in wrong


def test_a_map_and_its_ledger_row_swapped_together_still_break_the_chain(run, tmp_path):
    """Somebody who also rewrites the ledger must rewrite the chain up to its root."""
    import sqlite3

    from geococa.ledger import file_sha256

    out = tmp_path / "out"
    shutil.copytree(run, out)
    first, second = sorted((out / "maps").glob("*_land_cover.tif"))[:2]
    shutil.copyfile(second, first)
    with sqlite3.connect(out / "ledger.sqlite") as ledger:
        ledger.execute(
            "UPDATE output SET sha256=?, bytes=? WHERE path=?",
            (file_sha256(first), first.stat().st_size, f"maps/{first.name}"),
        )
    found = verify_run(out)
    assert set(found.files["status"]) == {"ok"}
    assert any(first.name in text for text in found.problems)
    assert (found.numbers["status"] == "differs").any()


def test_years_of_a_scene_follow_the_window(archive):
    scene = next(s for s in find_tiles(archive)[0].scenes if s.datetime.year == 2021)
    moment = scene.datetime.replace(month=2, day=1)
    plain = Recipe(labels={"stabilise": False})
    assert years_of_scene(moment, plain, [2020, 2021, 2022]) == [2021]
    assert years_of_scene(moment, plain, [2019]) == []
    windowed = Recipe(composite={"cutoff": "12-31", "fallback_days": 400}, labels={"stabilise": False})
    assert years_of_scene(moment, windowed, [2020, 2021, 2022]) == [2021, 2022]
    late = Recipe(composite={"cutoff": "12-31", "after_days": 60}, labels={"stabilise": False})
    assert years_of_scene(moment, late, [2020, 2021, 2022]) == [2020, 2021]
    assert years_of_scene(moment, Recipe(), [2020, 2021, 2022]) == [2020, 2021, 2022]


def test_a_run_repeated_from_its_manifest_has_the_same_bytes(archive, tmp_path):
    out = tmp_path / "out"
    run_archive(archive, archive / "recipe.toml", out=out)
    again = tmp_path / "again"
    done = CliRunner().invoke(main, ["repeat", str(out / "manifest.json"), str(archive), "--out", str(again)])
    assert done.exit_code == 0, done.stderr
    count = len(read_provenance(out)["outputs"])
    assert "have the same bytes" in done.stderr
    for path in itertools.chain(out.glob("*.csv"), out.glob("*.json"), out.glob("*.html"), out.glob("maps/*.tif")):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes(), path.name
    assert count > 5


def test_a_manifest_whose_files_have_changed_is_refused_by_name(archive, run, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for path in archive.glob("*.*"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(archive.parent / "model.geococa", folder / "model.geococa")
    assert recipe_of_manifest(run / "manifest.json", [folder]).zones.path == (folder / "parks.gpkg").resolve()
    flip(folder / "parks.gpkg")
    with pytest.raises(InputRefused, match=r"parks\.gpkg .*other contents"):
        recipe_of_manifest(run / "manifest.json", [folder])
    (folder / "parks.gpkg").unlink()
    with pytest.raises(InputRefused, match="is in none of"):
        recipe_of_manifest(run / "manifest.json", [folder])


def test_the_command_names_inputs_and_cells(archive, run, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(archive, damaged)
    tile = find_tiles(damaged)[0]
    band = next((damaged / tile.tile / tile.scenes[0].id).rglob("*SCL*"))
    band.unlink()
    call = CliRunner()
    done = call.invoke(main, ["verify", str(run), "--archive", str(damaged), "--quick"])
    assert done.exit_code == 4
    assert "missing" in done.stdout
    assert "Table cells computed from them" in done.stdout
    found = json.loads(call.invoke(main, ["verify", str(run), "--archive", str(damaged), "--quick", "--json"]).stdout)
    assert found["ok"] is False
    assert {cell["table"] for cell in found["cells"]} >= {"areas", "trends"}
    done = call.invoke(main, ["verify", str(run), "--archive", str(archive), "--quick"])
    assert done.exit_code == 0, done.stdout
