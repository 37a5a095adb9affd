"""From class probabilities to land-cover maps: smooth, stabilise the years, label, minimum mapping unit."""

from __future__ import annotations

from geococa.labelling import label
from geococa.sieving import sieve, sieve_strips
from geococa.smoothing import majority, smooth
from geococa.years import EVIDENCE, estimate_transitions, persistence_matrix, stabilise

__all__ = [
    "EVIDENCE",
    "estimate_transitions",
    "label",
    "majority",
    "persistence_matrix",
    "sieve",
    "sieve_strips",
    "smooth",
    "stabilise",
]
