"""The processes of one training: they stop after the same step, and none waits for one that has failed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..errors import called, here
from ..parallel import ProcessesError
from ..parallel.store import store
from . import agreement
from .agreement import gather

_EVERY, _MANY = 0.1, 64
"""Every how many seconds a process looks what the others have said; where there are more processes, less often."""

_OWN, _GRACE = 0.5, 3.0
"""For so many seconds after another has failed a process may come to the same error itself, and to any end of its own.

One that waits for a computation in which the other takes part cannot be reached: it is ended then.
"""

_TOLERANCE = 1e-4
"""By how much, relatively, what is measured in each process may differ: machines may round in different ways."""


_END = 1e9
"""The end of the training, among epochs."""


class Together:
    """What the processes of a training say to each other while it runs, in a thread beside it.

    Each says when it is asked to stop, at which step it is, where its epochs end, and why it fails.

    Args:
      begun: how many steps were begun here.
      before_end: called before this process is ended because of another.

    Attributes:
      failed: which other process has failed, and why; "" if none has.
    """

    def __init__(self, begun: Callable[[], int], before_end: Callable[[], None]) -> None:
        self._root = f"tracegrad/training/{agreement.turn('trainings')}."
        self._index, self._count = agreement.index(), agreement.count()
        self._begun, self._before_end = begun, before_end
        self._step = 0
        self._asked = self._why = ""
        self._until = math.inf
        self._mark: tuple[float, int] = (-1, 0)
        self.failed = ""
        self._failed_at = 0.0
        self._agreeing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tracegrad processes", daemon=True)

    def __enter__(self) -> Together:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and not self.failed:
            self._say(f"failed/{self._index}", f"{type(error).__name__}: {error}"[:2000])
        self._over.set()
        self._thread.join()
        if error is None and self._index == 0:
            store().key_value_delete(self._root)

    # -- what the training calls

    def ask(self, why: str) -> None:
        """Asks all to stop after the same step, soon. Safe to call from a handler of a signal."""
        self._asked = self._asked or why

    def reached(self, step: int) -> str:
        """Says that this step was begun, and returns why it is the last, or "". It raises as `check` does."""
        with self._agreeing:  # While the processes agree on the last step, none begins another.
            self._step = step
        self.check()
        return self._why if step >= self._until else ""

    def check(self) -> None:
        """Raises a `ProcessesError` if another process has failed."""
        if self.failed and time.monotonic() > self._failed_at + _OWN:
            raise ProcessesError(self.failed)

    def end_epoch(self, epoch: int, step: int) -> None:
        """Says that an epoch is over."""
        self._say_mark(epoch, step)

    def end(self, step: int) -> None:
        """Waits until all have ended, after the same step."""
        self._say_mark(_END, step)
        for other, theirs in enumerate(gather("the end", step, self.check)):
            if theirs != step:
                raise ProcessesError(self._elsewhere(_END, theirs, other))

    def alike(self, step: int, measured: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, float]:
        """What was measured in process 0, for all, so that all decide alike.

        Raises:
          ProcessesError: if something else was measured in another.
        """
        found = gather(f"what was measured after step {step}", [dict(measured), dict(losses)], self.check)
        for i, other in enumerate(found):
            for first, own, what in zip(found[0], other, ("validate", "the step"), strict=True):
                for name in first.keys() | own.keys():
                    a, b = first.get(name, math.nan), own.get(name, math.nan)
                    both = math.isnan(a) and math.isnan(b) and name in first and name in own
                    if not (both or math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=1e-12)):
                        remedy = (
                            "Measure all of the data in each, or the parts by train.evaluate, which sums over processes"
                            if what == "validate"
                            else "Each trains a model of its own: give parallel=, or a step over arrays of all of them"
                        )
                        raise ProcessesError(
                            f"{called()}: after step {step}, {what} gave {name} = {a:.7g} in process 0, and {b:.7g} in "
                            f"process {i} of {self._count} {here()}. {remedy}."
                        )
        return found[0][0]  # type: ignore[no-any-return]

    def positions(self, step: int, position: dict[str, Any]) -> dict[str, Any]:
        """Where the data are, of all: one position if it is the same in each."""
        try:
            json.dumps(position)
        except TypeError as error:
            raise TypeError(
                f"{called()}: the position of the batches is more than numbers and texts ({error}) {here()}, and is "
                "not kept for several processes. Use train.data.DataLoader, or a function that returns an iterator."
            ) from error
        found = gather(f"where the data are after step {step}", position, self.check)
        return found[0] if all(other == found[0] for other in found) else {"kind": "each", "of": found}

    # -- beside it

    def _say(self, key: str, value: str, again: bool = True) -> None:
        # It was said before, and not to be again; or the store is gone, and with it those that would read it.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            store().key_value_set(f"{self._root}/{key}", value, allow_overwrite=again)

    def _say_mark(self, epoch: float, step: int) -> None:
        self._mark = (epoch, step)
        self._say(f"mark/{self._index}", json.dumps(self._mark))

    def _heard(self) -> dict[str, str]:
        try:
            found = store().key_value_dir_get(self._root)
        except jax.errors.JaxRuntimeError:
            return {}
        return {key.removeprefix(f"{self._root}/"): value for key, value in found}

    def _watch(self) -> None:
        every = _EVERY * max(1, self._count / _MANY)
        while not self._over.wait(every):
            if self._asked and not self._why:
                self._say("stop", json.dumps([self._index, self._asked]), again=False)
            heard = self._heard()
            if not self.failed:
                self._look(heard)
            elif time.monotonic() > self._failed_at + _GRACE:
                self._end_process()
            if "stop" in heard and not self._why:
                self._agree(*json.loads(heard["stop"]))

    def _agree(self, process: int, why: str) -> None:
        """On the last step: the one after the greatest that any process has begun."""
        with self._agreeing:
            self._say(f"at/{self._index}", str(self._step))
            steps: dict[str, str] = {}
            while len(steps) < self._count and not self.failed and not self._over.wait(_EVERY / 10):
                heard = self._heard()
                steps = {key: value for key, value in heard.items() if key.startswith("at/")}
                self._look(heard)
            self._until, self._why = max(map(int, steps.values()), default=0) + 1, why
        if self._index == 0:
            print(f"process {process} of {self._count}: {why}: step {self._until:,} is the last", file=sys.stderr)

    def _look(self, heard: Mapping[str, str]) -> None:
        """Whether another has failed, or is elsewhere."""
        begun, mark = self._begun(), self._mark
        for key, value in sorted(heard.items()):
            kind, _, other = key.partition("/")
            if kind == "failed":
                self._fail(f"process {other} of {self._count} has failed: {value}")
            elif kind == "mark":
                epoch, step = json.loads(value)
                if (mark[0] == epoch and mark[1] != step) or (mark[0] < epoch and begun > step):
                    text = self._elsewhere(epoch, step, int(other))
                    self._fail(text)
                    self._say(f"failed/{self._index}", text)

    def _elsewhere(self, epoch: float, step: int, process: int) -> str:
        return (
            f"{'the training' if epoch == _END else f'epoch {epoch}'} ended after {step} steps in process {process} of "
            f"{self._count}, and not in process {self._index}. All need the same number of batches, and have to stop "
            "after the same step"
        )

    def _fail(self, why: str) -> None:
        if not self.failed:
            self.failed, self._failed_at = why, time.monotonic()

    def _end_process(self) -> None:
        print(f"process {self._index} of {self._count} ends: {self.failed}", file=sys.stderr, flush=True)
        self._before_end()
        os._exit(1)


__all__ = ["Together"]
