"""What a benchmark ran on."""

from __future__ import annotations

import platform
from datetime import date
from pathlib import Path


def machine_facts(threads: int) -> dict:
    """Date, processor, threads and Python of a run, as ``results/*.json`` keep them."""
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "threads": threads,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Name of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
