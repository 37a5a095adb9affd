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
# # 01 From tiles to hectares
#
# One simulated tile, stage by stage, from digital numbers to hectares of coca per park and their trend. Run it in the project's folder, or one below it.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")

# %% [markdown]
# ## Scenes
# Digital numbers as stored, with each product's own scale and offset beside them. The offset changes in 2022, with processing baseline 04.00.

# %%
scenes = coca.open_tile("sample_tiles/18NXG", years=[2021, 2022, 2023, 2024])
for scene, baseline, offset in zip(scenes["time"].dt.date.values, scenes["processing_baseline"].values, scenes["offset"].values):
    print(scene, baseline, offset[0])

# %% [markdown]
# ## What can be seen
# True = usable. Clouds and shadows are widened by 60 m; the share of clear ground decides how good a year's image can be.

# %%
clear = coca.clear_sky(scenes, buffer_m=60)
reflectance = coca.to_reflectance(scenes, where=clear)
annual = coca.composite(reflectance, reducer="geomedian")


def picture(image, axis, title):
    rgb = np.stack([image[name].values for name in ("red", "green", "blue")], axis=-1)
    axis.imshow(np.clip(rgb / 0.18, 0, 1))
    axis.set_title(title)
    axis.set_axis_off()


half = int(abs(clear.mean(("y", "x")) - 0.6).values.argmin())  # a date of which about half can be used
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
picture(coca.to_reflectance(scenes).isel(time=half), axes[0], f"{scenes['time'].dt.date.values[half]}, as it was")
axes[1].imshow(clear.isel(time=half), cmap="Greys_r")
axes[1].set_title("usable (white)")
axes[1].set_axis_off()
picture(annual.isel(time=-1), axes[2], "geometric median of 2024")
plt.show()

# %% [markdown]
# ## Features, model, map
# A forest of 60 trees from the sample points, probabilities smoothed in space and joined over the years, patches below 0.25 ha removed.

# %%
names = ["blue", "green", "red", "nir", "swir16", "swir22", "ndvi", "ndmi", "nbr", "bsi"]
features = coca.spectral_features(annual, names)
samples = coca.read_samples("sample_tiles/samples.gpkg")
samples = samples[samples["year"].isin([2021, 2022, 2023, 2024])]
model = coca.train(samples, features, method="random_forest", n_estimators=60, seed=7)
probability = coca.stabilise(coca.smooth(coca.classify(features, model), window=5))
land_cover = coca.sieve(coca.label(probability), min_area_ha=0.25)

parks = coca.read_zones("sample_tiles/parks.gpkg")
coca.figures.map_figure(land_cover, year=2024, zones=parks, width_in=6.5)

# %% [markdown]
# ## Hectares
# Every cell counts with its exact share inside the park and its area on the ellipsoid. What was not seen is a column of its own.

# %%
share = coca.coverage_fraction(parks, coca.Grid.from_xarray(land_cover))
areas = coca.zonal_area(land_cover, share)
table = coca.areas_table(areas)
table[table["land_cover"] == "coca"].pivot(index="zone", columns="year", values="area_ha").round(2)

# %%
closed = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
print("largest gap between the columns and the zone:", float(abs(closed / areas.zone_ha - 1).max()))

# %% [markdown]
# The landscape is simulated, so the truth is known. The tile covers a part of the parks; `inside_ha` counts all tiles, so compare parks that lie in this one.

# %%
import pandas as pd

truth = pd.read_csv("sample_tiles/truth.csv").query("`class` == 'coca'")
mapped = table[table["land_cover"] == "coca"].rename(columns={"zone": "park"})
both = mapped.merge(truth, on=["park", "year"], suffixes=("_mapped", "_true"))
both = both[both["outside_ha"] < 0.01 * both["zone_ha"]]
figure, axis = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
for park, rows in both.groupby("park"):
    axis.scatter(rows["area_ha_true"], rows["area_ha_mapped"], label=park)
limit = 1.05 * both[["area_ha_true", "area_ha_mapped"]].max().max()
axis.plot([0, limit], [0, limit], color="0.6", linewidth=1)
axis.set(xlabel="true hectares of coca", ylabel="mapped hectares", xlim=(0, limit), ylim=(0, limit))
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# Counted pixels are not an estimate: coca is rare, and what else is called coca adds up. Notebook 03 shows what a sample does about it.
#
# Four years are too few for a trend; `area_trend` says so instead of drawing a line.

# %%
coca.area_trend(areas.area_ha.sel(land_cover="coca"))[["zone", "slope_ha_per_year", "slope_low", "slope_high", "p_value", "n_years", "verdict"]]
