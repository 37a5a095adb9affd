"""Runs the code blocks of a Markdown page from top to bottom, each kind in the way a reader would."""

from __future__ import annotations

import doctest
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SHOWN_ONLY = ("", "text")
"""Kinds of blocks that show something and can't be run."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind not in SHOWN_ONLY:
            yield kind, text


def run_page(
    page: Path, names: dict, before: Callable[[list[str]], None] = lambda _: None, smaller: dict | None = None
) -> None:
    """Run all blocks in the current folder; Python blocks share ``names``, ``before`` is called with each command.

    ``smaller`` replaces texts, so that what is meant for hours takes seconds.
    """
    for number, (kind, text) in enumerate(blocks(page), start=1):
        for old, new in (smaller or {}).items():
            text = text.replace(old, new)
        where = f"{page.name}, block {number}"
        if kind == "python" and text.lstrip().startswith(">>>"):
            _doctest(text, names, where)
        elif kind == "python":
            exec(compile(text, where, "exec"), names)
        elif kind == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                _command(shlex.split(line, comments=True), before, where)
        elif kind == "toml":
            _toml(text, number)
        elif kind == "json":
            json.loads(text)
        else:
            raise AssertionError(f"{where}: nobody knows how to run a block of {kind}")


def _doctest(text: str, names: dict, where: str) -> None:
    test = doctest.DocTestParser().get_doctest(text, names, where, None, 0)
    test.globs = names  # later blocks see what this one defines
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)


def _command(words: list[str], before: Callable[[list[str]], None], where: str) -> None:
    if not words:
        return
    before(words)
    if words[0] == "geococa":
        from geococa.cli import main

        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{where}: {shlex.join(words)}\n{done.stdout}\n{done.stderr}\n{done.exception!r}"
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert words[1] in targets, f"{where}: no target {words[1]}"
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in words[2:]:
            for asked in re.findall(r"^(?:\.|geococa)\[(.*)\]$", word):
                assert set(asked.split(",")) <= set(extras), f"{where}: {word}"
    elif words[0] == "eval":
        import sys

        shell = re.search(r"(_GEOCOCA_COMPLETE=\w+_source) geococa", words[1])
        assert shell, words
        program = Path(sys.executable).with_name("geococa")
        done = subprocess.run(["env", shell[1], str(program)], capture_output=True, text=True, check=True)
        assert "_GEOCOCA_COMPLETE" in done.stdout
    else:
        raise AssertionError(f"{where}: nobody knows how to run {words[0]}")


def _toml(text: str, number: int) -> None:
    """A recipe, a sensor or rules, by what it holds; read from a file as users do."""
    from geococa.models import read_model
    from geococa.recipe import Recipe
    from geococa.sensors import Sensor

    found = tomllib.loads(text)
    path = Path(f"block_{number}.toml")
    path.write_text(text, encoding="utf-8")
    reader = read_model if "tree" in found else Sensor.read if "bands" in found else Recipe.read
    reader(path)
