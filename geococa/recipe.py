"""Recipe: the settings of every stage, read from TOML and checked before any work."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from geococa.errors import RecipeError

__all__ = ["Recipe"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(_Section):
    """Which scenes are read."""

    sensor: str | None = Field(
        None, description="sensor name such as 'sentinel-2-l2a'; recognised from the files where not given"
    )
    years: tuple[int, int] | None = Field(
        None, description="first and last year, both included; all years where not given"
    )
    pattern: str | None = Field(
        None, description="glob pattern of tile folders; all recognised folders where not given"
    )


class ClearSky(_Section):
    """Which pixels count as usable."""

    buffer_m: Annotated[float, Field(ge=0, le=5000)] = Field(
        60.0, description="clouds and shadows are widened by this, metres"
    )


class Reflectance(_Section):
    """Scale and offset for products that do not carry their own."""

    scale: float | None = Field(
        None, description="reflectance per digital number; from each product's metadata where not given"
    )
    offset: float | None = Field(
        None, description="reflectance at digital number 0; from each product's metadata where not given"
    )


class Composite(_Section):
    """One image a year."""

    reducer: str = Field("median", description="median, geomedian, mean, medoid or a percentile such as p25")
    min_observations: Annotated[int, Field(ge=1)] = Field(
        1, description="pixels with fewer clear dates in a year stay unobserved"
    )


class Features(_Section):
    """What the classifier sees."""

    names: tuple[str, ...] = Field(
        ("blue", "green", "red", "nir", "swir16", "swir22", "ndvi", "ndmi", "nbr", "bsi"),
        description="bands and spectral indices of the yearly composite",
    )
    season: tuple[str, ...] = Field((), description="indices whose course within the year is summarised")
    texture: tuple[str, ...] = Field((), description="bands or indices whose local mean and spread are added")
    texture_window: Annotated[int, Field(ge=3, le=51)] = Field(
        5, description="side of the texture window in cells, odd"
    )

    @field_validator("names")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name at least one feature, each once")
        return value


class ModelSettings(_Section):
    """The classifier: a model file, or samples to train one from."""

    path: Path | None = Field(
        None, description="model file from 'geococa train'; trained from the samples where not given"
    )
    samples: Path | None = Field(None, description="reference points or polygons with a class (and year) column")
    class_column: str = Field("class", description="column of the samples that names the class")
    year_column: str = Field("year", description="column of the samples that holds the year")
    method: str = Field(
        "random_forest", description="random_forest, extra_trees, hist_gradient_boosting, gaussian, ..."
    )
    seed: int = Field(7, description="seed of everything random in training")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the method, for example n_estimators = 200"
    )


class Labels(_Section):
    """From probabilities to maps."""

    smooth_window: Annotated[int, Field(ge=1, le=51)] = Field(
        5, description="side of the smoothing window in cells, odd; 1 = none"
    )
    stabilise: bool = Field(True, description="let the years inform each other (hidden Markov model)")
    min_probability: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="pixels below it stay unclassified")
    min_area_ha: Annotated[float, Field(ge=0)] = Field(0.25, description="minimum mapping unit in hectares; 0 = none")
    connectivity: Literal[4, 8] = Field(8, description="neighbours that belong to one patch")

    @field_validator("smooth_window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the window has a centre")
        return value


class Zones(_Section):
    """For which polygons hectares are reported."""

    path: Path | None = Field(
        None, description="parks or other zones: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet"
    )
    name: str | None = Field(None, description="column that names the zones; recognised where not given")
    layer: str | None = Field(None, description="layer of the file; the only one where not given")


class Areas(_Section):
    """The hectares."""

    class_name: str = Field("coca", description="class whose hectares, trend and error are reported")
    method: str = Field("ellipsoidal", description="ellipsoidal, or planar:EPSG:32618 to reproduce planar figures")
    min_observed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="below it a park-year is marked in the report"
    )


class Assessment(_Section):
    """Reference samples for accuracy and for areas with intervals."""

    samples: Path | None = Field(None, description="probability sample with class, year and stratum columns")
    truth: Path | None = Field(
        None, description="table of true hectares (simulated archives): park, year, class, area_ha"
    )


class Trends(_Section):
    """The trend."""

    test: str = Field("auto", description="trend test; 'auto' chooses by length of the series")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of every interval")


class Report(_Section):
    """The report."""

    title: str = Field("Coca in protected areas", description="headline of the report")
    language: Literal["en", "es"] = Field("en", description="language the report opens in")


class Run(_Section):
    """How the work is cut up; results do not depend on it."""

    block_px: Annotated[int, Field(ge=16, le=8192)] = Field(512, description="side of a block in cells")


class Recipe(_Section):
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
    model: ModelSettings = ModelSettings()
    labels: Labels = Labels()
    zones: Zones = Zones()
    areas: Areas = Areas()
    assessment: Assessment = Assessment()
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
        for section, names in (
            ("model", ("path", "samples")),
            ("zones", ("path",)),
            ("assessment", ("samples", "truth")),
        ):
            part = getattr(self, section)
            update = {name: (folder / value) for name in names if (value := getattr(part, name)) is not None}
            if update:
                changes[section] = part.model_copy(update=update)
        return self.model_copy(update=changes)

    def bands_needed(self) -> list[str] | None:
        """Bands that the features of this recipe use, so that no other band is read."""
        from geococa.features import bands_of

        names = [*self.features.names, *self.features.season, *self.features.texture]
        return sorted(bands_of(names))

    def settings(self) -> dict[str, Any]:
        """Plain values of all settings, for provenance and hashing (paths as file names)."""
        values: dict[str, Any] = self.model_dump(mode="json")
        for section, names in (
            ("model", ("path", "samples")),
            ("zones", ("path",)),
            ("assessment", ("samples", "truth")),
        ):
            for name in names:
                if values[section][name] is not None:
                    values[section][name] = Path(values[section][name]).name
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
