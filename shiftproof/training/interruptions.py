"""Signals that ask a run to stop, kept until it can."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or a scheduler's SIGTERM came; until someone asks, work goes on.

    Weights of which a step has changed one half are no state to save. A second Ctrl-C does not wait.
    """
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and number in heard:
            raise KeyboardInterrupt
        heard.append(number)

    if threading.current_thread() is not threading.main_thread():  # elsewhere, signals cannot be heard
        yield lambda: False
        return
    # What is ignored stays so: a shell does that for Ctrl-C to jobs in the background.
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heeded:
        signal.signal(number, note)
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
