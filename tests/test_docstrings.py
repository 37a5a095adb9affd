"""Every public name has an example, and every example runs."""

from __future__ import annotations

import doctest
import importlib
import inspect

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import geococa as coca
from tests.markdown_blocks import ROOT


def _objects():
    found = {f"geococa.{name}": (f"geococa.{module}", getattr(coca, name)) for name, module in coca._HOME.items()}
    for module in coca._MODULES:
        home = getattr(coca, module)
        for name in getattr(home, "__all__", ()):
            value = getattr(home, name)
            if callable(value) and not (inspect.isclass(value) and issubclass(value, Exception)):
                found[f"geococa.{module}.{name}"] = (f"geococa.{module}", value)
    return found


PUBLIC = _objects()

WITHOUT = {
    "geococa.composite_area",
    "geococa.cutoff_area",
    "geococa.domain_area",
    "geococa.draw_segments",
    "geococa.figures.area_series_figure",
    "geococa.figures.change_map_figure",
    "geococa.figures.edge_profile_figure",
    "geococa.figures.error_matrix_figure",
    "geococa.figures.map_figure",
    "geococa.figures.reliability_diagram",
    "geococa.figures.transitions_figure",
    "geococa.hazards_from_panel",
    "geococa.merge_areas",
    "geococa.merge_plots",
    "geococa.open_tile",
    "geococa.publish.public_areas",
    "geococa.publish.public_cells",
    "geococa.read_backscatter",
    "geococa.run_archive",
    "geococa.run_tile",
    "geococa.search_stac",
    "geococa.skill_table",
    "geococa.synthetic.Acquisition",
    "geococa.synthetic.Landscape",
    "geococa.synthetic.draw_samples",
    "geococa.synthetic.draw_validation",
    "geococa.synthetic.write_archive",
    "geococa.write_response_sheet",
}
"""Names that still have no example; a name leaves this list when it gets one, none is added."""


def _examples(name):
    _, value = PUBLIC[name]
    home = importlib.import_module(value.__module__)
    finder = doctest.DocTestFinder(exclude_empty=True)
    usual = {"np": np, "pd": pd, "xr": xr, "coca": coca, "train": coca.train}
    return finder.find(value, name, module=home, globs=usual | vars(home))


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_the_examples_of_a_public_name_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample_tiles").symlink_to(ROOT / "sample_tiles")
    ran = 0
    for test in _examples(name):
        test.globs["getfixture"] = lambda fixture: tmp_path
        failures: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(
            test, out=failures.append
        )
        assert result.failed == 0, "".join(failures)
        ran += sum(not example.options.get(doctest.SKIP, False) for example in test.examples)
    assert (ran > 0) == (name not in WITHOUT), f"{name}: {ran} examples run; is the list of those without one right?"
