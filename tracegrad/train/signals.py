"""Ctrl-C and SIGTERM: a training is asked to end after the step that runs."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED, TERMINATED = "interrupted", "terminated by SIGTERM"
"""Why a training has stopped, then."""

_WHY = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


@contextlib.contextmanager
def heard(ask: Callable[[str], None], quiet: bool = False) -> Iterator[None]:
    """Calls `ask` with the reason when a signal asks for an end; a second Ctrl-C ends it at once.

    What is ignored stays ignored. A handler of another's for SIGTERM is called besides. (That of JAX's, which it sets
    when it knows of other processes, is none of Python's: it is gone from then on, and with it that SIGTERM does
    nothing.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _WHY}
    asked: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(number)
        ask(_WHY[signal.Signals(number)])
        if not quiet:
            start = "\n" if sys.stderr.isatty() else ""
            again = " (once more to stop at once)" if number == signal.SIGINT else ""
            print(f"{start}{_WHY[signal.Signals(number)]}: the step that runs is the last{again}", file=sys.stderr)
        theirs = before[signal.Signals(number)]
        if number == signal.SIGTERM and callable(theirs):
            theirs(number, frame)

    taken = [number for number, theirs in before.items() if theirs not in (None, signal.SIG_IGN)]
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


__all__ = ["INTERRUPTED", "TERMINATED"]
