"""Parks of the simulated landscape: one for each difficulty that real park layers have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geococa.synthetic.frame import GEOGRAPHIC, Frame, to_geographic
from geococa.synthetic.noise import generator
from geococa.synthetic.shapes import blob

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["Park", "draw_parks", "parks_table"]

_EDGE_M = 50.0  # longest edge of a stored outline


@dataclass(frozen=True)
class Park:
    """A park in the local frame, and how much coca it holds.

    Attributes
    ----------
    name, park_id, designation : str
        Attributes of the park layer.
    geometry : shapely.Polygon or shapely.MultiPolygon
        Outline in the local frame.
    coca_share : float
        Share of the park under coca in the first year (0 = never any coca).
    growth : float
        Expected factor of the number of coca plots from one year to the next.
    """

    name: str
    park_id: str
    designation: str
    geometry: Any
    coca_share: float
    growth: float


# name, designation, what makes it difficult, share under coca in the first year, yearly growth
_PARKS: tuple[tuple[str, str, str, float, float], ...] = (
    ("Serranía Azul", "PNN", "hole", 0.075, 1.13),
    ("Dos Lagunas", "RNN", "multipart", 0.110, 0.85),
    ("Alto Raudal", "PNN", "overlap_a", 0.080, 1.00),
    ("Distrito Raudal", "DMI", "overlap_b", 0.090, 1.06),
    ("Caño Sur", "RFPN", "outside", 0.080, 0.92),
    ("Meridiano", "PNN", "zone_border", 0.065, 1.17),
    ("Piedra Sola", "SFF", "tiny", 0.0, 1.0),
    ("Monte Cerrado", "RNN", "no_coca", 0.0, 1.0),
)


def draw_parks(frame: Frame, seed: int) -> list[Park]:
    """Draw the eight parks; all but the tiny one scale with the landscape.

    One has a hole, one two parts, two overlap, one reaches beyond the footprint of the archive, one lies
    across 72 W (the border of UTM zones 18N and 19N), one is smaller than a hectare and one never has coca.
    """
    parks = []
    for number, (name, designation, what, share, growth) in enumerate(_PARKS, start=1):
        rng = generator(seed, "park", number)
        outline = shapely.segmentize(_outline(rng, frame, what), _EDGE_M)
        parks.append(Park(name, f"P{number:02d}", designation, outline, share, growth))
    return parks


def _outline(rng: np.random.Generator, frame: Frame, what: str) -> Any:
    west, south, east, north = frame.footprint
    width, height = east - west, north - south

    def at(u: float, v: float, half_width: float, half_height: float) -> Any:
        """Blob centred at a share of the footprint with half axes as shares of it."""
        round_one = blob(rng, (0.0, 0.0), np.pi, vertices=40, roughness=0.07, stretch=1.0)
        scale = np.array([half_width * width, half_height * height])
        return shapely.transform(round_one, lambda xy: xy * scale + [west + u * width, south + v * height])

    if what == "hole":
        enclave = at(0.21, 0.73, 0.04, 0.07)
        return shapely.difference(at(0.20, 0.72, 0.125, 0.22), enclave)
    if what == "multipart":
        return shapely.union_all([at(0.20, 0.22, 0.075, 0.16), at(0.40, 0.16, 0.06, 0.12)])
    if what == "overlap_a":
        return at(0.72, 0.40, 0.11, 0.23)
    if what == "overlap_b":
        return at(0.86, 0.46, 0.10, 0.20)
    if what == "outside":
        return at(0.0, 0.42, 0.08, 0.17)
    if what == "zone_border":
        share = (0.0 - west) / width  # x = 0 is 72 W, wherever the footprint lies
        return at(share, 0.60, 0.095, 0.26)
    if what == "tiny":
        return blob(rng, (west + 0.58 * width, south + 0.10 * height), 6200.0, vertices=24, roughness=0.05)
    return at(0.80, 0.85, 0.09, 0.11)


def parks_table(parks: list[Park]) -> GeoDataFrame:
    """Park layer in longitude and latitude: ``park`` (unique name), ``park_id``, ``designation``."""
    import geopandas as gpd

    return gpd.GeoDataFrame(
        {
            "park": [park.name for park in parks],
            "park_id": [park.park_id for park in parks],
            "designation": [park.designation for park in parks],
        },
        geometry=to_geographic(park.geometry for park in parks),
        crs=GEOGRAPHIC,
    )
