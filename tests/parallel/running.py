"""A launcher that a test runs, watches and ends; nothing of it is left behind."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


class Running:
    """A launcher, and its lines with the times at which they came.

    Args:
      options: of the launcher.
      program: the program and its arguments.
      flags: XLA's; as the user has them they are "", and programs take longer to compile.
    """

    def __init__(
        self, options: Sequence[Any], program: Sequence[Any], flags: str = "--xla_backend_optimization_level=0"
    ) -> None:
        # One virtual device a process: the suite's flags have eight.
        env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
        env |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "TF_CPP_MIN_LOG_LEVEL": "2"}
        command = [sys.executable, "-m", "tracegrad.launch", *map(str, options), *map(str, program)]
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.lines: list[tuple[float, str]] = []
        self.pids: dict[int, dict[int, int]] = {}  # of each attempt
        self.waiting: queue.Queue[tuple[float, str] | None] = queue.Queue()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.waiting.put((time.monotonic(), line.rstrip("\n")))
        self.waiting.put(None)

    def line(self, pattern: str, seconds: float) -> tuple[float, re.Match[str]]:
        """Waits for the next line that has this."""
        until = time.monotonic() + seconds
        while True:
            try:
                item = self.waiting.get(timeout=max(until - time.monotonic(), 0.001))
            except queue.Empty:
                raise AssertionError(f"no line with {pattern!r} in {seconds} s:\n{self.text()}") from None
            if item is None:
                raise AssertionError(f"it ended without a line with {pattern!r}:\n{self.text()}")
            self.heard(item)
            if found := re.search(pattern, item[1]):
                return item[0], found

    def text(self) -> str:
        return "\n".join(f"{at:.2f} {line}" for at, line in self.lines[-60:])

    def end(self, seconds: float) -> int:
        """Its exit code, when it has ended."""
        code = self.process.wait(seconds)
        while (item := self.waiting.get(timeout=10)) is not None:
            self.heard(item)
        return code

    def heard(self, item: tuple[float, str]) -> None:
        self.lines.append(item)
        if found := re.search(r"^\[(\d+)\] pid (\d+) attempt (\d+)$", item[1]):
            self.pids.setdefault(int(found[3]), {})[int(found[1])] = int(found[2])

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.thread.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
