"""Made-up areas, maps and zones for the tests of the report, the figures and the public exports."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from geococa.grid import Grid
from geococa.legend import Legend

CLASSES = ("coca", "forest", "secondary_forest", "pasture", "other_crops", "bare_soil", "water", "settlement")
NAMES = ("Sierra de la Niebla", "Caño Claro", "Los Yarumos", "Alto Río Pintado", "Tres Raudales", "Ñambí Sur")


def utm_grid(rows: int = 120, columns: int = 140, cell_m: float = 10.0, zone: int = 18) -> Grid:
    """Grid near 2 degrees north."""
    return Grid(f"EPSG:326{zone:02d}", (cell_m, 0, 640000, 0, -cell_m, 230000), (rows, columns))


def land_cover_maps(years=range(2019, 2025), grid: Grid | None = None, seed: int = 1) -> xr.DataArray:
    """Smooth patches of land cover with small plots of coca and a cloud that moves from year to year."""
    from scipy.ndimage import gaussian_filter

    grid = grid or utm_grid()
    rng = np.random.default_rng(seed)
    fields = np.stack(
        [
            gaussian_filter(rng.normal(size=grid.shape), 7) + bias
            for bias in (-1, 0.03, 0.0, 0.005, -0.02, -0.035, -0.035, -0.06)
        ]
    )
    base = (fields.argmax(axis=0) + 1).astype(np.uint8)
    stack, count = [], 14
    centres = rng.integers(6, min(grid.shape) - 6, size=(80, 2))
    for i, _ in enumerate(years):
        one = base.copy()
        for row, column in centres[4 * i : 4 * i + count + 3 * i]:
            height, width = rng.integers(2, 6, size=2)
            one[row : row + height, column : column + width] = 1
        cloud = gaussian_filter(rng.normal(size=grid.shape), 12)
        one[cloud > np.quantile(cloud, 1 - 0.05 - 0.07 * (i % 3))] = 255
        stack.append(one)
    dates = pd.to_datetime([f"{year}-12-31" for year in years])
    array = xr.DataArray(np.stack(stack), dims=("time", "y", "x"), coords={"time": dates}, name="land_cover")
    array = grid.attach(array)
    array.attrs.update({"kind": "land_cover", "nodata": 255, **Legend.of(CLASSES).to_attrs()})
    return array


def areas_dataset(names=NAMES, years=range(2019, 2025), seed: int = 3, classes=CLASSES) -> xr.Dataset:
    """Hectares that add up: classes + unobserved + outside = zone."""
    rng = np.random.default_rng(seed)
    years, shape = list(years), (len(list(years)), len(names))
    zone_ha = rng.uniform(800, 60000, size=len(names))
    unseen = rng.beta(1.2, 8, size=shape)
    outside = np.where(rng.random(len(names)) < 0.2, 0.04, 0.0)
    growth = rng.normal(0, 0.16, size=len(names))
    level = rng.lognormal(-5.5, 1.2, size=len(names))
    coca = level * np.exp(growth * np.arange(len(years))[:, None] + rng.normal(0, 0.12, size=shape))
    rest = rng.dirichlet([12, 4, 5, 2, 1, 1, 0.5][: len(classes) - 1], size=shape)
    seen = np.clip(1 - unseen - outside, 0, 1)
    share = np.concatenate([coca[..., None], (1 - coca)[..., None] * rest], axis=2) * seen[..., None]
    dates = pd.to_datetime([f"{year}-12-31" for year in years])
    return xr.Dataset(
        {
            "area_ha": (("time", "zone", "land_cover"), share * zone_ha[:, None]),
            "unobserved_ha": (("time", "zone"), (1 - seen - outside) * zone_ha),
            "outside_ha": (("time", "zone"), np.broadcast_to(outside * zone_ha, shape).copy()),
            "zone_ha": ("zone", zone_ha),
        },
        coords={"time": dates, "zone": list(names), "land_cover": list(classes)},
        attrs={"kind": "areas"},
    )


def trend_table(areas: xr.Dataset, class_name: str = "coca") -> pd.DataFrame:
    """Least-squares slopes in the shape of the trend stage; only the layout matters here."""
    rows = []
    years = areas["time"].dt.year.values.astype(float)
    for zone in areas["zone"].values:
        values = areas["area_ha"].sel(zone=zone, land_cover=class_name).values
        slope = float(np.polyfit(years, values, 1)[0]) if len(years) > 1 else np.nan
        wide = 0.6 * abs(slope) + 0.02
        verdict = "growing" if slope > 0.3 else "shrinking" if slope < -0.3 else "cannot tell"
        rows.append(
            {
                "zone": str(zone),
                "slope_ha_per_year": slope,
                "slope_low": slope - wide,
                "slope_high": slope + wide,
                "s": 5.0,
                "tau": 0.4,
                "p_value": 0.03 if verdict != "cannot tell" else 0.4,
                "n_years": len(years),
                "test": "mann-kendall",
                "verdict": verdict,
                "notice": "",
            }
        )
    return pd.DataFrame(rows)


def truth_table(areas: xr.Dataset, seed: int = 5) -> pd.DataFrame:
    """True hectares around the mapped ones."""
    rng = np.random.default_rng(seed)
    table = areas["area_ha"].sel(land_cover="coca").to_series().rename("area_ha").reset_index()
    table["year"] = table["time"].dt.year
    table["area_ha"] *= rng.normal(1.05, 0.08, size=len(table))
    return table[["zone", "year", "area_ha"]]


def interval_table(areas: xr.Dataset) -> pd.DataFrame:
    """Estimates somewhat above the mapped hectares, with wide intervals."""
    table = truth_table(areas, seed=6)
    table["ci_low_ha"], table["ci_high_ha"] = 0.7 * table["area_ha"], 1.35 * table["area_ha"]
    return table


def accuracy_table(year: int = 2024) -> pd.DataFrame:
    """Estimates per class, as the accuracy stage gives them."""
    return pd.DataFrame(
        {
            "year": year,
            "land_cover": ["coca", "forest", "pasture"],
            "mapped_area_ha": [310.0, 41000.5, 5100.0],
            "area_ha": [402.2, 40500.0, 5508.3],
            "se_ha": [52.0, 410.0, 300.0],
            "ci_low_ha": [300.3, 39696.4, 4920.3],
            "ci_high_ha": [504.1, 41303.6, 6096.3],
            "users_accuracy": [0.81, 0.97, 0.88],
            "producers_accuracy": [0.62, 0.98, 0.82],
        }
    )


def error_matrix_table() -> pd.DataFrame:
    """Counts of sample points, rows map, columns reference."""
    names = ["coca", "forest", "pasture"]
    return pd.DataFrame([[61, 4, 10], [5, 191, 4], [12, 7, 131]], index=names, columns=names)


def transition_table() -> pd.DataFrame:
    """Hectares from class to class."""
    return pd.DataFrame(
        [
            ("Caño Claro", 2023, 2024, "forest", "coca", 42.5),
            ("Caño Claro", 2023, 2024, "secondary_forest", "coca", 31.0),
            ("Caño Claro", 2023, 2024, "coca", "pasture", 12.25),
            ("Los Yarumos", 2023, 2024, "forest", "coca", 8.4),
            ("Los Yarumos", 2023, 2024, "forest", "pasture", 88.4),
            ("Los Yarumos", 2023, 2024, "coca", "secondary_forest", 3.1),
        ],
        columns=["zone", "year_from", "year_to", "from", "to", "area_ha"],
    )


def park_polygons(names=NAMES, grid: Grid | None = None):
    """Irregular polygons spread over the grid; the last two overlap."""
    import geopandas as gpd
    from shapely.geometry import Polygon

    grid = grid or utm_grid()
    left, bottom, right, top = grid.bounds
    rng = np.random.default_rng(8)
    shapes = []
    side = int(np.ceil(np.sqrt(len(names))))
    step_x, step_y = (right - left) / side, (top - bottom) / side
    for i in range(len(names)):
        cx, cy = left + (i % side + 0.5) * step_x, top - (i // side + 0.5) * step_y
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radius = rng.uniform(0.32, 0.5, size=24)
        shapes.append(
            Polygon(np.column_stack([cx + step_x * radius * np.cos(angles), cy + step_y * radius * np.sin(angles)]))
        )
    if len(shapes) > 1:
        shapes[-1] = shapes[-1].union(shapes[-2].buffer(-step_x / 5).buffer(step_x / 9)).convex_hull
    return gpd.GeoDataFrame({"zone": list(names)}, geometry=shapes, crs=grid.crs)


def published_table(areas: xr.Dataset) -> pd.DataFrame:
    """Published hectares: three years of one zone, two of all zones together, and one zone that is not in the areas."""
    zone = str(areas["zone"].values[0])
    rows = [(zone, year, area) for year, area in ((2020, 10.0), (2021, 12.0), (2022, 16.5))]
    rows += [("all", 2020, 900.0), ("all", 2021, 950.0), ("Elsewhere", 2021, 7.0)]
    table = pd.DataFrame(rows, columns=["zone", "year", "area_ha"])
    return table.assign(low_ha=0.8 * table["area_ha"], high_ha=1.2 * table["area_ha"], source="UNODC")


def change_table() -> pd.DataFrame:
    """Estimated change of all zones together, with intervals."""
    return pd.DataFrame(
        {
            "zone": "all",
            "year_from": [2022, 2023],
            "year_to": [2023, 2024],
            "change_ha": [31.5, -12.25],
            "ci_low_ha": [-5.0, -40.0],
            "ci_high_ha": [68.0, 16.0],
        }
    )


def picture(grid: Grid | None = None) -> xr.DataArray:
    """Three smooth bands for the background of the map."""
    from scipy.ndimage import gaussian_filter

    grid = grid or utm_grid()
    rng = np.random.default_rng(2)
    bands = [gaussian_filter(rng.normal(size=grid.shape), 4).astype(np.float32) for _ in range(3)]
    return grid.attach(xr.DataArray(np.stack(bands), dims=("band", "y", "x")))
