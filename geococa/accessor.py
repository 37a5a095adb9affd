"""The xarray accessor ``.geococa``: the public functions as methods, nothing of its own.

``import geococa.accessor`` registers it; using any public name of geococa does so as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

    from geococa.grid import Grid
    from geococa.legend import Legend
    from geococa.models import Model
    from geococa.zones import Coverage

__all__ = ["ArrayAccessor", "DatasetAccessor"]

T = TypeVar("T", xr.DataArray, xr.Dataset)


def _public(name: str) -> Any:
    """Function of the public API; looked up late, so that registering costs no import."""
    import geococa

    return getattr(geococa, name)


class _Accessor(Generic[T]):
    """What arrays and datasets have in common."""

    def __init__(self, array: T) -> None:
        self._array: T = array

    @property
    def grid(self) -> Grid:
        """Grid of the array: CRS, transform and shape."""
        found: Grid = _public("Grid").from_xarray(self._array)
        return found

    @property
    def kind(self) -> str | None:
        """Product of which stage it is, such as ``"land_cover"``; None where it does not say."""
        kind = self._array.attrs.get("kind")
        return None if kind is None else str(kind)

    def to_file(self, path: Any) -> Any:
        """`geococa.write_cog` for ``.tif``, `geococa.write_cube` for ``.nc`` and ``.zarr``."""
        return _public("write_cog" if str(path).lower().endswith((".tif", ".tiff")) else "write_cube")(
            self._array, path
        )


@xr.register_dataarray_accessor("geococa")  # type: ignore[no-untyped-call]
class ArrayAccessor(_Accessor[xr.DataArray]):
    """Stages for one array: feature stacks, probabilities, land-cover maps.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((20, 20), years=(2024,))
    >>> land_cover.geococa.kind, land_cover.geococa.grid.shape
    ('land_cover', (20, 20))
    >>> land_cover.geococa.sieve(min_area_ha=0.02).geococa.legend.names[:2]
    ('coca', 'forest')
    """

    @property
    def legend(self) -> Legend:
        """Codes, names and colours of a land-cover map."""
        found: Legend = _public("Legend").from_attrs(self._array.attrs)
        return found

    def as_land_cover(self, classes: Any, *, nodata: int | None = None) -> xr.DataArray:
        """`geococa.as_land_cover`."""
        out: xr.DataArray = _public("as_land_cover")(self._array, classes, nodata=nodata)
        return out

    def classify(self, model: Model, output: str | None = None, **options: Any) -> Any:
        """`geococa.classify`."""
        return _public("classify")(self._array, model, output, **options)

    def smooth(self, **options: Any) -> xr.DataArray:
        """`geococa.smooth`."""
        out: xr.DataArray = _public("smooth")(self._array, **options)
        return out

    def stabilise(self, **options: Any) -> xr.DataArray:
        """`geococa.stabilise`."""
        out: xr.DataArray = _public("stabilise")(self._array, **options)
        return out

    def label(self, **options: Any) -> xr.DataArray:
        """`geococa.label`."""
        out: xr.DataArray = _public("label")(self._array, **options)
        return out

    def sieve(self, **options: Any) -> xr.DataArray:
        """`geococa.sieve`."""
        out: xr.DataArray = _public("sieve")(self._array, **options)
        return out

    def coverage(self, zones: GeoDataFrame, **options: Any) -> Coverage:
        """`geococa.coverage_fraction` of zones on this array's grid."""
        share: Coverage = _public("coverage_fraction")(zones, self.grid, **options)
        return share

    def zonal_area(self, zones: GeoDataFrame | Coverage, **options: Any) -> xr.Dataset:
        """`geococa.zonal_area`, of polygons or of a coverage."""
        out: xr.Dataset = _public("zonal_area")(self._array, self._share(zones), **options)
        return out

    def zonal_statistics(self, zones: GeoDataFrame | Coverage, **options: Any) -> pd.DataFrame:
        """`geococa.zonal_statistics`, of polygons or of a coverage."""
        out: pd.DataFrame = _public("zonal_statistics")(self._array, self._share(zones), **options)
        return out

    def _share(self, zones: GeoDataFrame | Coverage) -> Coverage:
        return zones if isinstance(zones, _public("Coverage")) else self.coverage(zones)


@xr.register_dataset_accessor("geococa")  # type: ignore[no-untyped-call]
class DatasetAccessor(_Accessor[xr.Dataset]):
    """Stages for datasets: scenes, reflectance, composites, areas.

    Examples
    --------
    >>> import geococa as coca
    >>> scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], window=(0, 40, 0, 40))
    >>> clear = scenes.geococa.clear_sky(buffer_m=20)
    >>> annual = scenes.geococa.to_reflectance(where=clear).geococa.composite()
    >>> annual.geococa.spectral_features(["ndvi"]).sizes["feature"]
    1
    """

    def as_scenes(self, sensor: Any, **options: Any) -> xr.Dataset:
        """`geococa.as_scenes`, for cubes of odc-stac and like loaders."""
        out: xr.Dataset = _public("as_scenes")(self._array, sensor, **options)
        return out

    def clear_sky(self, **options: Any) -> xr.DataArray:
        """`geococa.clear_sky`."""
        out: xr.DataArray = _public("clear_sky")(self._array, **options)
        return out

    def to_reflectance(self, **options: Any) -> xr.Dataset:
        """`geococa.to_reflectance`."""
        out: xr.Dataset = _public("to_reflectance")(self._array, **options)
        return out

    def composite(self, **options: Any) -> xr.Dataset:
        """`geococa.composite`."""
        out: xr.Dataset = _public("composite")(self._array, **options)
        return out

    def spectral_features(self, names: Any) -> xr.DataArray:
        """`geococa.spectral_features`."""
        out: xr.DataArray = _public("spectral_features")(self._array, names)
        return out

    def areas_table(self) -> pd.DataFrame:
        """`geococa.areas_table`."""
        out: pd.DataFrame = _public("areas_table")(self._array)
        return out
