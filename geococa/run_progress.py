"""People watching a run: how far it is, how fast, and how long it will take; as a bar, as lines, or as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

__all__ = ["JsonLines", "Meter", "show_progress", "span"]

Show = Callable[[str, int, int], None]

_KEPT_S = 300.0
"""Seconds that throughput is averaged over."""


class Meter:
    """Throughput and time left of a stage.

    Parameters
    ----------
    clock : callable
        Seconds; those since some moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._what = ""
        self._seen: deque[tuple[float, int]] = deque()

    def step(self, what: str, done: int, total: int) -> dict[str, Any]:
        """Take how far a stage is; return ``what, done, total, per_minute`` and ``left_s``, None where not known yet."""
        now = self._clock()
        if what != self._what:
            self._what = what
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _KEPT_S:
            self._seen.popleft()
        before, first = self._seen[0]
        rate = (done - first) / (now - before) if now > before and done > first else None
        left = None if rate is None else (total - done) / rate
        return {
            "what": what,
            "done": done,
            "total": total,
            "per_minute": None if rate is None else round(60 * rate, 2),
            "left_s": None if left is None else round(left, 1),
        }


def span(seconds: float) -> str:
    """Time that people read.

    Examples
    --------
    >>> span(42), span(150), span(7300)
    ('42 s', '2 min', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = whole // 60
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _line(state: dict[str, Any]) -> str:
    text = f"{state['what']}: {state['done']} of {state['total']}"
    if state["per_minute"] is not None:
        text += f", {state['per_minute']:g} a minute"
    if state["left_s"] and state["done"] < state["total"]:
        text += f", {span(state['left_s'])} left"
    return text


class JsonLines(logging.Formatter):
    """Log records as JSON, one a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return ``time, level, event`` and ``message`` of a record as JSON."""
        entry = {"level": record.levelname.lower(), "event": "log", "message": record.getMessage()}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json_line(entry)


def json_line(entry: dict[str, Any]) -> str:
    """JSON line with the time at its head."""
    return json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **entry}, default=str)


@contextmanager
def show_progress(
    quiet: bool, *, style: Literal["text", "json"] = "text", interval_s: float = 10.0
) -> Iterator[Show | None]:
    """Show progress on stderr: a bar on a terminal, else a line every ``interval_s`` seconds, or JSON lines."""
    if quiet:
        yield None
    elif style == "json":
        yield _in_lines(lambda state: json_line({"level": "info", "event": "progress", **state}), interval_s)
    elif not sys.stderr.isatty():
        yield _in_lines(_line, interval_s)
    else:
        with _bar() as show:
            yield show


def _in_lines(words: Callable[[dict[str, Any]], str], interval_s: float) -> Show:
    meter, last = Meter(), [float("-inf")]

    def show(what: str, done: int, total: int) -> None:
        state = meter.step(what, done, total)
        now = time.monotonic()
        if done == total or now - last[0] >= interval_s:
            last[0] = now
            sys.stderr.write(words(state) + "\n")
            sys.stderr.flush()

    return show


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}
        meter = Meter()

        def show(what: str, done: int, total: int) -> None:
            state = meter.step(what, done, total)
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, rate="")
            rate = "" if state["per_minute"] is None else f"{state['per_minute']:g}/min"
            bar.update(tasks[what], completed=done, total=total, rate=rate)

        yield show
