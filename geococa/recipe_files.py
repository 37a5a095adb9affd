"""Files and folders that a recipe names, with their checksums: what a run needs besides its archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geococa.ledger import file_sha256, hash_of
from geococa.recipe import Recipe

__all__ = ["files_of_recipe", "recipe_files"]


def files_of_recipe(recipe: Recipe) -> dict[str, Path]:
    """Path of every setting that names a file or folder, such as ``model.samples``."""
    found: dict[str, Path | None] = {
        "model.path": recipe.model.path,
        "model.samples": recipe.model.samples,
        "sar.path": recipe.sar.path,
        "zones.path": recipe.zones.path,
        "assessment.samples": recipe.assessment.samples,
        "assessment.truth": recipe.assessment.truth,
        "report.reference": recipe.report.reference,
        "features.dem": recipe.features.dem,
    }
    found |= {f"features.distance.{name}": path for name, path in recipe.features.distance.items()}
    if recipe.scenes.sensor is not None and recipe.scenes.sensor.endswith(".toml"):
        found["scenes.sensor"] = Path(recipe.scenes.sensor)
    return {setting: path for setting, path in found.items() if path is not None}


def recipe_files(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of each file; of a folder, the hash of the names and checksums in it."""
    return {setting: {"name": path.name, "sha256": _digest(path)} for setting, path in files.items()}


def _digest(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    return hash_of({p.relative_to(path).as_posix(): file_sha256(p) for p in sorted(path.rglob("*")) if p.is_file()})
