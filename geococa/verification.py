"""A finished run checked again: its files, its inputs, the chain between them, and its numbers rebuilt from its maps."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from geococa.areas import areas_table
from geococa.errors import InputRefused
from geococa.input_records import check_inputs
from geococa.ledger import Ledger, file_sha256
from geococa.models import read_model
from geococa.outputs import rewrite_report
from geococa.provenance import grid_of, link_digests, read_provenance, touched_rows
from geococa.recipe import Recipe
from geococa.recipe_files import recipe_files
from geococa.run_folder import read_manifest
from geococa.run_job import RunJob, no_progress
from geococa.run_measures import measure_run
from geococa.tiles import TileRef
from geococa.trends import area_trend

if TYPE_CHECKING:
    pass

__all__ = ["Verification", "findings", "recipe_of_manifest", "same_outputs", "verify_run"]


@dataclass
class Verification:
    """What was found.

    Attributes
    ----------
    files : pandas.DataFrame
        ``path, status`` of every output: ``ok``, ``missing`` or ``changed`` against the ledger.
    inputs : pandas.DataFrame or None
        ``tile, scene, datetime, path, status`` of every file that was read, where the archive was given; remote ones are
        ``unverified``.
    cells : pandas.DataFrame
        ``table, row, zone, year, land_cover, columns, because``: cells computed from inputs that changed or are missing.
    numbers : pandas.DataFrame
        ``what, status`` of what was computed again: ``same`` or ``differs``.
    root : str
        Hash of the whole chain.
    """

    files: pd.DataFrame
    inputs: pd.DataFrame | None
    cells: pd.DataFrame
    numbers: pd.DataFrame
    root: str
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as it was."""
        same = (self.files["status"] == "ok").all() and (self.numbers["status"] == "same").all()
        bad = self.inputs is not None and self.inputs["status"].isin(["changed", "missing"]).any()
        return bool(same and not bad and not self.problems)

    def summary(self) -> str:
        """What was checked, in a few words."""
        good = int((self.files["status"] == "ok").sum())
        parts = [f"{good} of {len(self.files)} files as recorded"]
        if self.inputs is not None:
            files = self.inputs.drop_duplicates(["tile", "path"])
            counts = files["status"].value_counts()
            parts.append(f"{counts.get('ok', 0)} of {len(files)} inputs as they were")
            if counts.get("unverified", 0):
                parts.append(f"{counts['unverified']} remote inputs unverified")
        if len(self.numbers):
            same = int((self.numbers["status"] == "same").sum())
            parts.append(f"{same} of {len(self.numbers)} results the same when made again")
        if self.root:
            parts.append(f"chain {self.root[:16]}")
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """All findings as plain values."""

        def plain(table: pd.DataFrame | None) -> Any:
            return None if table is None else json.loads(table.to_json(orient="records"))

        return {
            "ok": self.ok,
            "files": plain(self.files),
            "inputs": plain(self.inputs),
            "cells": plain(self.cells),
            "numbers": plain(self.numbers),
            "root": self.root,
            "problems": self.problems,
        }


def findings(found: Verification) -> list[tuple[str, pd.DataFrame]]:
    """Tables of what is not as it was, each with a title; nothing where all is well."""
    parts = [
        ("Outputs that changed", found.files[found.files["status"] != "ok"]),
        ("Results that differ when made again", found.numbers[found.numbers["status"] != "same"]),
    ]
    if found.inputs is not None:
        bad = found.inputs[found.inputs["status"].isin(["changed", "missing"])]
        parts.insert(1, ("Inputs that changed", bad[["tile", "scene", "path", "status"]]))
    if len(found.cells):
        cells = found.cells.assign(columns=[" ".join(names) for names in found.cells["columns"]])
        parts.append(("Table cells computed from them", cells.astype(object).where(cells.notna(), "")))
    return [(title, table) for title, table in parts if len(table)]


def verify_run(folder: Path, *, archive: Path | None = None, rebuild: bool = True) -> Verification:
    """Check a finished run again.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.
    archive : pathlib.Path, optional
        Its archive, to check the inputs as well.
    rebuild : bool
        Whether to measure the maps again and rebuild tables and report from them.

    Returns
    -------
    Verification

    Raises
    ------
    InputRefused
        The folder is not that of a finished run.
    """
    with Ledger.peek(folder) as ledger:
        files = ledger.verify()
    if archive is not None and not archive.exists():
        raise InputRefused(f"{archive} does not exist; give the archive that the run was made from")
    problems: list[str] = []
    if not (folder / "provenance.json").is_file():
        nothing = pd.DataFrame(columns=["what", "status"])
        if archive is not None:
            problems.append("the run has no provenance.json, so its inputs can't be checked; run the archive again")
        return Verification(files, None, _cells([]), nothing, "", problems)
    chain = read_provenance(folder)
    recipe = Recipe.model_validate(read_manifest(folder)["recipe"])
    root = str(chain["digests"]["root"])
    if link_digests(folder, chain) != chain["digests"]:
        problems.append("the chain of hashes does not hold: a table or provenance.json was changed after the run")
    problems += _broken_links(folder, chain)
    inputs, touched = None, []
    if archive is not None:
        rows = list(_input_rows(folder, chain, archive))
        inputs = pd.DataFrame(rows, columns=["tile", "scene", "datetime", "path", "status"])
        touched = list(_touched(folder, chain, recipe, inputs))
    numbers = pd.DataFrame(_numbers(folder, chain, recipe) if rebuild else [], columns=["what", "status"])
    return Verification(files, inputs, _cells(touched), numbers, root, problems)


def _cells(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["table", "row", "zone", "year", "land_cover", "columns", "because"])


def _broken_links(folder: Path, chain: dict[str, Any]) -> list[str]:
    """Files that the chain names and that are not as it says."""
    found = dict(chain["outputs"])
    for tile, entry in chain["tiles"].items():
        found |= {f"maps/{name}": digest for maps in entry["maps"].values() for name, digest in maps.items()}
        found |= {f"areas/{name}": digest for name, digest in entry["areas"].items()}
        if entry["inputs"]:
            found[f"inputs/{tile}.json"] = entry["inputs"]
    return [
        f"{name} is {'not what the chain of hashes says' if (folder / name).is_file() else 'missing'}"
        for name, digest in sorted(found.items())
        if not (folder / name).is_file() or file_sha256(folder / name) != digest
    ]


def _input_rows(folder: Path, chain: dict[str, Any], archive: Path) -> Iterator[tuple[str, str, str, str, str]]:
    for tile, entry in chain["tiles"].items():
        path = folder / "inputs" / f"{tile}.json"
        if not entry["inputs"] or not path.is_file():
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        for scene, moment, name, status in check_inputs(record, archive):
            yield tile, scene, moment, name, status


def _touched(folder: Path, chain: dict[str, Any], recipe: Recipe, inputs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    bad = inputs[inputs["status"].isin(["changed", "missing"])]
    seen: set[tuple[str, int]] = set()
    for entry in bad.itertuples(index=False):
        moment = datetime.fromisoformat(str(entry.datetime))
        for row in touched_rows(folder, chain, recipe, str(entry.tile), moment):
            if (row["table"], row["row"]) not in seen:
                seen.add((row["table"], row["row"]))
                yield row | {"because": f"{entry.tile}/{entry.path}"}


# --- numbers again ----------------------------------------------------------------------------------


def _numbers(folder: Path, chain: dict[str, Any], recipe: Recipe) -> list[tuple[str, str]]:
    """Measure the maps of a run again, in a folder of its own, and hold tables and report against what the run wrote."""
    import geopandas

    zones = geopandas.read_parquet(folder / "zones.parquet")
    manifest = read_manifest(folder)
    found: list[tuple[str, str]] = []

    def compare(what: str, text: str, path: Path) -> None:
        same = path.is_file() and path.read_text(encoding="utf-8") == text
        found.append((what, "same" if same else "differs"))

    with tempfile.TemporaryDirectory(prefix="geococa-verify-") as scratch:
        job = _job(folder, Path(scratch), chain, recipe, sorted(manifest["failed"]))
        try:
            with Ledger.open(job.folder) as ledger:
                measures = measure_run(job, ledger, zones, read_model(job.model_path), dict(manifest["failed"]))
        except (InputRefused, OSError) as error:
            return [(f"maps can't be measured: {error}", "differs")]
        compare(
            "hectares from the maps (areas.csv)", areas_table(measures.areas).to_csv(index=False), folder / "areas.csv"
        )
        compare("dates behind them (image_ages.csv)", measures.ages.to_csv(index=False), folder / "image_ages.csv")
        if measures.fractions is not None:
            text = areas_table(measures.fractions).to_csv(index=False)
            compare("hectares from fractions (fraction_areas.csv)", text, folder / "fraction_areas.csv")
        for name, table in (measures.change or {}).items():
            compare(f"change ({name}.csv)", table.to_csv(index=False), folder / f"{name}.csv")
        series = measures.areas["area_ha"].sel(land_cover=recipe.areas.class_name)
        trends = area_trend(series, test=recipe.trends.test, confidence=recipe.trends.confidence)
        compare("trends (trends.csv)", trends.to_csv(index=False), folder / "trends.csv")
        if (folder / "report.html").is_file():
            written = rewrite_report(folder, Path(scratch) / "report.html", language=recipe.report.language)
            compare("report from the tables (report.html)", written.read_text(encoding="utf-8"), folder / "report.html")
    return found


def _job(folder: Path, scratch: Path, chain: dict[str, Any], recipe: Recipe, failed: Sequence[str]) -> RunJob:
    """Job that measures the maps of a run anew: its grids come from its provenance, so that no archive is needed."""
    for name in ("maps", "model.geococa"):
        if (folder / name).exists():
            (scratch / name).symlink_to((folder / name).resolve())
    settings = recipe.model_copy(
        update={
            "zones": recipe.zones.model_copy(update={"path": folder / "zones.parquet", "layer": None}),
            "model": recipe.model.model_copy(update={"path": folder / "model.geococa"}),
            "change": recipe.change.model_copy(update={"plots": False}),
        }
    )
    tiles = tuple(
        TileRef(tile, str(folder / "maps"), recipe.scenes.sensor or "unknown", grid_of(entry), ())
        for tile, entry in sorted(chain["tiles"].items())
    )
    refused = dict.fromkeys(failed, "")
    return replace(_EMPTY, recipe=settings, folder=scratch, tiles=tiles, refused=refused, years=tuple(chain["years"]))


_EMPTY = RunJob(Path(), Recipe(), Path(), (), {}, (), threads=1, progress=no_progress)


# --- run again --------------------------------------------------------------------------------------


def recipe_of_manifest(manifest: Path, folders: Sequence[Path]) -> Recipe:
    """Recipe of a finished run, with its files found again by name and checksum.

    Parameters
    ----------
    manifest : pathlib.Path
        ``manifest.json`` of the run.
    folders : sequence of pathlib.Path
        Where its samples, zones and other files may lie, first to last.

    Raises
    ------
    InputRefused
        A file is not there, or has other contents than it had.
    """
    if not manifest.is_file():
        raise InputRefused(f"no manifest at {manifest}; name the manifest.json in the output folder of a finished run")
    found: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    settings, files = found.get("recipe"), found.get("recipe_files")
    if not isinstance(settings, dict) or not isinstance(files, dict):
        raise InputRefused(
            f"{manifest} is no manifest that a run can be repeated from; it lacks recipe or recipe_files"
        )
    for setting, entry in files.items():
        path = _find(setting, entry, folders)
        *sections, name = setting.split(".")
        target = settings
        for section in sections:
            target = target[section]
        target[name] = str(path)
    return Recipe.model_validate(settings)


def _find(setting: str, entry: dict[str, str], folders: Sequence[Path]) -> Path:
    there = [folder / entry["name"] for folder in folders if (folder / entry["name"]).exists()]
    for path in there:
        if recipe_files({setting: path})[setting]["sha256"] == entry["sha256"]:
            return path.resolve()
    looked = ", ".join(str(folder) for folder in folders)
    if there:
        raise InputRefused(
            f"{there[0]} ({setting}) has other contents than in the run to repeat; expected SHA-256 {entry['sha256']}"
        )
    raise InputRefused(
        f"{entry['name']} ({setting}) is in none of {looked}; put it there, it was part of the run to repeat"
    )


def same_outputs(first: Path, second: Path) -> pd.DataFrame:
    """Hold the outputs of two runs against each other: ``path, status`` (same, differs, only in one)."""
    chains = [read_provenance(folder) for folder in (first, second)]
    files = []
    for chain in chains:
        maps = [entry["maps"].values() for entry in chain["tiles"].values()]
        flat = {f"maps/{name}": digest for years in maps for part in years for name, digest in part.items()}
        files.append({**chain["outputs"], **flat})
    names = sorted(set(files[0]) | set(files[1]))
    status = [
        "same"
        if files[0].get(n) == files[1].get(n)
        else "differs"
        if n in files[0] and n in files[1]
        else "only in one"
        for n in names
    ]
    return pd.DataFrame({"path": names, "status": status})
