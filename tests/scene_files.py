"""Products of real structure for the tests: Sentinel-2 SAFE folders, STAC scene folders and Landsat bundles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

ORIGIN = (600000.0, 300000.0)
CRS = "EPSG:32618"


def write_band(path, values, *, gsd=10.0, nodata=None, driver="GTiff", crs=CRS, origin=ORIGIN, **options):
    values = np.atleast_3d(values.T).T if values.ndim == 2 else values
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": driver,
        "height": values.shape[1],
        "width": values.shape[2],
        "count": values.shape[0],
        "dtype": values.dtype.name,
        "crs": crs,
        "transform": Affine(gsd, 0, origin[0], 0, -gsd, origin[1]),
    }
    if nodata is not None:
        profile["nodata"] = nodata
    with rasterio.open(path, "w", **profile, **options) as file:
        file.write(values)
    return path


def stac_item(
    scene,
    moment,
    *,
    baseline="05.09",
    offset=-0.1,
    scale=1e-4,
    bands=("B04", "B08", "B11", "SCL"),
    properties=(),
    style="1.0",
):
    names = {"B02": "blue", "B03": "green", "B04": "red", "B08": "nir", "B11": "swir16", "SCL": "scl", "B8A": "nir08"}
    assets = {}
    for band in bands:
        raster = {"nodata": 0, "data_type": "uint16"}
        if band != "SCL":
            raster |= {key: value for key, value in (("scale", scale), ("offset", offset)) if value is not None}
        asset = {"href": f"./{band}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}
        if style == "1.0":
            asset["raster:bands"] = [raster]
            asset["eo:bands"] = [{"name": band, "common_name": names[band]}]
        else:
            asset["bands"] = [
                {"name": band, "eo:common_name": names[band], **{f"raster:{k}": v for k, v in raster.items()}}
            ]
        assets[names[band]] = asset
    values = {
        "datetime": moment,
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "s2:product_type": "S2MSI2A",
        **({"s2:processing_baseline": baseline} if baseline else {}),
        **dict(properties),
    }
    return {"type": "Feature", "stac_version": "1.0.0", "id": scene, "properties": values, "assets": assets}


def write_scene(tile: Path, scene, moment, *, size=20, red=1500, nir=4000, scl=4, item=None, **settings):
    """STAC scene folder with 10 m red and nir and 20 m swir16 and SCL."""
    folder = tile / scene
    full = (size, size)
    for band, value in (("B04", red), ("B08", nir)):
        write_band(folder / f"{band}.tif", np.broadcast_to(np.asarray(value, "uint16"), full).copy(), nodata=0)
    half = (size // 2, size // 2)
    write_band(
        folder / "B11.tif", np.arange(1, half[0] * half[1] + 1, dtype="uint16").reshape(half) + 1000, gsd=20, nodata=0
    )
    write_band(folder / "SCL.tif", np.broadcast_to(np.asarray(scl, "uint8"), half).copy(), gsd=20, nodata=0)
    (folder / "item.json").write_text(json.dumps(item or stac_item(scene, moment, **settings)))
    return folder


def mtd_xml(*, baseline="05.09", offset=-1000, quantification=10000, level="2A", moment="2023-06-25T23:46:21.024Z"):
    tag, divisor = (
        ("BOA_ADD_OFFSET", "BOA_QUANTIFICATION_VALUE")
        if level == "2A"
        else ("RADIO_ADD_OFFSET", "QUANTIFICATION_VALUE")
    )
    offsets = "".join(f'<{tag} band_id="{n}">{offset}</{tag}>' for n in range(13)) if offset is not None else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{level}.xsd">
<n1:General_Info><Product_Info><PRODUCT_START_TIME>{moment}</PRODUCT_START_TIME>
<PRODUCT_URI>S2A_MSIL{level}_20230625T234621_N0509_R073_T18NXG_20230626T022157.SAFE</PRODUCT_URI>
<PROCESSING_LEVEL>Level-{level}</PROCESSING_LEVEL><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
<Datatake><DATATAKE_SENSING_START>{moment}</DATATAKE_SENSING_START></Datatake></Product_Info>
<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST><{divisor} unit="none">{quantification}</{divisor}>
</QUANTIFICATION_VALUES_LIST>{offsets}</Product_Image_Characteristics></n1:General_Info>
</n1:Level-{level}_User_Product>"""


def write_safe(parent: Path, *, level="2A", size=120, **settings):
    """SAFE folder with JPEG 2000 bands at 10, 20 and 60 m in the official places."""
    folder = parent / f"S2A_MSIL{level}_20230625T234621_N0509_R073_T18NXG_20230626T022157.SAFE"
    images = folder / "GRANULE" / "L2A_T18NXG_A041826_20230625T234624" / "IMG_DATA"
    lossless = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    rng = np.random.default_rng(5)
    made = {}
    layout = (
        [(b, r) for r in (10, 20, 60) for b in ("B02", "B03", "B04", "B08") if not (b == "B08" and r > 10)]
        + [(b, r) for r in (20, 60) for b in ("B05", "B8A", "B11", "B12", "SCL")]
        + [("B01", 60)]
    )
    for band, gsd in layout:
        shape = (size * 10 // gsd,) * 2
        values = (
            rng.integers(1, 12, shape).astype("uint8")
            if band == "SCL"
            else rng.integers(1, 9000, shape).astype("uint16")
        )
        name = f"T18NXG_20230625T234621_{band}_{gsd}m.jp2"
        write_band(images / f"R{gsd}m" / name, values, gsd=gsd, **lossless)
        made.setdefault(band, values)
    (folder / f"MTD_MSIL{level}.xml").write_text(mtd_xml(level=level, **settings))
    return folder, made


def landsat_mtl(product, *, spacecraft="LANDSAT_8", level="L2SP"):
    rows = {
        "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": product, "PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02"},
        "IMAGE_ATTRIBUTES": {
            "SPACECRAFT_ID": spacecraft,
            "DATE_ACQUIRED": "2019-12-01",
            "SCENE_CENTER_TIME": "15:13:51.8610990Z",
            "SUN_ELEVATION": "57.08727307",
            "EARTH_SUN_DISTANCE": "0.9860755",
        },
        "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
            **{f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in range(1, 8)},
            **{f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in range(1, 8)},
        },
        "LEVEL1_RADIOMETRIC_RESCALING": {
            **{f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in range(1, 10)},
            **{f"REFLECTANCE_ADD_BAND_{n}": "-0.100000" for n in range(1, 10)},
        },
    }
    return {"LANDSAT_METADATA_FILE": rows}


def mtl_text(content):
    lines = []
    for top, groups in content.items():
        lines.append(f"GROUP = {top}")
        for group, values in groups.items():
            lines += [f"  GROUP = {group}", *(f'    {k} = "{v}"' for k, v in values.items()), f"  END_GROUP = {group}"]
        lines.append(f"END_GROUP = {top}")
    return "\n".join([*lines, "END", ""])


def mtl_xml(content):
    [(top, groups)] = content.items()
    inner = "".join(
        f"<{g}>{''.join(f'<{k}>{v}</{k}>' for k, v in values.items())}</{g}>" for g, values in groups.items()
    )
    return f'<?xml version="1.0"?><{top}>{inner}</{top}>'


def write_bundle(parent: Path, product="LC08_L2SP_008059_20191201_20200825_02_T1", *, suffix="json", size=30, qa=21824,
                 origin=ORIGIN, value=8000):  # fmt: skip
    """Landsat Collection 2 Level 2 bundle."""
    folder = parent / product
    for n in range(1, 8):
        write_band(folder / f"{product}_SR_B{n}.TIF", np.full((size, size), value + n, "uint16"), gsd=30, nodata=0,
                    origin=origin)  # fmt: skip
    write_band(
        folder / f"{product}_QA_PIXEL.TIF",
        np.broadcast_to(np.asarray(qa, "uint16"), (size, size)).copy(),
        gsd=30,
        nodata=1,
        origin=origin,
    )
    write_band(folder / f"{product}_QA_RADSAT.TIF", np.zeros((size, size), "uint16"), gsd=30, origin=origin)
    content = landsat_mtl(product)
    texts = {"json": json.dumps(content), "txt": mtl_text(content), "xml": mtl_xml(content)}
    if suffix:
        (folder / f"{product}_MTL.{suffix}").write_text(texts[suffix])
    return folder
