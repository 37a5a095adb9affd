"""Ctrl-C ends a run soon, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from geococa.interrupts import EXIT_CODE, GRACE_S
from tests.reliability.tiny_archives import ROOT, command, results, run, tell

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


def _hears_ctrl_c():
    # a shell lets what it starts in the background ignore Ctrl-C, and so would these tests' own processes
    signal.signal(signal.SIGINT, signal.SIG_DFL)


STUCK = """
import sys, time
from geococa.interrupts import prompt_interrupts
with prompt_interrupts():
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass  # as a step that does not hear of it
"""


def test_what_does_not_hear_of_ctrl_c_is_ended_when_its_time_is_up():
    job = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_hears_ctrl_c,
    )
    assert job.stdout.readline() == "ready\n"
    began = time.monotonic()
    job.send_signal(signal.SIGINT)
    _, words = job.communicate(timeout=60)
    assert job.returncode == EXIT_CODE
    assert "run the same command again to resume" in words
    assert time.monotonic() - began >= GRACE_S * 0.9


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_says_so_and_resumes(six_tiles, tmp_path, workers):
    archive, expected, _ = six_tiles
    out = tmp_path / "out"
    how = {"cwd": ROOT, "stderr": subprocess.PIPE, "text": True, "start_new_session": True, "preexec_fn": _hears_ctrl_c}
    job = subprocess.Popen(command(archive, out, "--workers", workers), **how)
    deadline = time.monotonic() + 200
    while not list(out.glob("maps/*.tif")) and not list(out.glob(".work/*/tiles")) and time.monotonic() < deadline:
        time.sleep(0.01)
    began = time.monotonic()
    os.killpg(job.pid, signal.SIGINT)
    _, words = job.communicate(timeout=60)
    took = time.monotonic() - began
    assert job.returncode == EXIT_CODE, words
    assert "run the same command again to resume" in words
    assert "Traceback" not in words
    tell(f"ended {took:.2f} s after Ctrl-C")
    assert run(archive, out).returncode == 0
    assert results(out) == expected
