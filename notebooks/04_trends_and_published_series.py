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
# # 04 Trends, and the published series
#
# The hectares that UNODC and the Government of Colombia published for 31 December of each year, shipped with geococa.

# %%
import matplotlib.pyplot as plt
import pandas as pd

import geococa as coca

national = coca.reference.unodc_national()
series = national.assign(zone="Colombia")[["zone", "year", "area_ha"]]
series.tail(4)

# %% [markdown]
# ## One line through a fall and a rise misleads
# The whole series, and its two halves. The test minds that neighbouring years are alike.

# %%
parts = {
    "2001-2024": series,
    "2001-2012": series[series["year"] <= 2012],
    "2012-2024": series[series["year"] >= 2012],
}
trends = pd.concat({name: coca.area_trend(rows) for name, rows in parts.items()}, names=["years"]).reset_index(level=0)
trends[["years", "slope_ha_per_year", "slope_low", "slope_high", "p_value", "p_value_independent", "lag1", "verdict", "one_line_misleads"]].round(3)

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axis.plot(series["year"], series["area_ha"] / 1000, "o-", color="black", markersize=4, label="published")
for (name, rows), color in zip(parts.items(), ("#d81b60", "#1e88e5", "#1b5e20")):
    slope = trends.loc[trends["years"] == name, "slope_ha_per_year"].iloc[0] / 1000
    middle = (rows["area_ha"] / 1000 - slope * rows["year"]).median()
    axis.plot(rows["year"], middle + slope * rows["year"], color=color, label=f"{name}: {slope:+.1f} thousand ha a year")
axis.set(xlabel="year", ylabel="coca, thousand ha", ylim=(0, None))
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# ## Many parks
# Series of parks with known slopes and an error of each year; the slope's interval takes the errors in, and p-values are adjusted for the number of parks.

# %%
import numpy as np

rng = np.random.default_rng(3)
years = np.arange(2015, 2025)
slopes = {"growing": 12.0, "shrinking": -9.0, "level": 0.0, "noisy": 6.0}
rows = [
    {"zone": zone, "year": year, "area_ha": 150 + slope * (year - 2015) + rng.normal(0, 40 if zone == "noisy" else 8), "se_ha": 8.0}
    for zone, slope in slopes.items()
    for year in years
]
table = pd.DataFrame(rows)
found = coca.area_trend(table)
found.assign(true_slope=found["zone"].map(slopes))[["zone", "true_slope", "slope_ha_per_year", "slope_low", "slope_high", "p_value", "p_adjusted", "verdict"]].round(3)

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for axis, (zone, part) in zip(axes, table.groupby("zone", sort=False)):
    row = found[found["zone"] == zone].iloc[0]
    axis.errorbar(part["year"], part["area_ha"], yerr=1.96 * part["se_ha"], fmt="o", markersize=3, color="black")
    axis.plot(part["year"], row["intercept"] + row["slope_ha_per_year"] * part["year"] if abs(row["intercept"]) > 1000
              else (part["area_ha"] - row["slope_ha_per_year"] * part["year"]).median() + row["slope_ha_per_year"] * part["year"], color="#d81b60")
    axis.set_title(f"{zone}\n{row['verdict']}", fontsize=9)
axes[0].set_ylabel("hectares")
plt.show()

# %% [markdown]
# ## Beside the published figures
# Your hectares for the same years and units, the difference and its size in per cent.

# %%
ours = series.tail(5).assign(area_ha=lambda rows: rows["area_ha"] * 0.97)
coca.reference.compare_with_reference(ours, series).round(1)
