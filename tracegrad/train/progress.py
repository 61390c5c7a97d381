"""How far it is: a line in a terminal, a bar in a notebook, now and then a line in a file."""

from __future__ import annotations

import html
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

_TERMINAL, _FILE = 0.1, 10.0
"""Every how many seconds it is written anew."""


class Progress:
    """Shows how far a loop is: steps, steps a second, the time left, and numbers.

    In a terminal it is a line that is written over, in a notebook a bar, and anywhere else a line every ten seconds.

    Args:
      total: how many steps there will be, if that is known.
      start: how many there have been.
      file: where to; by default standard error.

    Example:
      >>> import io
      >>> from tracegrad import train
      >>> file = io.StringIO()
      >>> with train.Progress(200, file=file) as progress:
      ...     for step in range(1, 201):
      ...         progress.update(step, {"loss": 1 / step})
      >>> file.getvalue().split(" steps/s")[1]
      ', loss 0.005\\n'
    """

    def __init__(self, total: int | None = None, start: int = 0, file: TextIO | None = None) -> None:
        self.total = total
        self.step = start
        self._out = sys.stderr if file is None else file
        self._values: Mapping[str, float] = {}
        self._note = ""
        self._first: tuple[float, int] | None = None
        self._written = -1e9
        self._width = 0
        self._terminal = self._out.isatty()
        self._notebook = _notebook() if file is None else None
        self._every = _TERMINAL if self._terminal or self._notebook else _FILE

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Says that there have been so many steps, and numbers by name; those named before stay."""
        now = time.perf_counter()
        if self._first is None:
            # The first step compiles: time counts from its end.
            self._first = now, step
        self.step, self._note = step, ""
        if values:
            self._values = {**self._values, **values}
        if now - self._written >= self._every:
            self._write(now)

    def say(self, note: str) -> None:
        """Shows what is being done, such as "compiling…", until the next step."""
        self._note = note
        if self._terminal or self._notebook:
            self._write(time.perf_counter())

    def _write(self, now: float, last: bool = False) -> None:
        self._written = now
        line = self.text(now)
        if self._notebook is not None:
            self._notebook.update(_Bar(line, self.step, self.total))
        elif self._terminal:
            columns = shutil.get_terminal_size().columns - 1
            line = line[:columns]
            self._out.write("\r" + line.ljust(self._width) + ("\n" if last else ""))
            self._width = len(line)
        else:
            self._out.write(line + "\n")
        self._out.flush()

    def text(self, now: float | None = None) -> str:
        """The line."""
        of = f"/{self.total:,}" if self.total else ""
        part = f" ({self.step / self.total:.0%})" if self.total else ""
        words = [f"step {self.step:,}{of}{part}"]
        if self._first is not None and self.step > self._first[1]:
            rate = (self.step - self._first[1]) / max(1e-9, (now or time.perf_counter()) - self._first[0])
            words.append(f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s")
            if self.total and self.step < self.total:
                words.append(f"{duration((self.total - self.step) / rate)} left")
        words += [f"{name} {value:.4g}" for name, value in self._values.items()]
        return ", ".join(words) + (f"  {self._note}" if self._note else "")

    def close(self) -> None:
        """Writes the last state."""
        if self._out.closed:
            return
        self._write(time.perf_counter(), last=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Seconds as `5 s`, `3:20` or `2:03:20`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Bar:
    """The line, as a notebook shows it."""

    def __init__(self, line: str, step: int, total: int | None) -> None:
        self.line = line
        self.step = step
        self.total = total

    def __repr__(self) -> str:
        return self.line

    def _repr_html_(self) -> str:
        bar = f'<progress value="{self.step}" max="{self.total}"></progress> ' if self.total else ""
        return f'<div class="tracegrad-progress">{bar}<code>{html.escape(self.line)}</code></div>'


def _notebook() -> Any:
    """The handle of something that a notebook shows; `None` where there is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display(_Bar("", 0, None), display_id=True)


__all__ = ["Progress"]
