"""Landscape: the simulated world as an object, with its truth, parks, samples and images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray

from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.synthetic import images
from geococa.synthetic.acquisitions import Acquisition, acquisition_on, plan_acquisitions
from geococa.synthetic.coca import Plots, plot_status
from geococa.synthetic.cover import CLASSES, Partition, Patches, draw_patches, partition
from geococa.synthetic.frame import GEOGRAPHIC, Frame, area_ha, make_frame, to_geographic
from geococa.synthetic.noise import generator
from geococa.synthetic.parks import draw_parks, parks_table
from geococa.synthetic.spectra import Traits, draw_traits

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["Landscape", "landscape"]


@dataclass(frozen=True)
class Landscape:
    """A simulated landscape, whose land cover is known as polygons; made by `landscape`.

    Attributes
    ----------
    years : tuple of int
        Years of the landscape. The land cover of a year holds for the whole year and for its 31 December.
    grids : dict of str to Grid
        Grid of the fine pixels of each tile, by tile id.
    acquisitions : tuple of Acquisition
        Overpasses, by date; each covers all tiles.
    parks : geopandas.GeoDataFrame
        ``park, park_id, designation``, longitude and latitude (EPSG:4326).
    settings : dict
        Arguments that made it.
    """

    years: tuple[int, ...]
    frame: Frame
    acquisitions: tuple[Acquisition, ...]
    parks: GeoDataFrame
    settings: dict[str, Any]
    _patches: Patches = field(repr=False)
    _plots: Plots = field(repr=False)
    _partition: Partition = field(repr=False)
    _traits: Traits = field(repr=False)
    _mixtures: OrderedDict[Any, Any] = field(repr=False, compare=False, default_factory=OrderedDict)

    @property
    def grids(self) -> dict[str, Grid]:
        """Grid of the fine pixels of each tile, by tile id."""
        return dict(self.frame.grids)

    @property
    def seed(self) -> int:
        """Seed that everything is drawn from."""
        return int(self.settings["seed"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their codes 1..8."""
        return CLASSES

    def _slice(self, year: int) -> int:
        if year not in self.years:
            raise InputRefused(f"the landscape has the years {self.years[0]} to {self.years[-1]}, not {year}")
        return self.years.index(year) + 1  # slice 0 is the year before the first

    @cached_property
    def _faces(self) -> NDArray[Any]:
        """Faces of the partition in longitude and latitude."""
        return to_geographic(self._partition.faces)

    def _units(self, index: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Patches that show in a slice and the part of each that shows, in longitude and latitude."""
        top = self._partition.top[:, index]
        patches = np.unique(top)
        shown = np.empty(len(patches), dtype=object)
        shown[:] = [shapely.coverage_union_all(self._faces[top == patch]) for patch in patches]
        return patches, shown

    def _codes(self, index: int) -> NDArray[np.int8]:
        """Class code of each face in a slice."""
        return np.asarray(self._patches.cover[self._partition.top[:, index], index])

    def land_cover(self, year: int) -> GeoDataFrame:
        """Land cover of a year: one multi-polygon a class, a planar partition of the extent.

        Returns
        -------
        geopandas.GeoDataFrame
            ``class`` (str), ``geometry`` in longitude and latitude (EPSG:4326); only classes that occur.
        """
        import geopandas as gpd

        codes = self._codes(self._slice(year))
        found = [code for code in range(1, len(CLASSES) + 1) if (codes == code).any()]
        geometry = [shapely.coverage_union_all(self._faces[codes == code]) for code in found]
        return gpd.GeoDataFrame({"class": [CLASSES[code - 1] for code in found]}, geometry=geometry, crs=GEOGRAPHIC)

    @cached_property
    def truth(self) -> dict[int, GeoDataFrame]:
        """Land cover of each year, see `land_cover`."""
        return {year: self.land_cover(year) for year in self.years}

    @cached_property
    def footprint(self) -> Any:
        """Ground that the tiles cover, as a polygon in longitude and latitude."""
        return shapely.union_all([images.outline(grid) for grid in self.frame.grids.values()])

    def truth_areas(self) -> pd.DataFrame:
        """True hectares of each class in each park and year, from the polygons, on the WGS84 ellipsoid.

        Returns
        -------
        pandas.DataFrame
            ``park, year, class, area_ha, inside_ha``; every class in every park and year, 0 where it does not
            occur. ``area_ha`` is for the whole park, ``inside_ha`` for the part of it that the tiles cover.
        """
        rows = []
        parks = self.parks.geometry.to_numpy()
        inside = shapely.intersection(parks, self.footprint)
        for year in self.years:
            cover = dict(zip(self.truth[year]["class"], self.truth[year].geometry, strict=True))
            for name, whole, part in zip(self.parks["park"], parks, inside, strict=True):
                for class_name in CLASSES:
                    there = cover.get(class_name, shapely.Polygon())
                    areas = [area_ha(shapely.intersection(there, region)) for region in (whole, part)]
                    rows.append((name, year, class_name, *areas))
        return pd.DataFrame(rows, columns=["park", "year", "class", "area_ha", "inside_ha"])

    @cached_property
    def plots(self) -> GeoDataFrame:
        """Coca plots, one row for each plot and year from its first coca on.

        Returns
        -------
        geopandas.GeoDataFrame
            ``plot`` (int), ``year``, ``status`` (new, persistent, abandoned, replanted), ``class`` (coca, or
            secondary_forest where abandoned), ``area_ha`` (ellipsoid), geometry in longitude and latitude. The
            coca of a year is the sum over the rows whose class is coca.
        """
        import geopandas as gpd

        status = plot_status(self._plots.planted)
        outlines = self._plot_outlines()
        hectares = [area_ha(outline) for outline in outlines]
        rows = [
            (plot + 1, year, status[plot, index], hectares[plot], outlines[plot])
            for index, year in enumerate(self.years)
            for plot in range(len(outlines))
            if status[plot, index]
        ]
        table = pd.DataFrame(rows, columns=["plot", "year", "status", "area_ha", "geometry"])
        table.insert(3, "class", np.where(table["status"] == "abandoned", "secondary_forest", "coca"))
        return gpd.GeoDataFrame(table, geometry="geometry", crs=GEOGRAPHIC)

    def _plot_outlines(self) -> NDArray[Any]:
        """Outline of each plot in longitude and latitude, from the faces of the partition."""
        last = self._partition.top[:, -1]  # a plot stays on top from its first coca on
        plot = self._patches.plot[last]
        outlines = np.empty(len(self._plots.geometry), dtype=object)
        order = np.argsort(plot, kind="stable")
        limits = np.searchsorted(plot[order], np.arange(1, len(outlines) + 2))
        for number in range(len(outlines)):
            outlines[number] = shapely.coverage_union_all(self._faces[order[limits[number] : limits[number + 1]]])
        return outlines

    @cached_property
    def samples(self) -> GeoDataFrame:
        """Reference points to learn from: ``class, year``; see `geococa.synthetic.draw_samples`."""
        from geococa.synthetic.reference_points import draw_samples

        return draw_samples(self, int(self.settings["samples_per_class"]))

    @cached_property
    def validation(self) -> GeoDataFrame:
        """Probability sample to assess maps with; see `geococa.synthetic.draw_validation`."""
        from geococa.synthetic.reference_points import draw_validation

        return draw_validation(self, int(self.settings["validation_points"]))

    def class_fractions(self, grid: Grid, year: int) -> xr.DataArray:
        """Exact share of each class in each pixel of any grid.

        Returns
        -------
        xarray.DataArray of float64, dims (land_cover, y, x)
            Shares 0..1; they sum to 1 where the landscape is known, to less beyond its extent.
        """
        return images.class_fractions(self, grid, year)

    def acquisition(self, date: object) -> Acquisition:
        """Overpass on a date: the planned one, or for any other day one drawn for that day."""
        day = np.datetime64(date, "D")  # type: ignore[call-overload]
        for one in self.acquisitions:
            if np.datetime64(one.moment.replace(tzinfo=None), "D") == day:
                return one
        return acquisition_on(date, float(self.settings["cloud_cover"]), self.frame.extent, self.seed)

    def sky(self, grid: Grid, date: object) -> xr.Dataset:
        """True state of the sky on a date: ``cloud`` and ``shadow`` (0..1), ``haze``, ``gap`` (bool), dims (y, x)."""
        return images.sky(grid, self.acquisition(date))

    def render(
        self,
        grid: Grid,
        date: object,
        *,
        bands: Iterable[str] | None = None,
        weather: bool = True,
        noise: bool = True,
        tile: str | None = None,
    ) -> xr.Dataset:
        """Image of a date as the satellite would deliver it: digital numbers with the scene classification.

        Parameters
        ----------
        grid : Grid
            Grid of the image in any projected CRS; its size must be even, since six bands have pixels twice as
            large (each of their values fills two by two pixels).
        date : date-like
            Day of an acquisition or any other day of the landscape's years.
        bands : iterable of str, optional
            Common names of the bands; all ten where not given.
        weather : bool
            Whether clouds, shadows, haze and swath gaps are in the image.
        noise : bool
            Whether sensor noise is in the image.
        tile : str, optional
            Tile id for the product's name; the id of the grid's tile where not given.

        Returns
        -------
        xarray.Dataset
            ``kind="scenes"``, dims (time, y, x): uint16 bands (0 = no data) and uint8 ``scl``; coordinates
            ``scale`` and ``offset`` (time, band), ``scene``, ``processing_baseline``.
        """
        return images.render(self, grid, self.acquisition(date), bands=bands, weather=weather, noise=noise, tile=tile)


def landscape(
    *,
    size_m: float = 2200.0,
    years: Iterable[int] = range(2018, 2025),
    tiles: int = 2,
    pixel_m: float = 10.0,
    dates_per_year: int = 4,
    cloud_cover: float = 0.4,
    overlap: float = 0.2,
    coca_density: float = 1.0,
    samples_per_class: int = 45,
    validation_points: int = 300,
    noise_sd: float = 0.004,
    dn_step: int = 16,
    seed: int = 0,
) -> Landscape:
    """Simulate a landscape with coca, its parks and its satellite images around 72 W, 2.2 N.

    The truth are polygons: rivers, roads, forest, pasture, crops and coca plots that appear, persist, are
    abandoned and replanted. Images are made from them by area-weighted mixing, so a pixel on a border is a
    mixture and true hectares do not depend on pixels. The same arguments give the same bytes.

    Parameters
    ----------
    size_m : float
        Side of a tile in metres.
    years : iterable of int
        Consecutive years.
    tiles : int
        Number of tiles: pairs on both sides of the border of UTM zones 18N and 19N, from south to north.
    pixel_m : float
        Pixel size of the fine bands in metres.
    dates_per_year : int
        Overpasses in a year.
    cloud_cover : float
        Mean share of cloud, in 0..0.95.
    overlap : float
        Share of a tile's side that it has in common with its neighbour.
    coca_density : float
        Factor on the share of land under coca (1 = about 5 to 8 % in most parks).
    samples_per_class : int
        Reference points for each class and year.
    validation_points : int
        Points of the probability sample.
    noise_sd : float
        Standard deviation of the sensor noise in reflectance; up to 1.7 times that beyond 0.7 um.
    dn_step : int
        Digital numbers are rounded to multiples of this. 16 (0.0016 in reflectance, well below the noise) halves
        the size of files; 1 keeps every step.
    seed : int
        Seed, zero or more.

    Returns
    -------
    Landscape
        The landscape; nothing is drawn as an image yet.

    Raises
    ------
    InputRefused
        Years are empty or not consecutive, or a number is out of range.

    Examples
    --------
    >>> small = landscape(size_m=600, years=[2020, 2021], tiles=1, seed=1)
    >>> sorted(small.grids), small.years
    (['18NXG'], (2020, 2021))
    """
    chosen = tuple(sorted({int(year) for year in years}))
    if not chosen or chosen[-1] - chosen[0] + 1 != len(chosen):
        raise InputRefused(f"expected consecutive years, got {list(chosen)}")
    if not 0 <= cloud_cover <= 0.95 or dates_per_year < 1 or not 0 <= coca_density <= 4:
        raise InputRefused(
            "expected cloud_cover in 0..0.95, at least one date a year and coca_density in 0..4, got "
            f"cloud_cover={cloud_cover}, dates_per_year={dates_per_year}, coca_density={coca_density}"
        )
    if seed < 0 or noise_sd < 0 or min(samples_per_class, validation_points, dn_step) < 1:
        raise InputRefused(
            "expected seed and noise_sd not below 0, and samples_per_class, validation_points and dn_step of 1 or "
            f"more, got {seed}, {noise_sd}, {samples_per_class}, {validation_points}, {dn_step}"
        )
    settings = {
        "size_m": size_m, "years": chosen, "tiles": tiles, "pixel_m": pixel_m, "dates_per_year": dates_per_year,
        "cloud_cover": cloud_cover, "overlap": overlap, "coca_density": coca_density,
        "samples_per_class": samples_per_class, "validation_points": validation_points, "noise_sd": noise_sd,
        "dn_step": dn_step, "seed": seed,
    }  # fmt: skip
    frame = make_frame(size_m, tiles, pixel_m, overlap)
    parks = draw_parks(frame, seed)
    patches, plots = draw_patches(frame, parks, chosen, seed, coca_density)
    return Landscape(
        years=chosen,
        frame=frame,
        acquisitions=plan_acquisitions(chosen, dates_per_year, cloud_cover, frame.extent, seed),
        parks=parks_table(parks),
        settings=settings,
        _patches=patches,
        _plots=plots,
        _partition=partition(patches, frame.extent),
        _traits=draw_traits(len(patches.geometry), generator(seed, "traits")),
    )
