"""Sentinel-2 products with the structure of real SAFE folders, from the scenes of a simulated archive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio

XML = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{moment}</PRODUCT_START_TIME>
      <PRODUCT_URI>{name}.SAFE</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><DATATAKE_SENSING_START>{moment}</DATATAKE_SENSING_START></Datatake>
    </Product_Info>
    <Product_Image_Characteristics>
      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>{offsets}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-2A_User_Product>
"""


def write_safe_products(tile: Path, folder: Path, years: range) -> list[Path]:
    """The scenes of a simulated tile as SAFE products: JPEG 2000 bands by resolution, product and granule metadata."""
    made = []
    for scene in sorted(tile.iterdir()):
        item = json.loads((scene / "item.json").read_text())
        if int(item["properties"]["datetime"][:4]) in years:
            made.append(_product(scene, item, folder))
    return made


def _product(scene: Path, item: dict, folder: Path) -> Path:
    name, moment = item["id"], item["properties"]["datetime"]
    square, baseline = name.split("_T")[1][:5], item["properties"]["s2:processing_baseline"]
    product = folder / f"{name}.SAFE"
    granule = product / "GRANULE" / f"L2A_T{square}_A012345_{moment[:10].replace('-', '')}T152641"
    shifted = baseline >= "04.00"
    rows = "".join(f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13))
    offsets = f"\n      <BOA_ADD_OFFSET_VALUES_LIST>{rows}</BOA_ADD_OFFSET_VALUES_LIST>" if shifted else ""
    for band in sorted(scene.glob("*.tif")):
        with rasterio.open(band) as file:
            values, gsd, crs, transform = file.read(1), round(file.transform.a), file.crs, file.transform
        target = (
            granule
            / "IMG_DATA"
            / f"R{gsd}m"
            / f"T{square}_{moment[:10].replace('-', '')}T152641_{band.stem}_{gsd}m.jp2"
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        profile = {
            "height": values.shape[0],
            "width": values.shape[1],
            "count": 1,
            "dtype": values.dtype.name,
            "crs": crs,
        }
        with rasterio.open(
            target, "w", driver="JP2OpenJPEG", transform=transform, QUALITY="100", REVERSIBLE="YES", **profile
        ) as file:
            file.write(np.ascontiguousarray(values), 1)
    (product / "MTD_MSIL2A.xml").write_text(XML.format(name=name, moment=moment, baseline=baseline, offsets=offsets))
    (granule / "MTD_TL.xml").write_text("<Level-2A_Tile_ID/>")
    for empty in ("AUX_DATA", "DATASTRIP", "HTML", "rep_info"):
        (product / empty).mkdir()
    (product / "manifest.safe").write_text("<manifest/>")
    return product
