"""Engine of linear spectral unmixing: class shares of pixels from the spectra of endmembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geococa.engines import REJECTED

__all__ = ["Unmixing"]


class Unmixing:
    """Fully constrained least squares: shares that are not negative, sum to one, and mix up to the pixel best.

    Parameters
    ----------
    arrays : mapping
        ``endmember`` float64 ``(endmembers, features)``; ``whitening`` float64 ``(features, features)``, the lower
        triangular matrix that misfits are multiplied with; ``owner`` int32 ``(endmembers,)``, class of each.
    settings : mapping
        Not used.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> None:
        self._owner = np.ascontiguousarray(arrays["owner"], dtype=np.int32)
        self._n_classes = int(self._owner.max()) + 1
        self._problem = simplex_problem(arrays["endmember"], arrays["whitening"])

    def probabilities(self, planes: np.ndarray, *, exact: bool = True) -> np.ndarray:
        """Shares float64 ``(classes, pixels)`` of ``planes`` ``(features, pixels)``; NaN where a feature is not finite."""
        from geococa._kernels import unmixing

        out = np.empty((self._n_classes, planes.shape[1]))
        with np.errstate(invalid="ignore"):  # only the uncompiled kernel would warn of infinity less infinity
            unmixing.unmix(np.ascontiguousarray(planes), *self._problem, self._owner, out)
        return out

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """Class of the largest share, int32 ``(pixels,)``, the first of equals; rejected where a feature is not finite."""
        shares = self.probabilities(planes)
        best = shares.argmax(axis=0).astype(np.int32)
        best[np.isnan(shares[0])] = REJECTED
        return best


def simplex_problem(endmember: np.ndarray, whitening: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Centre, projection, constant and Gram matrix as `_kernels.unmixing.unmix` takes them."""
    centre = endmember.mean(axis=0)
    whitened = (endmember - centre) @ whitening.T
    constant = float((whitened**2).sum() / len(endmember)) or 1.0
    gram = whitened @ whitened.T + constant
    return centre, np.ascontiguousarray(whitened @ whitening), constant, np.ascontiguousarray((gram + gram.T) / 2)
