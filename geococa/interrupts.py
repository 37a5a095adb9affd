"""Ctrl-C ends a run within two seconds, whatever is being computed; the output folder stays one that can be resumed."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EXIT_CODE", "GRACE_S", "prompt_interrupts"]

EXIT_CODE = 130
GRACE_S = 1.5
"""Seconds that a run has to end by itself after Ctrl-C."""


@contextmanager
def prompt_interrupts() -> Iterator[None]:
    """End the process when Ctrl-C has not ended the block within `GRACE_S`.

    Python hears of a signal only between two of its own steps, and a step that reads or writes a large raster is long.
    The signal therefore also wakes a thread, which ends the process when time is up. Files are put under their final
    names whole, so an end at any moment leaves nothing to repair. Without effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            found = reading.recv(1)
            if not found:
                return
            if found[0] == signal.SIGINT and not ended.wait(GRACE_S):
                sys.stderr.write("interrupted; run the same command again to resume\n")
                sys.stderr.flush()
                os._exit(EXIT_CODE)

    watcher = threading.Thread(target=watch, daemon=True)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        writing.close()
        watcher.join(1)
        reading.close()
