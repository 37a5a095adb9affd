"""Notebooks run from top to bottom on the embedded data; what lies beside the sources is their rendering, with pictures."""

from __future__ import annotations

import json
import re

import pytest

from tests.markdown_blocks import ROOT

SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
SLOW = {"01_pipeline", "02_train_your_own_model", "05_archives_and_dask", "07_performance"}
"""Those that take more than five seconds; `make proof` runs them too."""


def cells(source):
    """Kind and text of every cell of a percent-format source."""
    parts = re.split(r"^# %%(.*)\n", source.split("# ---\n", 2)[2], flags=re.MULTILINE)[1:]
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in kind:
            yield "markdown", re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)
        else:
            yield "code", text.strip()


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    "source",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in SOURCES],
    ids=lambda path: path.stem,
)
def test_the_notebook_runs_from_top_to_bottom(source, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("sklearn")
    plt.switch_backend("Agg")
    (tmp_path / "sample_tiles").symlink_to(ROOT / "sample_tiles")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for kind, text in cells(source.read_text(encoding="utf-8")):
            if kind == "code":
                exec(compile(text, source.name, "exec"), names)
        assert plt.get_fignums(), "a notebook shows at least one picture"
    finally:
        plt.close("all")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_rendered_notebook_is_that_of_the_source(source):
    path = source.with_suffix(".ipynb")
    assert path.is_file(), f"render it: python notebooks/render.py {source.stem[:2]}"
    assert path.stat().st_size < 1_000_000
    rendered = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in rendered]
    assert found == list(cells(source.read_text(encoding="utf-8"))), (
        f"render it: python notebooks/render.py {source.stem[:2]}"
    )
    outputs = [output for cell in rendered for output in cell.get("outputs", [])]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs), (
        "a notebook that warns is mended, not rendered"
    )
    words = json.dumps(rendered)
    assert "site-packages" not in words
    assert "/tmp/" not in words
    assert "/home/" not in words
