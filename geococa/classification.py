"""classify: from features to class probabilities or labels, whole or lazily, the same bytes either way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, check_threads, is_lazy
from geococa.engines import UNSEEN, chunks, in_threads
from geococa.errors import InputRefused, KindMismatch, ModelRefused
from geococa.legend import NO_DATA
from geococa.model_features import check_model, check_scale, select_features

if TYPE_CHECKING:
    from geococa.models import Model

__all__ = ["classify"]


def classify(
    features: xr.DataArray, model: Model, output: str | None = None, *, threads: int | None = None
) -> xr.DataArray | xr.Dataset:
    """Give every pixel the model's class probabilities or class fractions, its label, or both.

    Features are matched by name, so their order does not matter and further ones are ignored. A pixel with a
    feature that is NaN or infinite counts as not observed (for models without trees, also one beyond single
    precision); for models that take missing features (``twdtw``), a pixel without any date does. Dask in gives Dask
    out, and nothing is computed.

    Parameters
    ----------
    features : xarray.DataArray
        float32 (or float64, or integers) ``([time,] feature, y, x)`` with the coordinate ``feature``.
    model : Model
        From `geococa.train`, `geococa.Model.from_estimator` or `geococa.read_model`.
    output : {"probability", "fraction", "labels", "both"}, optional
        What the model gives where not given: ``"probability"`` from classifiers, ``"fraction"`` from models of the
        methods ``fraction`` and ``unmixing``; one is never taken for the other. Labels alone are about twice as
        fast, since a forest may stop when a pixel's lead is safe.
    threads : int, optional
        Threads over blocks of pixels; one for each processor where not given. Dask arrays are left to Dask's
        own scheduler. Results do not depend on it.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        ``"probability"``: float32 ``([time,] land_cover, y, x)``, sums to 1, NaN = not observed; within 1e-6 of
        `Model.predict_proba`.
        ``"fraction"``: the same with the area share of each class in the pixel, ``kind="fraction"``, from which
        `geococa.zonal_area` sums hectares.
        ``"labels"``: uint8 ``([time,] y, x)`` with CF flags, 255 = not observed, 0 = unclassified (no class
        near enough, where the model rejects); of fractions the largest. ``"both"``: a Dataset with ``probability`` (or
        ``fraction``) and ``labels``.

    Raises
    ------
    ModelRefused
        Features are missing, or are on another scale than those the model was trained with, by their values (see
        `geococa.model_features.check_scale`) or by what they state of their units and scale; or the output asked for
        is not what the model gives. Of Dask arrays, values are checked when they are computed.
    InputRefused
        ``threads`` is no whole number of at least 1, or features are no numbers.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from geococa import Model
    >>> model = Model.from_rules({"classes": ["bare_soil", "forest"], "tree": {
    ...     "test": "ndvi <= 0.3", "yes": {"class": "bare_soil"}, "no": {"class": "forest"}}})
    >>> ndvi = xr.DataArray(np.array([[[0.1, 0.8, np.nan]]], "float32"), dims=("feature", "y", "x"),
    ...                     coords={"feature": ["ndvi"]})
    >>> classify(ndvi, model, output="labels").values.tolist()
    [[1, 2, 255]]
    """
    check_model(model)
    output = _output(output, model)
    threads = check_threads(threads)
    check_kind(features, "features")
    if not isinstance(features, xr.DataArray):
        raise KindMismatch(
            "expected features as a DataArray (feature, y, x), got a Dataset; make one with .to_dataarray('feature')"
        )
    check_dims(features, "feature", "y", "x", optional=("time",))
    selected = select_features(features, model)
    kinds = {model.output: [model.output], "labels": ["land_cover"], "both": [model.output, "land_cover"]}
    made = [_wrap(kind, _apply(selected, model, kind, threads), selected, model) for kind in kinds[output]]
    if output == "both":
        # the dim of probabilities is called land_cover, so the labels need another name here
        return xr.Dataset({model.output: made[0], "labels": made[1]}, attrs={"model_sha256": model.sha256})
    return made[0]


def _output(asked: str | None, model: Model) -> str:
    if asked is None:
        return model.output
    if asked not in ("probability", "fraction", "labels", "both"):
        raise InputRefused(f"output must be 'probability', 'fraction', 'labels' or 'both', got {asked!r}")
    if asked in ("probability", "fraction") and asked != model.output:
        raise ModelRefused(
            f"this model gives a {model.output} of each class, not a {asked}: the probability that a pixel is coca is not the "
            f"share of it that is coca; use output={model.output!r}, or train a model of the other sort"
        )
    return asked


def _apply(features: xr.DataArray, model: Model, name: str, threads: int | None) -> Any:
    """Array of one output, ``([time,] land_cover, y, x)`` or ``([time,] y, x)``; lazy for lazy features."""
    axis = features.get_axis_num("feature")
    if not is_lazy(features):
        return _classify_stack(np.asarray(features.data), model, name, threads)
    data = features.data.rechunk({axis: -1})
    dtype: Any = np.uint8 if name == "land_cover" else np.float32
    if name != "land_cover":
        chunks = (*data.chunks[:axis], (len(model.classes),), *data.chunks[axis + 1 :])
        return data.map_blocks(
            _classify_stack, model, name, 1, dtype=dtype, chunks=chunks, meta=np.empty((0,) * data.ndim, dtype)
        )
    return data.map_blocks(
        _classify_stack, model, name, 1, dtype=dtype, drop_axis=axis, meta=np.empty((0,) * (data.ndim - 1), dtype)
    )


def _classify_stack(stack: np.ndarray, model: Model, name: str, threads: int | None) -> np.ndarray:
    """Classify ``([time,] feature, y, x)`` in chunks of pixels."""
    *lead, n_features, rows, columns = stack.shape
    planes = np.ascontiguousarray(stack).reshape((math.prod(lead), n_features, rows * columns))
    if name != "land_cover":
        out = np.empty((len(planes), len(model.classes), rows * columns), dtype=np.float32)
    else:
        out = np.empty((len(planes), rows * columns), dtype=np.uint8)

    def work(job: tuple[int, slice]) -> None:
        time, pixels = job
        _classify_chunk(planes[time, :, pixels], model, out[time, ..., pixels])

    jobs = [(time, pixels) for time in range(len(planes)) for pixels in chunks(rows * columns)]
    in_threads(work, jobs, threads)
    shape = (*lead, len(model.classes), rows, columns) if name != "land_cover" else (*lead, rows, columns)
    return out.reshape(shape)


def _classify_chunk(planes: np.ndarray, model: Model, out: np.ndarray) -> None:
    """Classify one chunk ``(features, pixels)`` into ``out``: probabilities ``(classes, pixels)`` or labels ``(pixels,)``."""
    planes = planes.astype(model.plane_dtype(planes.dtype), copy=False)
    if out.ndim == 1 and model.marks_gaps:
        gaps = model.plane_codes(planes, out)
        seen = planes[:, out != UNSEEN] if gaps else planes
        if seen.shape[1]:
            check_scale(seen, model)
        return
    observed = model.plane_observed(planes)
    every = bool(observed.all())
    if not every:
        planes = planes[:, observed]
    if planes.shape[1]:
        check_scale(planes, model)
    if out.ndim == 2:
        found = model.plane_probabilities(planes, exact=False) if planes.shape[1] else np.empty((len(out), 0))
        if every:
            out[:] = found
        else:
            out[:] = np.nan
            out[:, observed] = found
        return
    # codes rise by 1 in the order of the classes, mostly from 1; a rejected pixel, index -1, is UNCLASSIFIED, 0
    first = model.legend.codes[0]
    index = model.plane_labels(planes) if planes.shape[1] else np.empty(0, np.int32)
    if every:
        np.add(index, first, out=out, casting="unsafe")
    else:
        out[:] = NO_DATA
        out[observed] = (index + first).astype(np.uint8)


def _wrap(name: str, data: Any, features: xr.DataArray, model: Model) -> xr.DataArray:
    dims = [str(dim) for dim in features.dims if dim != "feature"]
    kept = {
        str(key): coord for key, coord in features.coords.items() if "feature" not in coord.dims and key != "feature"
    }
    attrs: dict[str, Any] = {"kind": name, "units": "1", "model_sha256": model.sha256, **model.legend.to_attrs()}
    encoding = {"grid_mapping": features.encoding["grid_mapping"]} if "grid_mapping" in features.encoding else {}
    if name != "land_cover":
        dims.insert(dims.index("y"), "land_cover")
        kept["land_cover"] = xr.DataArray(list(model.classes), dims="land_cover")
        attrs["long_name"] = "class probability" if name == "probability" else "area share of the class"
        out = xr.DataArray(data, coords=kept, dims=dims, name=name, attrs=attrs)
    else:
        legend = model.legend.with_unclassified()
        attrs = {
            **attrs,
            **legend.to_attrs(),
            "nodata": NO_DATA,
            "_FillValue": np.uint8(NO_DATA),
            "long_name": "land cover",
        }
        out = xr.DataArray(data, coords=kept, dims=dims, name=name, attrs=attrs)
    if "grid_mapping" in features.attrs:
        out.attrs["grid_mapping"] = features.attrs["grid_mapping"]
    out.encoding = encoding
    return out
