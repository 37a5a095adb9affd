"""Simulated landscapes with known truth: the ground for tests, the demo and benchmarks of any size.

Real archives have no known truth, so what a method gets wrong can only be measured where the truth was there
first. `landscape` draws polygons for every year and makes satellite images from them; `write_archive` writes
them in the layout of a real archive, with parks, reference points and true hectares beside them.
"""

from __future__ import annotations

from geococa.synthetic.acquisitions import Acquisition
from geococa.synthetic.archive import write_archive
from geococa.synthetic.cover import CLASSES
from geococa.synthetic.label_maps import simple_land_cover
from geococa.synthetic.reference_points import STRATA, draw_samples, draw_validation
from geococa.synthetic.world import Landscape, landscape

__all__ = [
    "CLASSES",
    "STRATA",
    "Acquisition",
    "Landscape",
    "draw_samples",
    "draw_validation",
    "landscape",
    "simple_land_cover",
    "write_archive",
]
