"""Where a model may be applied: how far each pixel lies from the samples that the model was trained with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, check_threads, is_lazy
from geococa.engines import chunks, in_threads
from geococa.errors import ModelRefused
from geococa.legend import NO_DATA
from geococa.model_features import check_model, check_scale, select_features

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["applicability"]


def applicability(features: xr.DataArray, model: Model, *, threads: int | None = None) -> xr.Dataset:
    """Say how far each pixel is from what the model has seen in training.

    A model answers everywhere, also where it can't know. The dissimilarity index is the distance of a pixel to the
    nearest training point, over the mean distance between two training rows, in features that are standardised and
    (where the importance of features is known) weighted by it. A pixel is inside the area of applicability while its
    index does not exceed that which training rows have to rows of other spatial folds, outliers left out (largest value
    within 1.5 interquartile ranges of the upper quartile): there the accuracy of cross-validation may be expected.

    Parameters
    ----------
    features : xarray.DataArray
        float ``([time,] feature, y, x)`` with the coordinate ``feature``, as for `geococa.classify`.
    model : Model
        With training data: from `geococa.train` (by any method), from `geococa.Model.from_estimator` with
        ``training=``, or after `geococa.Model.with_training_data`.
    threads : int, optional
        Threads over blocks of pixels; one for each processor where not given. Results do not depend on it.

    Returns
    -------
    xarray.Dataset
        ``outside_share``, float32 ``([time,] y, x)``: share of the model's features that lie outside their range in the
        training rows, NaN = not observed. (Where the method takes missing features, ``twdtw``, of those that are known;
        for the dissimilarity they are filled in from the pattern of the nearest class.) ``dissimilarity``, float32: the index, 0 = a training point, NaN = not
        observed. ``inside``, uint8: 1 = inside, 0 = outside, 255 = not observed. The threshold is in the attributes.
        Dask in gives Dask out, the same bytes.

    Raises
    ------
    ModelRefused
        The model has no training data, or the features do not fit it.

    References
    ----------
    Meyer, H. and Pebesma, E. (2021), Predicting into unknown space? Estimating the area of applicability of spatial
    prediction models, Methods in Ecology and Evolution 12, 1620-1633.

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> from geococa import train
    >>> ndvi = np.linspace(0.2, 0.9, 50)
    >>> model = train(pd.DataFrame({"class": np.where(ndvi > 0.6, "forest", "coca"), "ndvi": ndvi}), n_estimators=5)
    >>> seen = xr.DataArray(np.float32([[[0.5, 3.0]]]), dims=("feature", "y", "x"), coords={"feature": ["ndvi"]})
    >>> applicability(seen, model)["inside"].values.tolist()
    [[1, 0]]
    """
    check_model(model)
    threads = check_threads(threads)
    if model.training_set is None or model.training_range is None:
        raise ModelRefused(
            "the model does not know its training rows; give them with model.with_training_data(table) or "
            "Model.from_estimator(fitted, training=table), or train it anew with geococa.train"
        )
    check_kind(features, "features")
    check_dims(features, "feature", "y", "x", optional=("time",))
    selected = select_features(features, model)
    if is_lazy(selected):
        layers = _lazy(selected.data, selected.get_axis_num("feature"), model)
    else:
        layers = _measure(np.asarray(selected.data), model, threads)
    threshold = np.float32(model.training_set.threshold)
    inside = (layers[1] <= threshold).astype(np.uint8)
    inside[np.isnan(layers[1])] = NO_DATA
    made = {
        "outside_share": (layers[0], "share of features outside their training range"),
        "dissimilarity": (layers[1], "distance to the training data over the mean distance within it"),
        "inside": (inside, "inside the area of applicability"),
    }
    out = xr.Dataset({name: _wrap(name, data, text, selected, model) for name, (data, text) in made.items()})
    out.attrs = {"kind": "applicability", "threshold": float(threshold), "model_sha256": model.sha256}
    return out


def _lazy(data: Any, axis: int, model: Model) -> Any:
    import dask.array

    data = data.rechunk({axis: -1})
    return dask.array.map_blocks(
        _measure, data, model, 1, dtype=np.float32, drop_axis=axis, new_axis=0,
        chunks=((2,), *data.chunks[:axis], *data.chunks[axis + 1 :]), meta=np.empty((0,) * data.ndim, np.float32),
    )  # fmt: skip


def _measure(stack: np.ndarray, model: Model, threads: int | None) -> np.ndarray:
    """Outside share and dissimilarity float32 ``(2, [time,] y, x)`` of ``([time,] feature, y, x)``."""
    *lead, n_features, rows, columns = stack.shape
    planes = np.ascontiguousarray(stack).reshape((math.prod(lead), n_features, rows * columns))
    out = np.empty((2, len(planes), rows * columns), np.float32)
    if planes.size and model.training_set is not None:
        model.training_set.prepare()

    def work(job: tuple[int, slice]) -> None:
        time, pixels = job
        _measure_chunk(planes[time, :, pixels], model, out[:, time, pixels])

    in_threads(work, [(time, part) for time in range(len(planes)) for part in chunks(rows * columns)], threads)
    return out.reshape(2, *lead, rows, columns)


def _measure_chunk(planes: np.ndarray, model: Model, out: np.ndarray) -> None:
    assert model.training_set is not None
    assert model.training_range is not None
    planes = planes if planes.dtype == np.float32 else planes.astype(np.float64)
    observed = model.plane_observed(planes)
    out[:] = np.nan
    if not observed.any():
        return
    seen = np.ascontiguousarray(planes[:, observed])
    check_scale(seen, model)
    low, high = model.training_range[:, :, None]
    # a feature that is missing lies neither inside nor outside
    known = np.maximum(np.isfinite(seen).sum(axis=0), 1)
    out[0, observed] = ((seen < low) | (seen > high)).sum(axis=0) / known
    seen = np.ascontiguousarray(model.plane_filled(seen))
    out[1, observed] = np.minimum(model.training_set.dissimilarity(seen), np.finfo(np.float32).max)


def _wrap(name: str, data: Any, text: str, features: xr.DataArray, model: Model) -> xr.DataArray:
    assert model.training_set is not None
    dims = [str(dim) for dim in features.dims if dim != "feature"]
    coords = {
        str(key): coord for key, coord in features.coords.items() if "feature" not in coord.dims and key != "feature"
    }
    attrs: dict[str, Any] = {"kind": name, "units": "1", "long_name": text}
    if name == "inside":
        attrs |= {"nodata": NO_DATA, "flag_values": np.array([0, 1], np.uint8), "flag_meanings": "outside inside"}
    if name != "outside_share":
        attrs["threshold"] = float(np.float32(model.training_set.threshold))
    out = xr.DataArray(data, dims=dims, coords=coords, name=name, attrs=attrs)
    if "grid_mapping" in features.attrs:
        out.attrs["grid_mapping"] = features.attrs["grid_mapping"]
    out.encoding = {key: value for key, value in features.encoding.items() if key == "grid_mapping"}
    return out
