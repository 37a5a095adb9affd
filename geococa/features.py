"""What a classifier sees: spectral indices, texture, and the course of an index within the year."""

from __future__ import annotations

from geococa.feature_stack import stack_features
from geococa.season import SEASON_STATISTICS, season_features
from geococa.spectral_indices import bands_of, spectral_features
from geococa.texture import TEXTURE_STATISTICS, texture_features

__all__ = [
    "SEASON_STATISTICS",
    "TEXTURE_STATISTICS",
    "bands_of",
    "season_features",
    "spectral_features",
    "stack_features",
    "texture_features",
]
