# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 06 Bring your own data
#
# Sentinel-2 SAFE folders, STAC items, Landsat bundles, class maps of others. Small products of the real structure are made here, and opened as yours would be.

# %%
import json
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import rasterio

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")
folder = Path(tempfile.mkdtemp())


def write(path, values, gsd, driver="GTiff", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"height": values.shape[0], "width": values.shape[1], "count": 1, "dtype": values.dtype.name, "crs": "EPSG:32618",
               "transform": rasterio.Affine(gsd, 0, 600_000, 0, -gsd, 300_000)}
    with rasterio.open(path, "w", driver=driver, **profile, **more) as file:
        file.write(values, 1)


# %% [markdown]
# ## Sentinel-2, as downloaded
# Bands as JPEG 2000 in `GRANULE/*/IMG_DATA`, scale and offset in `MTD_MSIL2A.xml`.

# %%
rng = np.random.default_rng(0)
name = "S2A_MSIL2A_20230625T152641_N0509_R025_T18NXG_20230625T190000"
images = folder / "mine" / "18NXG" / f"{name}.SAFE" / "GRANULE" / "L2A_T18NXG_A041826_20230625T152641" / "IMG_DATA"
for band, level in (("B02", 1400), ("B03", 1650), ("B04", 1500), ("B08", 4200)):
    values = rng.normal(level, 60, (120, 120)).astype("uint16")
    write(images / "R10m" / f"T18NXG_20230625T152641_{band}_10m.jp2", values, 10, "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
scl = np.full((60, 60), 4, "uint8")
scl[:20, :25] = 9  # cloud
write(images / "R20m" / "T18NXG_20230625T152641_SCL_20m.jp2", scl, 20, "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
offsets = "".join(f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13))
(images.parents[2] / "MTD_MSIL2A.xml").write_text(f"""<?xml version="1.0"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>2023-06-25T15:26:41.024Z</PRODUCT_START_TIME><PRODUCT_URI>{name}.SAFE</PRODUCT_URI>
<PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>
<Datatake><DATATAKE_SENSING_START>2023-06-25T15:26:41.024Z</DATATAKE_SENSING_START></Datatake></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
</QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics></n1:General_Info></n1:Level-2A_User_Product>""")

scenes = coca.open_tile(folder / "mine" / "18NXG")
clear = coca.clear_sky(scenes, buffer_m=60)
reflectance = coca.to_reflectance(scenes, where=clear)
print(scenes.attrs["sensor"], scenes["offset"].values[0], "-> red", round(float(reflectance.red.mean()), 3))

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4), layout="constrained")
for axis, (title, array) in zip(axes, {"usable (white)": clear, "reflectance of red": reflectance.red}.items()):
    axis.imshow(array.isel(time=0), cmap="Greys_r")
    axis.set_title(title)
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## STAC items, and cubes that odc-stac loads
# An item says where its rasters are, and their scale and offset. A cube of digital numbers goes into the stages with the items beside it.

# %%
item = json.loads(next(Path("sample_tiles/18NXG").glob("*_2024*/item.json")).read_text())
print({key: item["properties"][key] for key in ("datetime", "s2:processing_baseline")}, item["assets"]["red"]["raster:bands"])

# %%
numbers = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red", "nir"])
cube = numbers[["red", "nir", "scl"]].reset_coords(["scene", "processing_baseline"], drop=True)  # as a loader gives it
cube.attrs.clear()
items = [json.loads(path.read_text()) for path in Path("sample_tiles/18NXG").glob("*_2024*/item.json")]
mine = coca.as_scenes(cube, "sentinel-2-l2a", items=items)
print(mine["offset"].values.tolist())
try:
    coca.to_reflectance(coca.as_scenes(cube, "sentinel-2-l2a"))
except coca.errors.UnknownOffset as error:
    print("without items:", str(error)[:110], "...")

# %% [markdown]
# ## Landsat Collection 2 Level 2
# Bands as `*_SR_B*.TIF`, the quality band's bits, scale and offset from the product's definition and its MTL.

# %%
product = "LC08_L2SP_008059_20191201_20200825_02_T1"
bundle = folder / "mine_too" / "008059" / product
for n in range(1, 8):
    write(bundle / f"{product}_SR_B{n}.TIF", np.full((40, 40), 8000 + 400 * n, "uint16"), 30, nodata=0)
write(bundle / f"{product}_QA_PIXEL.TIF", np.full((40, 40), 21824, "uint16"), 30, nodata=1)
landsat = coca.open_tile(folder / "mine_too" / "008059")
print(landsat.attrs["sensor"], {band: round(float(coca.to_reflectance(landsat)[band].mean()), 3) for band in ("red", "nir08", "swir16")})

# %% [markdown]
# ## Your classified map, your parks
# Any integer raster becomes a land-cover map when its codes have names; zones come from any vector file.

# %%
codes = rng.choice([1, 2, 3], size=(120, 120), p=[0.1, 0.7, 0.2]).astype("uint8")
write(folder / "classes.tif", codes, 10, nodata=0)
land_cover = coca.as_land_cover(coca.read_raster(folder / "classes.tif"), {1: "coca", 2: "forest", 3: "pasture"})

import geopandas
import shapely

parks = geopandas.GeoDataFrame({"park": ["North", "South"]}, crs="EPSG:32618",
                               geometry=[shapely.Point(600_500, 299_650).buffer(280), shapely.Point(600_800, 299_200).buffer(300)])
coca.write_vector(parks, folder / "parks.gpkg")
zones = coca.read_zones(folder / "parks.gpkg", name="park")
coca.areas_table(land_cover.geococa.zonal_area(zones))[["zone", "land_cover", "area_ha", "outside_ha", "zone_ha"]].round(3)

# %% [markdown]
# ## The same by commands
#
#     geococa init mine --recipe coca.toml --zones parks.gpkg --samples samples.csv
#     geococa check mine --recipe coca.toml
#     geococa run mine --recipe coca.toml --out out/coca
