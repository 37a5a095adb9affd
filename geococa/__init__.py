"""Hectares of coca per national park and year from satellite tiles, with honest uncertainty and trend.

The pipeline, stage by stage; every function takes xarray (or a GeoDataFrame) and returns a new one::

    scenes = open_tile("sample_tiles/18NXG")                      # digital numbers and quality bands
    clear = clear_sky(scenes, buffer_m=60)                        # True = usable
    reflectance = to_reflectance(scenes, where=clear)             # float32, NaN = not observed
    annual = composite(reflectance, reducer="geomedian")          # one image a year
    features = spectral_features(annual, ["ndvi", "ndmi", "nbr"])
    model = train(read_samples("sample_tiles/samples.gpkg"), features)
    probability = stabilise(smooth(classify(features, model)))    # neighbours and years inform each other
    land_cover = sieve(label(probability), min_area_ha=0.25)      # uint8, 255 = not observed
    share = coverage_fraction(read_zones("sample_tiles/parks.gpkg"), Grid.from_xarray(land_cover))
    areas = zonal_area(land_cover, share)                         # ellipsoidal hectares
    trends = area_trend(areas.area_ha.sel(land_cover="coca"))
    write_report(areas, trends, "out/report.html")

`run_archive` does the same for an archive of tiles and years. Names load on first use, so importing geococa is cheap.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

# Public names in pipeline order, by the module that holds them.
_PUBLIC: dict[str, tuple[str, ...]] = {
    "grid": ("Grid",),
    "legend": ("Legend", "as_land_cover"),
    "sensors": ("Sensor", "get_sensor"),
    "stac_search": ("search_stac",),
    "tiles": ("TileRef", "find_tiles", "open_tile", "read_raster", "write_cog"),
    "radiometry": ("check_radiometry",),
    "scene_statistics": ("drop_useless_scenes", "mask_statistics"),
    "reflectance": ("clear_sky", "composite", "to_reflectance"),
    "harmonisation": ("harmonise",),
    "backscatter": ("read_backscatter",),
    "cubes": ("as_scenes",),
    "cube_files": ("read_cube", "write_cube"),
    "vectors": ("exactextract_table", "write_vector"),
    "styles": ("write_qml",),
    "features": (
        "distance_features",
        "season_features",
        "series_features",
        "spectral_features",
        "stack_features",
        "terrain_features",
        "texture_features",
    ),
    "extraction": ("extract_samples",),
    "samples": ("balance", "prior_weights", "read_samples", "spatial_folds", "split_samples", "training_table"),
    "negatives": ("local_negatives",),
    "fractions": ("as_fraction", "fraction_table", "mixture_table"),
    "models": ("Model", "read_model", "train"),
    "calibration": ("calibrate", "reliability"),
    "validation": ("cross_validate",),
    "importance": ("permutation_importance",),
    "tuning": ("tune",),
    "classification": ("classify",),
    "area_of_applicability": ("applicability",),
    "probability_layers": ("uncertainty",),
    "labels": (
        "estimate_transitions",
        "label",
        "majority",
        "persistence_matrix",
        "sieve",
        "sieve_strips",
        "smooth",
        "stabilise",
    ),
    "coca_plots": ("follow_plots", "merge_plots", "trace_plots"),
    "zones": (
        "Coverage",
        "assign_parents",
        "buffer_rings",
        "coverage_fraction",
        "dense_fractions",
        "own_tiles",
        "polygon_area_ha",
        "read_zones",
        "roll_up",
        "valid_footprint",
    ),
    "areas": (
        "areas_table",
        "merge_areas",
        "observed_share",
        "require_observed",
        "zonal_area",
        "zonal_statistics",
        "zone_overlaps",
    ),
    "change": (
        "associated_forest_loss",
        "concentration",
        "density_grid",
        "enclaves",
        "expansion_rate",
        "new_and_abandoned",
        "persistence",
        "ring_table",
        "sustained_change",
        "transitions",
    ),
    "accuracy": ("adjusted_area", "domain_area", "error_matrix", "sample_design"),
    "response_sheets": ("write_response_sheet",),
    "interpretations": ("agreement", "arbitrate", "read_interpretation"),
    "panel_estimates": ("change_area", "panel_area"),
    "area_frames": ("draw_segments", "frame_area", "segment_frame"),
    "small_areas": ("composite_area",),
    "cutoff": ("cutoff_area", "hazards_from_panel"),
    "skill": ("skill_table",),
    "trends": ("area_trend", "break_points"),
    "report": ("write_report",),
    "recipe": ("Recipe",),
    "pipeline": ("run_tile",),
    "archive": ("plan_archive", "run_archive"),
}
_MODULES = ("errors", "figures", "publish", "reference", "synthetic")
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*_HOME, *_MODULES, "__version__"]


def _register() -> None:
    """Give xarray objects their ``.geococa``; where xarray is not imported yet, at the first use of a public name."""
    importlib.import_module("geococa.accessor")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        _register()
        value = getattr(importlib.import_module(f"geococa.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"geococa.{name}")
    raise AttributeError(f"module 'geococa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


if "xarray" in sys.modules:
    _register()
