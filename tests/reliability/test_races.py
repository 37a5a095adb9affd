"""Jobs that race for one output folder: one runs, the others are turned away at once."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.reliability.tiny_archives import ROOT, command, tell, write_tiny_archive


def race(archive, out, jobs=4):
    """Start jobs at once; return how long each loser took, after killing the winner."""
    began, ended = time.monotonic(), {}
    racing = [subprocess.Popen(command(archive, out), cwd=ROOT, stderr=subprocess.PIPE) for _ in range(jobs)]
    while len(ended) < jobs - 1 and time.monotonic() - began < 120:
        for place, job in enumerate(racing):
            if place not in ended and job.poll() is not None:
                ended[place] = time.monotonic() - began
        time.sleep(0.005)
    winners = [job for job in racing if job.poll() is None]
    for job in winners:
        job.kill()
        job.wait()
    codes = [job.wait() for place, job in enumerate(racing) if place in ended]
    words = [job.stderr.read().decode() for place, job in enumerate(racing) if place in ended]
    for job in racing:
        job.stderr.close()
    assert len(winners) == 1
    assert codes == [5] * (jobs - 1), words
    assert all("in use by another job" in text and str(out) in text for text in words)
    return list(ended.values())


def test_of_four_jobs_one_runs(tmp_path):
    archive = write_tiny_archive(tmp_path / "archive", 12)
    race(archive, tmp_path / "out")
    # the folder of a killed job can be taken over
    race(archive, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_races_of_four(tmp_path):
    archive = write_tiny_archive(tmp_path / "archive", 40)
    took = [seconds for number in range(50) for seconds in race(archive, tmp_path / f"out{number % 7}")]
    tell(f"50 races: losers took {sorted(took)[len(took) // 2]:.2f} s (median), {max(took):.2f} s (longest)")
