"""Many small tiles: memory and open files stay where they are, and little time goes into keeping the books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.tiny_archives import ROOT, tell, write_tiny_archive

MEASURED = """
import json, os, sys, time
from pathlib import Path
from geococa import tile_batch, tile_task
from geococa.archive import run_archive

archive, out = Path(sys.argv[1]), sys.argv[2]
inside, seen = [0.0], []
plain = tile_task.run_tile

def timed(*given, **named):
    began = time.perf_counter()
    try:
        return plain(*given, **named)
    finally:
        inside[0] += time.perf_counter() - began

tile_task.run_tile = timed
made = tile_batch.make_maps
took = [0.0]

def whole(*given, **named):
    began = time.perf_counter()
    try:
        return made(*given, **named)
    finally:
        took[0] = time.perf_counter() - began

import geococa.archive as archive_module
archive_module.make_maps = whole

def look(what, done, total):
    if what == "classifying tiles":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append((pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd"))))

began = time.perf_counter()
result = run_archive(archive, archive / "recipe.toml", out=out, threads=1, progress=look)
print(json.dumps({
    "seconds": time.perf_counter() - began, "maps": took[0], "inside": inside[0], "seen": seen,
    "computed": len(result.computed), "failed": result.failed,
}))
"""


def measure(tmp_path: Path, tiles: int) -> dict:
    archive = write_tiny_archive(tmp_path / "archive", tiles)
    # blocks as large as the tiles, as for real ones
    recipe = archive / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("block_px = 32", "block_px = 512"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(archive), str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["computed"] == tiles, found["failed"]
    memory, files = zip(*found["seen"], strict=True)
    tenth = max(tiles // 10, 1)
    found["growth"] = (sum(memory[-tenth:]) / tenth) / (sum(memory[:tenth]) / tenth)
    found["files"] = sorted(set(files[tenth:]))
    found["overhead_ms"] = 1000 * (found["maps"] - found["inside"]) / tiles
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_forty_tiles_leave_no_file_open(tmp_path):
    found = measure(tmp_path, 40)
    assert len(found["files"]) == 1
    assert found["growth"] < 1.25


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_two_thousand_tiles(tmp_path):
    tiles = int(os.environ.get("GEOCOCA_TILES", "2000"))
    found = measure(tmp_path, tiles)
    tell(str({name: found[name] for name in ("seconds", "maps", "inside", "growth", "files", "overhead_ms")}))
    assert found["growth"] <= 1.1
    assert len(found["files"]) == 1
