"""Runs in forked copies of one warm process, so that hundreds of them can be started and killed in a test's time.

Run as a program, it reads one JSON request a line and answers with one JSON line, so the test's own process, whose
threads do not survive a fork, stays out of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]


class ForkedRuns:
    """Starts runs of `geococa.run_archive` in copies of a process that has its libraries loaded."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.forked_runs"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def warm(self, archive: Path, out: Path) -> None:
        """Run in the server itself, so that its copies have kernels and libraries ready."""
        self._ask({"warm": True, "archive": str(archive), "out": str(out)})

    def run(self, archive: Path, out: Path, *, kill_after: float | None = None, **options) -> dict:
        """Run; ``ended`` (exit code, -9 when killed), ``seconds``, ``error``, ``failed`` and ``computed``."""
        request = {"archive": str(archive), "out": str(out), "kill_after": kill_after, "options": options}
        return self._ask(request)

    def _ask(self, request: dict) -> dict:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        line = self._server.stdout.readline()
        assert line, "the server of runs has ended"
        return json.loads(line)


def _serve() -> None:
    from geococa.archive import run_archive

    for line in sys.stdin:
        request = json.loads(line)
        if request.get("warm"):
            run_archive(request["archive"], Path(request["archive"]) / "recipe.toml", out=request["out"])
            sys.stdout.write("{}\n")
            sys.stdout.flush()
            continue
        reading, writing = os.pipe()
        began = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            _child(run_archive, request, writing)
        os.close(writing)
        answer = _watch(child, request["kill_after"], began)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        answer |= json.loads(told) if told else {}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _child(run_archive, request: dict, writing: int) -> None:
    code, found = 0, {}
    try:
        archive = Path(request["archive"])
        result = run_archive(archive, archive / "recipe.toml", out=request["out"], **request["options"])
        found = {"failed": result.failed, "computed": list(result.computed)}
        code = 3 if result.failed else 0
    except Exception as error:
        code = getattr(error, "exit_code", 1)
        found = {"error": f"{type(error).__name__}: {error}"}
    os.write(writing, json.dumps(found).encode())
    os._exit(code)


def _watch(child: int, kill_after: float | None, began: float) -> dict:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        passed = time.monotonic() - began
        if done:
            return {"ended": os.waitstatus_to_exitcode(status), "seconds": passed}
        if kill_after is not None and passed >= kill_after:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"ended": -9, "seconds": passed}
        time.sleep(0.002)


if __name__ == "__main__":
    _serve()
