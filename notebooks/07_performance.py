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
# # 07 Performance
#
# Where the time goes, and how memory stays bounded. Times are of this machine, while it may be doing other things: look at the ratios.
# Fair comparisons with other tools are in `benchmarks/README.md`.

# %%
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")
grid = coca.Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), (600, 600))
rng = np.random.default_rng(0)
names = ["red", "nir", "swir16", "swir22", "ndvi", "nbr"]


def seconds(function, rounds=3):
    """The fastest of some rounds; the first call, which compiles, is not counted."""
    function()
    spent = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return min(spent)


# %% [markdown]
# ## A forest, beside scikit-learn
# The same forest and the same pixels; labels are equal for every pixel.

# %%
from sklearn.ensemble import RandomForestClassifier

table = pd.DataFrame(rng.random((1500, len(names))), columns=names)
table["class"] = np.where(table["nir"] + 0.3 * rng.random(1500) > 0.6, "forest", "coca")
fitted = RandomForestClassifier(60, max_depth=12, random_state=1, n_jobs=1).fit(table[names].to_numpy(np.float32), table["class"])
model = coca.Model.from_estimator(fitted, features=names, training=table)
values = rng.random((1, len(names), 300, 300), dtype=np.float32)
small = grid.window(0, 300, 0, 300)
features = small.attach(xr.DataArray(values, dims=("time", "feature", "y", "x"), coords={"feature": names}).assign_attrs(kind="features"))
flat = values[0].reshape(len(names), -1).T.copy()
labels = coca.classify(features, model, "labels")
expected = np.array(["", *model.classes])[labels.values.ravel()]
ours = seconds(lambda: coca.classify(features, model, "labels", threads=1))
theirs = seconds(lambda: fitted.predict(flat), rounds=1)
print(f"labels equal: {bool((expected == fitted.predict(flat)).all())}; geococa {theirs / ours:.1f} times as fast, one thread each")

# %% [markdown]
# ## Exact coverage, and hectares
# Computing shares once serves every year; summing is then a walk over stored runs.

# %%
land_cover = coca.synthetic.simple_land_cover((600, 600), seed=1, years=range(2015, 2025))
own = coca.Grid.from_xarray(land_cover)

import geopandas
import shapely

left, bottom, right, top = own.bounds
centres = np.column_stack([rng.uniform(left, right, 60), rng.uniform(bottom, top, 60)])
zones = geopandas.GeoDataFrame({"zone": [f"zone {n}" for n in range(60)]}, geometry=[shapely.Point(xy).buffer(rng.uniform(60, 700)) for xy in centres], crs=own.crs)
share = coca.coverage_fraction(zones, own, allow_outside=True)
spent = {
    "coverage of 60 zones": seconds(lambda: coca.coverage_fraction(zones, own, allow_outside=True)),
    "hectares, 10 years x 60 zones": seconds(lambda: coca.zonal_area(land_cover, share)),
    "sieve, 10 years": seconds(lambda: coca.sieve(land_cover, min_area_ha=0.25), rounds=1),
    "majority 5 x 5, 10 years": seconds(lambda: coca.majority(land_cover, window=5), rounds=1),
}
figure, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
axis.barh(list(spent), [1000 * value for value in spent.values()], color="#1e88e5")
axis.set(xlabel="milliseconds, 600 x 600 pixels", xscale="log")
axis.invert_yaxis()
plt.show()

# %% [markdown]
# ## Memory
# Working memory of the sieve beside the map itself: about 2 bytes a pixel and year here. Larger than memory: `sieve_strips`, Dask arrays, and runs,
# which stream blocks with the widest halo.

# %%
import tracemalloc

peaks = {}
for rows in (150, 300, 600):
    part = own.window(0, rows, 0, 600)
    array = part.attach(xr.DataArray(land_cover.values[:, :rows], dims=("time", "y", "x"))).assign_attrs(land_cover.attrs)
    tracemalloc.start()
    coca.sieve(array, min_area_ha=0.25)
    peaks[f"{rows} rows"] = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
print({name: f"{peak:.0f} MB" for name, peak in peaks.items()}, "for 10 years of 600 columns")

# %% [markdown]
# ## Advice
#
# - One worker a tile, threads within it: `geococa run ... --workers 4`; results do not depend on either number.
# - Keep archives as tiled GeoTIFF or COG; JPEG 2000 decodes several times slower.
# - Fewer trees cost little accuracy: `geococa train --tune` takes the cheapest setting within one standard error of the best.
# - The first call of each kernel compiles, and the compiled code is kept for the next process.
