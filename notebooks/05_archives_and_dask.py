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
# # 05 Archives, resuming, and Dask

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## What is in an archive
# Tile folders with their scenes; only headers and metadata are read.

# %%
tiles = coca.find_tiles("sample_tiles")
pd.DataFrame({"tile": tile.tile, "sensor": tile.sensor, "scenes": len(tile.scenes), "years": f"{tile.years[0]}-{tile.years[-1]}",
              "crs": tile.grid.crs.to_string(), "cells": " x ".join(map(str, tile.grid.shape))} for tile in tiles)

# %% [markdown]
# The tiles overlap, and lie in different UTM zones. Every place belongs to one of them, so nothing is counted twice.

# %%
owned = coca.own_tiles(tiles)
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
owned.plot(ax=axis, column="tile", cmap="Set2", edgecolor="black", legend=True)
coca.read_zones("sample_tiles/parks.gpkg").boundary.plot(ax=axis, color="0.3", linewidth=0.8)
axis.set(xlabel="longitude", ylabel="latitude")
plt.show()

# %% [markdown]
# ## A small archive to run
# Two tiles, two years, made here; the recipe asks for few trees, so that it takes seconds.

# %%
world = coca.synthetic.landscape(size_m=700, tiles=2, years=range(2022, 2024), dates_per_year=2, cloud_cover=0.2, seed=5)
archive = coca.synthetic.write_archive(world, folder / "archive")
(archive / "recipe.toml").write_text("""
[features]
names = ["red", "nir", "swir16", "ndvi", "nbr"]
[model]
samples = "samples.gpkg"
options = { n_estimators = 20 }
[zones]
path = "parks.gpkg"
""")
plan = coca.plan_archive(archive, archive / "recipe.toml", folder / "out")
plan.tasks[["tile", "action"]] if "tile" in plan.tasks else plan.tasks

# %%
first = coca.run_archive(archive, archive / "recipe.toml", out=folder / "out", threads=1)
print("computed", first.computed, "reused", first.reused)

# %% [markdown]
# Run it again, and nothing is computed: the same inputs and settings gave the files that are there. Change the minimum mapping unit, and the maps are made anew.

# %%
again = coca.run_archive(archive, archive / "recipe.toml", out=folder / "out", threads=1)
print("computed", again.computed, "reused", again.reused)
areas = pd.read_csv(folder / "out" / "areas.csv")
areas[areas["land_cover"] == "coca"][["zone", "year", "area_ha", "unobserved_ha", "zone_ha"]].round(2).head(6)

# %% [markdown]
# ## Dask
# Open with `chunks=` and every stage stays lazy; nothing is read before it is asked for. The result is the same to the bit.

# %%
lazy = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red", "nir", "swir16"], chunks={"y": 110, "x": 110})
clear = coca.clear_sky(lazy, buffer_m=60)
annual = coca.composite(coca.to_reflectance(lazy, where=clear))
ndvi = coca.spectral_features(annual, ["ndvi"])
print(ndvi.chunks, "nothing computed yet")

# %%
eager = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red", "nir", "swir16"])
expected = coca.spectral_features(coca.composite(coca.to_reflectance(eager, where=coca.clear_sky(eager, buffer_m=60))), ["ndvi"])
assert ndvi.compute().equals(expected.compute())
figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
shown = axis.imshow(ndvi.squeeze(), cmap="YlGn", vmin=0, vmax=1)
figure.colorbar(shown, ax=axis, label="NDVI, 2024")
axis.set_axis_off()
plt.show()
