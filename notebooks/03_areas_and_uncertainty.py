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
# # 03 Areas and their uncertainty
#
# A map counts pixels; a probability sample says how many hectares there are. A simulated map with known errors shows the difference.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")

# %% [markdown]
# ## Truth, and a map that misses some of it
# A twentieth of the coca is missed, and 1 % of everything else is called coca.

# %%
truth = coca.synthetic.simple_land_cover((600, 600), seed=4, years=(2024,), unobserved=0.0).isel(time=0)
rng = np.random.default_rng(1)
codes = truth.values.copy()
codes[(truth.values == 1) & (rng.random(codes.shape) < 0.05)] = 2
codes[(truth.values != 1) & (rng.random(codes.shape) < 0.01)] = 1
mapped = truth.copy(data=codes)
coca.figures.map_figure(mapped, title="a map with errors", width_in=5.5)

# %%
cell_ha = coca.Grid.from_xarray(truth).cell_area_ha()
counted, true = (float((array.values == 1) @ np.ones(600) @ np.ones(600) * cell_ha.mean()) for array in (mapped, truth))
print(f"true {true:.0f} ha, counted {counted:.0f} ha: {100 * (counted / true - 1):+.0f} %")

# %% [markdown]
# ## A sample, its labels, an estimate
# 500 points, stratified by the map, more of them where coca is likely. Here the labels come from the truth; in life from interpreters (`geococa sheet`).

# %%
def labelled(seed, n=500):
    points = coca.sample_design(mapped, n, seed=seed)
    grid = coca.Grid.from_xarray(truth)
    place = points.to_crs(grid.crs).geometry
    columns = ((place.x - grid.transform.c) / grid.transform.a).astype(int)
    rows = ((place.y - grid.transform.f) / grid.transform.e).astype(int)
    names = dict(zip(coca.Legend.from_attrs(truth.attrs).codes, coca.Legend.from_attrs(truth.attrs).names))
    reference = [names[code] for code in truth.values[rows, columns]]
    return points.assign(**{"class": reference})


def estimate(points):
    matrix = pd.crosstab(points["stratum"], points["class"])
    every = sorted(set(matrix.index) | set(matrix.columns))
    matrix = matrix.reindex(index=every, columns=every, fill_value=0)
    area = points.drop_duplicates("stratum").set_index("stratum")["stratum_area_ha"].reindex(every).fillna(0)
    keep = [name for name in every if area[name] > 0]
    return coca.adjusted_area(matrix.loc[keep, keep], mapped_area_ha=area[keep], interval="wilson")


points = labelled(seed=1)
result = estimate(points)
result.loc[["coca", "forest", "pasture"], ["mapped_area_ha", "area_ha", "se_ha", "ci_low_ha", "ci_high_ha", "users_accuracy", "producers_accuracy"]].round(2)

# %% [markdown]
# ## Does the interval hold?
# Forty samples, drawn anew each time: about 38 of the 95 % intervals should hold the truth.

# %%
rows = [estimate(labelled(seed)).loc["coca", ["area_ha", "ci_low_ha", "ci_high_ha"]] for seed in range(40)]
many = pd.DataFrame(rows).astype(float).reset_index(drop=True)
holds = (many["ci_low_ha"] <= true) & (true <= many["ci_high_ha"])
figure, axis = plt.subplots(figsize=(7.5, 3.2), layout="constrained")
axis.vlines(many.index, many["ci_low_ha"], many["ci_high_ha"], color=np.where(holds, "#1e88e5", "#d81b60"))
axis.scatter(many.index, many["area_ha"], color="black", s=10, zorder=3)
axis.axhline(true, color="0.3", linewidth=1)
axis.axhline(counted, color="0.6", linestyle="--", linewidth=1)
axis.annotate("counted", (39.5, counted), ha="right", va="bottom", fontsize=8)
axis.annotate("true", (39.5, true), ha="right", va="bottom", fontsize=8)
axis.set(xlabel="sample", ylabel="hectares of coca")
plt.show()
print(f"{holds.sum()} of 40 intervals hold the truth; mean estimate {many['area_ha'].mean():.0f} ha")

# %% [markdown]
# ## What was not seen
# Half of the map under cloud: the counted hectares halve, the zone's columns still add up.

# %%
import geopandas
import shapely

grid = coca.Grid.from_xarray(mapped)
park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(*grid.bounds).buffer(-500)], crs=grid.crs)
share = coca.coverage_fraction(park, grid)
cloudy = mapped.copy(data=np.where(np.arange(600)[:, None] < 300, 255, mapped.values).astype("uint8"))
for what, array in (("clear", mapped), ("half under cloud", cloudy)):
    areas = coca.zonal_area(array, share)
    print(f"{what:17s} coca {float(areas.area_ha.sel(land_cover='coca').sum()):6.0f} ha, unobserved {float(areas.unobserved_ha.sum()):6.0f} ha, "
          f"zone {float(areas.zone_ha.sum()):6.0f} ha")
