"""Pages made from the code at every build: the API by stage, the commands, and the notebooks with their pictures."""

from __future__ import annotations

import base64
import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import click

import geococa

STAGES = {
    "Grids and legends": ("grid", "legend"),
    "Reading and writing": ("sensors", "tiles", "backscatter", "cubes", "cube_files", "vectors", "styles"),
    "Reflectance": ("radiometry", "scene_statistics", "reflectance", "harmonisation"),
    "Features": ("features",),
    "Samples and models": (
        "extraction", "samples", "negatives", "fractions", "models", "calibration", "validation", "importance", "tuning",
    ),
    "Maps": ("classification", "area_of_applicability", "probability_layers", "labels", "coca_plots"),
    "Hectares": ("zones", "areas", "change"),
    "Estimates": (
        "accuracy", "response_sheets", "interpretations", "panel_estimates", "area_frames", "small_areas", "cutoff", "skill",
    ),
    "Trends and report": ("trends", "report"),
    "Archives": ("recipe", "pipeline", "archive"),
}  # fmt: skip
"""Modules of the public names by page; what no page names goes on the page "More"."""


def stages() -> dict[str, list[str]]:
    """Public names of every page, in pipeline order."""
    known = {module for modules in STAGES.values() for module in modules}
    pages = {title: [n for m in modules for n in geococa._PUBLIC.get(m, ())] for title, modules in STAGES.items()}
    rest = [name for module, names in geococa._PUBLIC.items() if module not in known for name in names]
    return pages | ({"More": rest} if rest else {})


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write_all)
    return {"parallel_read_safe": True}


def _write_all(app: Any) -> None:
    root = Path(app.srcdir)
    pages = {**_api_pages(), root / "commands.md": _command_page(), **_notebook_pages(root)}
    for folder in ("api", "notebooks"):
        for stale in (root / folder).glob("*"):
            if stale not in pages and (root / folder / stale.name) not in {root / page for page in pages}:
                stale.unlink() if stale.is_file() else shutil.rmtree(stale)
    for path, text in pages.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else text.encode()
        if not target.is_file() or target.read_bytes() != data:
            target.write_bytes(data)


# The API ----------------------------------------------------------------------------------------------------------


def _api_pages() -> dict[Path, str]:
    pages: dict[Path, str] = {}
    for title, names in stages().items():
        pages[Path("api") / f"{_slug(title)}.rst"] = _names_page(title, names)
    for module in geococa._MODULES:
        pages[Path("api") / f"{module}.rst"] = _module_page(module)
    lines = [_title("API"), "Every public name, in the order of the pipeline; ``import geococa as coca``.", "", ".. toctree::", "   :maxdepth: 2", ""]  # fmt: skip
    lines += [f"   {page.stem}" for page in pages]
    pages[Path("api") / "index.rst"] = "\n".join(lines) + "\n"
    return pages


def _slug(title: str) -> str:
    return title.lower().replace(" ", "_")


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n"


def _names_page(title: str, names: list[str]) -> str:
    rows = "\n".join(f"   geococa.{name}" for name in names)
    parts = [_title(title), f".. autosummary::\n   :nosignatures:\n\n{rows}\n"]
    parts += [_entry("geococa", name, getattr(geococa, name)) for name in names]
    return "\n".join(parts)


def _module_page(name: str) -> str:
    module = getattr(geococa, name)
    parts = [_title(f"geococa.{name}"), f".. automodule:: geococa.{name}\n   :no-members:\n"]
    for member in getattr(module, "__all__", ()):
        parts.append(_entry(f"geococa.{name}", member, getattr(module, member)))
    return "\n".join(parts)


def _entry(module: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        members = "" if issubclass(value, BaseException) else "   :members:\n"
        return f".. autoclass:: {module}.{name}\n{members}"
    return f".. {'autofunction' if callable(value) else 'autodata'}:: {module}.{name}\n"


# The commands -----------------------------------------------------------------------------------------------------


def _command_page() -> str:
    from geococa.cli import main

    lines = ["# Commands", "", "What `geococa COMMAND --help` says. Data go to stdout, log and progress to stderr.", ""]
    for name, command in main.commands.items():
        context = click.Context(command, info_name=f"geococa {name}", max_content_width=100)
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


# The notebooks ----------------------------------------------------------------------------------------------------


def _notebook_pages(root: Path) -> dict[Path, str | bytes]:
    pages: dict[Path, str | bytes] = {}
    found = sorted((root.parent / "notebooks").glob("*.ipynb"))
    for path in found:
        pages |= _notebook(path)
    lines = [
        "# Notebooks",
        "",
        "Sources (`.py`, percent format) and notebooks with their output (`.ipynb`) lie in `notebooks/`; they run on",
        "`sample_tiles/` in under a minute each.",
        "",
        "```{toctree}",
        *[path.stem for path in found],
        "```",
        "",
    ]
    return pages | {Path("notebooks/index.md"): "\n".join(lines)}


def _notebook(path: Path) -> dict[Path, str | bytes]:
    """Markdown page of a notebook, and its pictures."""
    pages: dict[Path, str | bytes] = {}
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        if cell["cell_type"] != "code":
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{number}_{place}.png"
                pages[Path("notebooks") / name] = base64.b64decode(data["image/png"])
                parts.append(f"![output of the cell above]({name})")
                continue
            text = "".join(output.get("text", data.get("text/plain", "")))
            if text.strip():
                parts.append(f"```text\n{text.rstrip()}\n```")
    pages[Path("notebooks") / f"{path.stem}.md"] = "\n\n".join(parts) + "\n"
    return pages
