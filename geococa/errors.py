"""The errors of geococa: every message says what was found, what was expected and the remedy."""

from __future__ import annotations

__all__ = [
    "AccuracyError",
    "ArchiveBusy",
    "CRSMismatch",
    "DiskFull",
    "GeococaError",
    "GridMismatch",
    "InputRefused",
    "KindMismatch",
    "MissingExtra",
    "ModelRefused",
    "NoPositives",
    "OffsetConflict",
    "RecipeError",
    "SampleLeak",
    "UnknownOffset",
    "ZoneError",
]


class GeococaError(Exception):
    """Base of all errors that geococa raises on purpose.

    Attributes
    ----------
    exit_code : int
        Exit status of the command line when this error ends it.
    """

    exit_code = 4


class InputRefused(GeococaError):
    """A file or value was read and can't be used; the message names it and the remedy."""


class KindMismatch(InputRefused):
    """A stage got the product of another stage, for example a label map where features were expected."""


class GridMismatch(InputRefused):
    """Two arrays that must share a grid do not."""


class CRSMismatch(GridMismatch):
    """Two layers are in different coordinate reference systems, or one has none."""


class UnknownOffset(InputRefused):
    """The scale or offset of a product is not known, so its digital numbers are not reflectance."""


class OffsetConflict(InputRefused):
    """The data of a series contradict their offsets: some dates are shifted against the others, or none can be right."""


class ZoneError(InputRefused):
    """A zone layer is unusable: no polygons, no name column, duplicate names, geometry beyond repair."""


class ModelRefused(InputRefused):
    """A model file or estimator failed validation, or its features do not fit the data."""


class AccuracyError(InputRefused):
    """An accuracy or area estimate is not defined for the samples given."""


class NoPositives(AccuracyError):
    """A fold or test set holds no sample of the class in question, so no score exists."""


class SampleLeak(AccuracyError):
    """Training and test samples share a pixel or a spatial block."""


class MissingExtra(GeococaError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 1


class RecipeError(GeococaError):
    """A recipe file is not valid."""

    exit_code = 2


class ArchiveBusy(GeococaError):
    """Another job holds the output folder."""

    exit_code = 5


class DiskFull(GeococaError):
    """A disk has no room for the outputs; what is finished is kept, and the same command resumes."""

    exit_code = 1
