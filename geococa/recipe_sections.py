"""Sections of a recipe: the settings of each stage, their defaults, meanings and limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from geococa.errors import InputRefused

__all__ = [
    "Account",
    "Areas",
    "Assessment",
    "Change",
    "ClearSky",
    "Composite",
    "Features",
    "Labels",
    "Layers",
    "ModelSettings",
    "Reflectance",
    "Report",
    "Run",
    "Sar",
    "Scenes",
    "Section",
    "Skill",
    "Trends",
    "Zones",
]


class Section(BaseModel):
    """Settings that can't be changed and of which none is unknown."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Scenes(Section):
    """Which scenes are read."""

    sensor: str | None = Field(
        None,
        description="sensor name such as 'sentinel-2-l2a', or a sensor.toml; recognised from the files where not given",
    )
    years: tuple[int, int] | None = Field(
        None, description="first and last year, both included; all years where not given"
    )
    pattern: str | None = Field(
        None, description="glob pattern of tile folders; all recognised folders where not given"
    )


class ClearSky(Section):
    """Which pixels count as usable."""

    buffer_m: Annotated[float, Field(ge=0, le=5000)] = Field(
        60.0, description="clouds and shadows are widened by this, metres"
    )
    haze: bool = Field(
        False,
        description="also mask thin haze and shadow that the quality band misses, by comparing the dates of a year",
    )
    min_clear_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="scenes with a smaller share of clear cells are left out and listed beside the maps; 0 = none"
    )


class Reflectance(Section):
    """Scale and offset for products that do not carry their own."""

    scale: float | None = Field(
        None, description="reflectance per digital number; from each product's metadata where not given"
    )
    offset: float | None = Field(
        None, description="reflectance at digital number 0; from each product's metadata where not given"
    )
    radiometric_check: bool = Field(
        True, description="refuse a tile whose data show a step between dates where an offset was forgotten or doubled"
    )
    harmonise: Literal["landsat-8", "sentinel-2"] | None = Field(
        None,
        description="adjust surface reflectance to the bands of this sensor, for archives of both; Sentinel-2 then gives its narrow near infrared, nir08",
    )


class Composite(Section):
    """One image a year."""

    reducer: str = Field(
        "median", description="median, geomedian, mean, medoid, max_ndvi, bap or a percentile such as p25"
    )
    min_observations: Annotated[int, Field(ge=1)] = Field(
        1, description="pixels with fewer clear dates in a year stay unobserved"
    )
    cutoff: str | None = Field(
        None,
        description="month and day, such as '12-31', that the window of a year ends with; calendar years where not given",
    )
    window_days: Annotated[int, Field(ge=1, le=3660)] | None = Field(
        None, description="days before the cut-off date within which a date counts; the year up to it where not given"
    )
    fallback_days: Annotated[int, Field(ge=0, le=3660)] = Field(
        0, description="where the window has too few clear dates, the latest of so many days before it are used"
    )
    after_days: Annotated[int, Field(ge=0, le=366)] = Field(
        0, description="dates up to so many days after the cut-off date count as well; none by default"
    )
    half_life_days: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="dates so far from the cut-off date, or 31 December, count half (median, mean, geomedian, medoid, bap); all alike where not given",
    )
    cloud_distance_m: Annotated[float, Field(gt=0, le=5000)] = Field(
        500.0, description="distance to the nearest cloud from which on bap takes a pixel for safe, metres"
    )
    scores: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="weights of the scores of bap: day, cloud and opacity, 1 where not given"
    )

    @model_validator(mode="after")
    def _fitting(self) -> Composite:
        from geococa.composites import window_of
        from geococa.reducers import reducer_named

        try:
            window_of(self.cutoff, self.window_days, self.fallback_days, self.after_days)
            bands = ["blue", "red", "nir"]
            reducer_named(self.reducer, bands, half_life_days=self.half_life_days, scores=self.scores)
        except InputRefused as error:
            raise ValueError(str(error)) from None
        return self


class Features(Section):
    """What the classifier sees."""

    names: tuple[str, ...] = Field(
        ("blue", "green", "red", "nir", "swir16", "swir22", "ndvi", "ndmi", "nbr", "bsi"),
        description="bands and spectral indices of the yearly composite",
    )
    season: tuple[str, ...] = Field((), description="indices whose course within the year is summarised")
    series: tuple[str, ...] = Field(
        (),
        description="indices whose values on regular days of the year are given, for method 'twdtw' (then with names = [])",
    )
    series_step_days: Annotated[int, Field(ge=1, le=183)] = Field(16, description="days between the values of a series")
    texture: tuple[str, ...] = Field((), description="bands or indices whose local mean and spread are added")
    texture_window: Annotated[int, Field(ge=3, le=51)] = Field(
        5, description="side of the texture window in cells, odd"
    )
    texture_statistics: tuple[str, ...] = Field(
        ("mean", "std"), description="out of mean, std, contrast, homogeneity and entropy"
    )
    season_statistics: tuple[str, ...] = Field(
        (), description="statistics of the season, see geococa.season_features; ten of them where not given"
    )
    terrain: tuple[Literal["elevation", "slope", "aspect_sin", "aspect_cos"], ...] = Field(
        (), description="height in metres, slope in degrees, and the components of the aspect, from the elevation model"
    )
    dem: Path | None = Field(None, description="elevation model for terrain: GeoTIFF of heights in metres")
    distance: dict[str, Path] = Field(
        default_factory=dict,
        description="vector layers whose distance in metres is a feature, such as { roads = 'roads.gpkg' }",
    )
    max_distance_m: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        50_000.0, description="what is farther off than this counts as so far, metres"
    )

    @field_validator("names")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("name features, each once")
        return value

    @model_validator(mode="after")
    def _something(self) -> Features:
        if not (self.names or self.season or self.series or self.texture):
            raise ValueError("name at least one feature")
        return self

    @model_validator(mode="after")
    def _ground(self) -> Features:
        if bool(self.terrain) != (self.dem is not None):
            raise ValueError(
                "terrain and dem go together: name the features, and the elevation model they are taken from"
            )
        if len(set(self.terrain)) != len(self.terrain):
            raise ValueError("name terrain features, each once")
        strange = [name for name in self.distance if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name)]
        if strange:
            raise ValueError(f"names of distance layers are lower-case words such as roads, got {strange[0]!r}")
        return self

    @model_validator(mode="after")
    def _known_statistics(self) -> Features:
        from geococa._kernels.season import STATISTICS
        from geococa.texture import TEXTURE_STATISTICS

        for what, names, known in (
            ("texture_statistics", self.texture_statistics, TEXTURE_STATISTICS),
            ("season_statistics", self.season_statistics, STATISTICS),
        ):
            if len(set(names)) != len(names) or set(names) - set(known):
                raise ValueError(f"{what} are {', '.join(known)}, each once")
        if not self.texture_statistics:
            raise ValueError("name at least one of texture_statistics")
        return self


class Sar(Section):
    """Radar backscatter beside the optical bands; features may then name vv and vh (linear power, yearly median)."""

    path: Path | None = Field(
        None, description="folder of calibrated GeoTIFFs on the tiles' grids, or of folders named like the tiles"
    )
    units: Literal["linear", "dB"] | None = Field(
        None, description="units of the numbers; from the files' own words where not given, refused where they say none"
    )
    quantity: Literal["sigma0", "gamma0"] | None = Field(
        None, description="what they were calibrated for; from the files' own words where not given"
    )


class ModelSettings(Section):
    """The classifier: a model file, or samples to train one from."""

    path: Path | None = Field(
        None,
        description="model file from 'geococa train', or an expert's rules (.toml); trained from the samples where not given",
    )
    samples: Path | None = Field(None, description="reference points or polygons with a class (and year) column")
    class_column: str = Field("class", description="column of the samples that names the class")
    year_column: str = Field("year", description="column of the samples that holds the year")
    method: str = Field(
        "random_forest",
        description="random_forest, extra_trees, hist_gradient_boosting, gaussian, ...; fraction or unmixing give area shares: "
        "labels are then the largest share, unsmoothed, and fraction_areas.csv holds hectares summed from shares",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(7, description="seed of everything random in training")
    calibration: Literal["none", "isotonic", "sigmoid"] = Field(
        "none", description="calibrate probabilities on spatial folds of the samples; a model from a file keeps its own"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the method, for example n_estimators = 200"
    )
    folds: Annotated[int, Field(ge=0, le=50)] = Field(
        0, description="spatial folds of a cross-validation, written to cross_validation.csv; 0 = none"
    )
    block_m: Annotated[float, Field(gt=0)] = Field(
        1000.0, description="side of the blocks of ground that a fold is made of, metres"
    )
    buffer_m: Annotated[float, Field(ge=0)] = Field(
        100.0, description="training samples nearer than this to a tested one are left out of a fold, metres"
    )

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        from geococa.training_methods import METHODS

        known = [*METHODS, "fraction", "unmixing"]
        if value == "rules":
            raise ValueError('rules are not trained: name their file, path = "rules.toml"')
        if value not in known:
            raise ValueError(f"known are {', '.join(known)}")
        return value


class Labels(Section):
    """From probabilities to maps."""

    smooth_window: Annotated[int, Field(ge=1, le=51)] = Field(
        5, description="side of the smoothing window in cells, odd; 1 = none"
    )
    stabilise: bool = Field(True, description="let the years inform each other (hidden Markov model)")
    transitions: Literal["auto", "model", "estimate", "persistence"] = Field(
        "auto",
        description="yearly transitions: estimate = once, on windows of the whole archive; model = those of the model, where it "
        "has none 0.9 stay; persistence = 0.9 stay; auto = estimate where the run trains its model, else model",
    )
    evidence: Annotated[float, Field(gt=0, le=20)] = Field(
        4.0, description="weight of a year against those beside it; 1 = most accurate map, more = fewer changes lost"
    )
    min_probability: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="pixels below it stay unclassified")
    min_area_ha: Annotated[float, Field(ge=0)] = Field(0.25, description="minimum mapping unit in hectares; 0 = none")
    connectivity: Literal[4, 8] = Field(8, description="neighbours that belong to one patch")
    sieve_rule: Literal["largest_neighbour", "gdal", "drop"] = Field(
        "largest_neighbour",
        description="what a patch below the minimum mapping unit becomes; gdal = as gdal_sieve ties it",
    )

    @field_validator("smooth_window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the window has a centre")
        return value


class Layers(Section):
    """Layers beside the maps that say how far to trust them, one raster a year each; none unless switched on."""

    entropy: bool = Field(
        False, description="entropy of the probabilities that decided the map, 0 = certain, 1 = nothing known"
    )
    margin: bool = Field(False, description="best minus second probability of those that decided the map")
    applicability: bool = Field(
        False,
        description="dissimilarity to the training samples, share of features outside their range, and whether the model applies",
    )


class Zones(Section):
    """For which polygons hectares are reported."""

    path: Path | None = Field(
        None, description="parks or other zones: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet"
    )
    name: str | None = Field(None, description="column that names the zones; recognised where not given")
    layer: str | None = Field(None, description="layer of the file; the only one where not given")


class Areas(Section):
    """The hectares."""

    class_name: str = Field("coca", description="class whose hectares, trend and error are reported")
    method: str = Field("ellipsoidal", description="ellipsoidal, or planar:EPSG:32618 to reproduce planar figures")
    min_observed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.7, description="below it a park-year is marked in the report"
    )


class Change(Section):
    """What changed between the years, and coca plots with their biographies; nothing unless switched on."""

    tables: bool = Field(
        False,
        description="write transitions, changes (new, stable, replanted, lost), expansion, permanence, rings and forest_loss "
        "per zone, as CSV and Parquet",
    )
    plots: bool = Field(False, description="write plots followed over the years to plots.gpkg and plots.parquet")
    years_before: Annotated[int, Field(ge=1, le=10)] = Field(
        2, description="a change lasts where the old class holds in so many years up to it"
    )
    years_after: Annotated[int, Field(ge=1, le=10)] = Field(
        2, description="and the new one in so many years from it on; else it is flicker"
    )
    ring_distances_m: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (1000.0, 5000.0, 10000.0), description="distances from a zone's edge that part its rings, metres; [] = no rings"
    )
    forest: tuple[str, ...] = Field(("forest",), description="classes whose loss near the class reported is counted")
    forest_distance_m: Annotated[float, Field(gt=0)] = Field(
        1000.0, description="forest loss so near to the class reported is associated with it, metres"
    )
    window_years: Annotated[int, Field(ge=1)] = Field(10, description="last years that permanence is told from")
    permanent_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.7, description="share of the observed years from which on ground is permanent"
    )
    intermittent_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.3, description="share of the observed years from which on ground is intermittent"
    )
    new_years: Annotated[int, Field(ge=1)] = Field(2, description="first seen in the last so many years: new")
    abandoned_years: Annotated[int, Field(ge=1)] = Field(3, description="not seen in the last so many years: abandoned")
    min_observed_years: Annotated[int, Field(ge=1)] = Field(
        3, description="ground observed in fewer years has no permanence"
    )
    plot_min_area_ha: Annotated[float, Field(ge=0)] = Field(0.0, description="smaller plots are not followed, hectares")
    plot_min_overlap: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="plots of two years that share so much of the smaller one are the same land"
    )
    plot_change_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="a plot that grows or shrinks by more is expanded or shrunk"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Change:
        if self.intermittent_share > self.permanent_share:
            raise ValueError("intermittent_share must not be above permanent_share")
        return self


class Assessment(Section):
    """Reference samples for accuracy and for areas with intervals."""

    samples: Path | None = Field(None, description="probability sample with class, year and stratum columns")
    truth: Path | None = Field(
        None, description="table of true hectares (simulated archives): park, year, class, area_ha"
    )
    composite: bool = Field(
        True,
        description="also write composite_estimates: zones with few samples lean on the map, model-based and labelled so",
    )


class Account(Section):
    """Hectares at the cut-off date, line by line: observed, age of the image, unseen. Needs rates, given or from a panel of samples."""

    planting_per_year: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="rate at which other land is planted; from assessment samples seen in several years where not given",
    )
    clearing_per_year: Annotated[float, Field(ge=0)] | None = Field(
        None, description="rate at which the class reported is given up; likewise"
    )
    planting_se: Annotated[float, Field(ge=0)] = Field(0.0, description="standard error of planting_per_year")
    clearing_se: Annotated[float, Field(ge=0)] = Field(0.0, description="standard error of clearing_per_year")
    unseen: Literal["observed_share", "none"] = Field(
        "observed_share", description="what unobserved land holds: as the observed land of its zone, or none"
    )
    unseen_relative_se: Annotated[float, Field(ge=0)] = Field(
        0.0, description="relative standard error of that assumption"
    )

    @model_validator(mode="after")
    def _both(self) -> Account:
        if (self.planting_per_year is None) != (self.clearing_per_year is None):
            raise ValueError("planting_per_year and clearing_per_year go together: give both, or neither")
        return self


class Skill(Section):
    """The cross-validated model beside last year's map, the historical mean and an index threshold; written where folds > 0."""

    index: str = Field("ndvi", description="feature that the index threshold is found for")


class Trends(Section):
    """The trend."""

    test: str = Field("auto", description="trend test; 'auto' chooses by length of the series")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of every interval")


class Report(Section):
    """The report."""

    title: str = Field("Coca in protected areas", description="headline of the report")
    language: Literal["en", "es"] = Field("en", description="language the report opens in")
    reference: Path | None = Field(
        None,
        description="CSV of published hectares to draw beside the run's own: zone ('all' = all zones together), year, area_ha, "
        "perhaps low_ha, high_ha and source",
    )


class Run(Section):
    """How the work is cut up; results do not depend on it."""

    block_px: Annotated[int, Field(ge=16, le=8192)] = Field(512, description="side of a block in cells")
