"""What a classifier sees: spectral indices, texture, the course of an index within the year, terrain and distances."""

from __future__ import annotations

from geococa.distances import distance_features
from geococa.feature_stack import stack_features
from geococa.season import SEASON_STATISTICS, season_features
from geococa.series import series_features
from geococa.spectral_indices import bands_of, spectral_features
from geococa.terrain import TERRAIN, terrain_features
from geococa.texture import TEXTURE_STATISTICS, texture_features

__all__ = [
    "SEASON_STATISTICS",
    "TERRAIN",
    "TEXTURE_STATISTICS",
    "bands_of",
    "distance_features",
    "season_features",
    "series_features",
    "spectral_features",
    "stack_features",
    "terrain_features",
    "texture_features",
]
