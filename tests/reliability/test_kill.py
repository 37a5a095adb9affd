"""Killed at any moment, a run loses nothing and never shows a wrong file."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from geococa.ledger import Ledger, file_sha256
from tests.reliability.tiny_archives import ROOT, command, results, run, tell, write_tiny_archive


def audit(out, expected):
    """Whatever is under its final name is what an undisturbed run would have put there, and so says the ledger."""
    if not out.exists():
        return
    for name, checksum in results(out).items():
        assert expected.get(name) == checksum, f"{name} is wrong after a kill"
    with Ledger.peek(out) as ledger:
        recorded = ledger.outputs()
    for path, checksum in zip(recorded["path"], recorded["sha256"], strict=True):
        assert file_sha256(out / path) == checksum


def kill_and_resume(runs, archive, expected, seconds, tmp_path, kills):
    chance, killed, rounds = random.Random(5), 0, 0
    while killed < kills:
        out, rounds = tmp_path / f"out{rounds}", rounds + 1
        while killed < kills:
            ended = runs.run(archive, out, kill_after=chance.uniform(0, seconds * 1.1))
            audit(out, expected)
            if ended["ended"] == 0:
                break
            assert ended["ended"] == -9, ended
            killed += 1
        assert runs.run(archive, out)["ended"] == 0
        assert results(out) == expected
        left = [path.name for path in out.rglob(".*") if path.name != ".lock"]
        assert left == []
    return rounds


def test_five_kills_leave_the_files_of_an_undisturbed_run(runs, six_tiles, tmp_path):
    kill_and_resume(runs, *six_tiles, tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_of_a_run_of_64_tiles(runs, tmp_path):
    archive = write_tiny_archive(tmp_path / "archive", 64)
    runs.warm(archive, tmp_path / "warm")
    undisturbed = runs.run(archive, tmp_path / "undisturbed")
    assert undisturbed["ended"] == 0, undisturbed
    kills = int(os.environ.get("GEOCOCA_KILLS", "200"))
    began = time.monotonic()
    expected = results(tmp_path / "undisturbed")
    rounds = kill_and_resume(runs, archive, expected, undisturbed["seconds"], tmp_path, kills)
    tell(f"{kills} kills in {rounds} runs of 64 tiles, {time.monotonic() - began:.0f} s, {len(expected)} files each")


def _workers_of(job):
    """Worker processes of a job; not the helper that `multiprocessing` starts beside them, nor what has ended already."""
    import psutil

    found = []
    with contextlib.suppress(psutil.Error):
        for child in job.children():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def kill_workers(archive, out, kills, seed):
    """Start a run with two workers and kill one of them now and then; return exit code, kills and the run's words."""
    import psutil

    chance, killed = random.Random(seed), 0
    job = subprocess.Popen(
        command(archive, out, "--workers", "2", "--threads", "1"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    parent = psutil.Process(job.pid)
    seen: dict[int, float] = {}
    while job.poll() is None:
        time.sleep(0.02)
        now = time.monotonic()
        workers = _workers_of(parent)
        for worker in workers:
            seen.setdefault(worker.pid, now + chance.uniform(0, 4))
            if killed < kills and now >= seen[worker.pid]:
                os.kill(worker.pid, signal.SIGKILL)
                killed += 1
    with job.stderr:
        return job.returncode, killed, job.stderr.read()


def test_a_killed_worker_costs_an_attempt_and_nothing_else(six_tiles, tmp_path):
    archive, expected, _ = six_tiles
    code, killed, words = kill_workers(archive, tmp_path / "out", 2, seed=1)
    assert code == 0, words
    assert killed >= 1
    assert results(tmp_path / "out") == expected


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_workers_end_with_a_killed_parent(six_tiles, tmp_path):
    import psutil

    archive, expected, _ = six_tiles
    job = subprocess.Popen(command(archive, tmp_path / "out", "--workers", "2"), cwd=ROOT, stderr=subprocess.DEVNULL)
    parent, workers = psutil.Process(job.pid), []
    deadline = time.monotonic() + 200
    while len(workers) < 2 and time.monotonic() < deadline and job.poll() is None:
        workers = parent.children()
        time.sleep(0.02)
    job.kill()
    job.wait()
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive, "workers outlive their parent"
    assert gone
    assert run(archive, tmp_path / "out").returncode == 0
    assert results(tmp_path / "out") == expected
