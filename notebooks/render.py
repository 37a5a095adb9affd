"""Runs the notebooks and writes them with their output: ``python notebooks/render.py [NAME ...]``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat

HERE = Path(__file__).resolve().parent


def render(source: Path) -> Path:
    """Run one source in the project's folder and write the notebook beside it."""
    notebook = jupytext.read(source)
    notebook.metadata.pop("jupytext", None)
    # figures made without pyplot are shown as pictures too
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%matplotlib inline"))
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(HERE.parent)}}).execute()
    notebook.cells.pop(0)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same source gives the same ids
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    target = source.with_suffix(".ipynb")
    nbformat.write(notebook, target)
    return target


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    wanted = sys.argv[1:]
    failed = False
    for path in sorted(HERE.glob("[0-9]*.py")):
        if wanted and not any(path.name.startswith(name) for name in wanted):
            continue
        try:
            made = render(path)
            sys.stdout.write(f"{made.name}: {made.stat().st_size / 1e3:.0f} kB\n")
        except nbclient.exceptions.CellExecutionError as error:
            failed = True
            sys.stdout.write(f"{path.name} failed: {str(error)[-900:]}\n")
        sys.stdout.flush()
    sys.exit(failed)
