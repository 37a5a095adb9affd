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
# # 02 Train your own model, and find out whether it is any good

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import geococa as coca

if not Path("sample_tiles").is_dir():
    os.chdir("..")

scenes = coca.open_tile("sample_tiles/18NXG", years=[2022, 2023, 2024])
reflectance = coca.to_reflectance(scenes, where=coca.clear_sky(scenes, buffer_m=60))
annual = coca.composite(reflectance, reducer="median")
features = coca.spectral_features(annual, ["green", "red", "nir08", "swir16", "swir22", "ndvi", "ndmi", "nbr", "bsi"])

# %% [markdown]
# ## A training table
# The feature values under every sample point, with the block of ground it lies in.

# %%
samples = coca.read_samples("sample_tiles/samples.gpkg")
samples = samples[samples["year"] >= 2022]
table = coca.training_table(samples, features, block_m=300)
names = [str(name) for name in features["feature"].values]
print(len(table), "rows;", table["class"].value_counts().to_dict())

# %% [markdown]
# ## Random folds flatter
# Neighbouring pixels are alike. With folds of whole blocks and a buffer, no pixel is tested beside its neighbours in training. Both scores are those of coca.

# %%
how = {"method": "random_forest", "n_estimators": 40, "seed": 1, "positive": "coca"}
fair = coca.cross_validate(table, names, folds=4, block_m=300, buffer_m=60, **how)
flattering = coca.cross_validate(table, names, folds=4, block_m=10, buffer_m=0, **how)
for what, found in (("whole blocks with a buffer", fair), ("single pixels", flattering)):
    print(f"{what:28s} F1 of coca {found.by_class.loc['coca', 'f1']:.2f}")

# %%
coca.figures.error_matrix_figure(fair.matrix(), title="Folds of whole blocks")

# %% [markdown]
# ## Which method?
# The same folds for every method.

# %%
scores = {}
for method, options in {
    "random_forest": {"n_estimators": 40},
    "extra_trees": {"n_estimators": 40},
    "gaussian": {},
    "spectral_angle": {},
}.items():
    found = coca.cross_validate(table, names, folds=4, block_m=300, buffer_m=60, method=method, seed=1, positive="coca", **options)
    scores[method] = float(found.by_class.loc["coca", "f1"])
figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
axis.barh(list(scores), list(scores.values()), color="#d81b60")
axis.set(xlabel="F1 of coca, folds of whole blocks", xlim=(0, 1))
axis.invert_yaxis()
plt.show()

# %% [markdown]
# ## What matters, and do probabilities hold?
# The score that is lost when one feature is shuffled, and predicted against observed shares, both on rows that the model has not seen.

# %%
training, held_out = coca.split_samples(table, 0.3, block_m=300, buffer_m=30, seed=3)
model = coca.train(training, names, method="random_forest", n_estimators=60, seed=7)
importance = coca.permutation_importance(model, held_out, repeats=3, seed=1, positive="coca")
print(importance.round(3).head(5))
coca.figures.reliability_diagram(coca.reliability(model, held_out, bins=5))

# %% [markdown]
# ## Where does it apply?
# Dissimilarity to the training samples: the model guesses where the map is bright.

# %%
where = coca.applicability(features.isel(time=[-1]), model)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
most = float(where["dissimilarity"].quantile(0.98))
shown = axes[0].imshow(where["dissimilarity"].squeeze(), cmap="magma", vmin=0, vmax=most)
figure.colorbar(shown, ax=axes[0], shrink=0.7, label="dissimilarity index")
axes[1].imshow(coca.label(coca.classify(features.isel(time=[-1]), model)).squeeze() == model.legend.code("coca"), cmap="Greys")
axes[1].set_title("coca, 2024")
for axis in axes:
    axis.set_axis_off()
plt.show()

# %% [markdown]
# ## Keep it
# One file of plain arrays, never pickle. The same model gives the same bytes.

# %%
import tempfile

path = Path(tempfile.mkdtemp()) / "coca.model"
model.write(path)
again = coca.read_model(path)
print(f"{path.stat().st_size / 1e3:.0f} kB, {again.kind}, classes {', '.join(again.classes)}")
assert np.array_equal(coca.classify(features, again), coca.classify(features, model), equal_nan=True)
