"""Recipe: the settings of every stage, read from TOML and checked before any work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PrivateAttr, ValidationError

from geococa.errors import RecipeError
from geococa.recipe_sections import (
    Account,
    Areas,
    Assessment,
    Change,
    ClearSky,
    Composite,
    Features,
    Labels,
    Layers,
    ModelSettings,
    Reflectance,
    Report,
    Run,
    Sar,
    Scenes,
    Section,
    Skill,
    Trends,
    Zones,
)

__all__ = ["Recipe"]

_FILES = (
    ("model", ("path", "samples")),
    ("sar", ("path",)),
    ("zones", ("path",)),
    ("assessment", ("samples", "truth")),
    ("report", ("reference",)),
)
"""Settings that name a file or folder, by section; those of features and the sensor are seen to apart."""


class Recipe(Section):
    """Settings of every stage of the pipeline.

    Examples
    --------
    >>> Recipe(composite={"reducer": "geomedian"}).composite.reducer
    'geomedian'
    """

    scenes: Scenes = Scenes()
    clear_sky: ClearSky = ClearSky()
    reflectance: Reflectance = Reflectance()
    composite: Composite = Composite()
    features: Features = Features()
    sar: Sar = Sar()
    model: ModelSettings = ModelSettings()
    labels: Labels = Labels()
    layers: Layers = Layers()
    zones: Zones = Zones()
    areas: Areas = Areas()
    change: Change = Change()
    assessment: Assessment = Assessment()
    account: Account = Account()
    skill: Skill = Skill()
    trends: Trends = Trends()
    report: Report = Report()
    run: Run = Run()

    _source: Path | None = PrivateAttr(None)

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe; relative paths in it are taken from the recipe's folder.

        Raises
        ------
        RecipeError
            The file is missing, not TOML, or holds an unknown or impossible setting; the message lists all of them.
        """
        source = Path(path)
        try:
            settings = tomllib.loads(source.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(
                f"no recipe at {source}; write one with 'geococa init ARCHIVE --recipe {source}'"
            ) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RecipeError(f"{source} is not a readable TOML recipe: {error}") from None
        try:
            recipe = cls.model_validate(settings)
        except ValidationError as error:
            raise RecipeError(f"{source} is not a valid recipe:\n" + _explain(error)) from None
        return recipe.resolved(source.parent)

    def resolved(self, folder: Path) -> Recipe:
        """Return the recipe with relative paths taken from ``folder``."""
        changes: dict[str, Any] = {}
        for section, names in _FILES:
            part = getattr(self, section)
            update = {name: (folder / value) for name in names if (value := getattr(part, name)) is not None}
            if update:
                changes[section] = part.model_copy(update=update)
        if self.features.dem is not None or self.features.distance:
            layers = {name: folder / path for name, path in self.features.distance.items()}
            dem = None if self.features.dem is None else folder / self.features.dem
            changes["features"] = self.features.model_copy(update={"dem": dem, "distance": layers})
        if self.scenes.sensor is not None and self.scenes.sensor.endswith(".toml"):
            changes["scenes"] = self.scenes.model_copy(update={"sensor": str(folder / self.scenes.sensor)})
        return self.model_copy(update=changes)

    def bands_needed(self) -> list[str] | None:
        """Bands that the features of this recipe use, so that no other band is read."""
        from geococa.features import bands_of

        names = [
            *self.features.names,
            *self.features.season,
            *self.features.series,
            *self.features.texture,
        ]
        # what chooses the date of a pixel must be read even if no feature shows it
        if self.composite.reducer == "max_ndvi":
            names += ["red", "nir"]
        elif self.composite.reducer == "bap" and self.composite.scores.get("opacity", 1.0) > 0:
            names += ["blue", "red"]
        if self.clear_sky.haze:
            names += ["blue", "red", "nir", "swir16"]
        bands = bands_of(names)
        if self.sar.path is not None:
            bands -= {"vv", "vh"}
        # the broad near infrared of Sentinel-2 has no counterpart on Landsat
        return sorted({"nir08" if name == "nir" else name for name in bands} if self.reflectance.harmonise else bands)

    def settings(self) -> dict[str, Any]:
        """Plain values of all settings, for provenance and hashing (paths as file names)."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for section, names in _FILES:
            for name in names:
                if values[section][name] is not None:
                    values[section][name] = Path(values[section][name]).name
        if self.features.dem is not None:
            values["features"]["dem"] = self.features.dem.name
        values["features"]["distance"] = {name: path.name for name, path in self.features.distance.items()}
        if self.scenes.sensor is not None and self.scenes.sensor.endswith(".toml"):
            values["scenes"]["sensor"] = Path(self.scenes.sensor).name
        return values


def _explain(error: ValidationError) -> str:
    """One line a fault: the setting, what was found, what is allowed."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(f"  {where}: no such setting{_suggest(fault['loc'])}")
        else:
            lines.append(f"  {where} = {fault['input']!r}: {fault['msg']}")
    return "\n".join(lines)


def _suggest(location: tuple[int | str, ...]) -> str:
    """Name the nearest known setting."""
    import difflib

    known: type[BaseModel] = Recipe
    for part in location[:-1]:
        field = known.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        known = annotation
    names = list(known.model_fields)
    near = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(names)}"


def describe() -> str:
    """Markdown reference of every setting, its default and meaning (``docs/recipe.md`` is this text)."""
    lines = [
        "# Recipe reference",
        "",
        "A recipe is a TOML file. Every section and setting may be left out; then the default holds. Paths are taken from the",
        "recipe's folder. `geococa init ARCHIVE --recipe R.toml` writes one for an archive, `geococa check` tests it.",
    ]
    for section, field in Recipe.model_fields.items():
        part = field.annotation
        assert isinstance(part, type)
        assert issubclass(part, BaseModel)
        lines += [
            "",
            f"## [{section}]",
            "",
            (part.__doc__ or "").strip(),
            "",
            "| setting | default | meaning |",
            "|---|---|---|",
        ]
        for name, setting in part.model_fields.items():
            default = setting.get_default(call_default_factory=True)
            shown = "not set" if default is None else _toml(default)
            lines.append(f"| `{name}` | `{shown}` | {setting.description} |")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value == {} else str(value)
