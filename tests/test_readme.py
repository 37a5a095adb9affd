"""The README's example runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_library_example_runs_from_top_to_bottom(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]
    (tmp_path / "sample_tiles").symlink_to(ROOT / "sample_tiles")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    areas = names["areas"]
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    assert abs(total / areas.zone_ha - 1).max() < 1e-9


def test_every_command_named_in_the_readme_exists():
    from geococa.cli import main

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^geococa ([a-z]+)", text, flags=re.MULTILINE))
    assert named
    assert named <= set(main.commands)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", text)) <= targets


def test_tables_of_benchmarks_are_those_of_their_results():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
