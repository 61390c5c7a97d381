"""`fit`: a loop over a step, which can be read here and written by hand."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import jax
import numpy as np

from ..errors import called, describe, here, need_function
from ..optimizers import GradientTransformation
from . import agreement
from .agreement import nothing
from .callbacks import Callback
from .checkpoints import CheckpointError, Checkpoints
from .devices import DataParallel, data_parallel, options_of
from .history import History
from .nonfinite import why_not_finite
from .progress import Progress
from .signals import INTERRUPTED, TERMINATED, heard
from .sources import BatchError, Source
from .stepping import TrainState, accumulated, make_step
from .together import Together

_LAG = 16
"""Values are read so many at a time, and not before as many steps were begun after them: the device never waits."""

_READ = 0.2
"""After so many seconds those that are ready are read in any case."""

_PATIENCE = 60.0
"""For so many seconds a checkpoint may be written before a process is ended because of another."""

_BEHIND = 4
"""In many processes each is read after so many more steps: all see at the same step what is not finite."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` returns.

    Attributes:
      state: the `TrainState`, or what a step of one's own returned last.
      history: what was measured.
      stopped: why it ended before its last step; "" if it did not.
    """

    state: Any
    history: History
    stopped: str = ""

    @property
    def params(self) -> Any:
        """The parameters to use the model with: the average, where there is one."""
        return self.state.eval_params() if isinstance(self.state, TrainState) else self.state

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the result of fit has no {name!r}. It has params, the trained model, and state, history, stopped.",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        # As a cell's last value it shows itself: without the arrays.
        return f"FitResult({self.history!r}" + (f"; stopped: {self.stopped})" if self.stopped else ")")


class FitError(RuntimeError):
    """Training cannot go on.

    Attributes:
      step: which step it was; the first is 1.
      result: what `fit` would have returned after the step before.
    """

    def __init__(self, message: str, step: int, result: FitResult) -> None:
        super().__init__(message)
        self.step = step
        self.result = result


class NonFiniteError(FitError):
    """A loss or a gradient is NaN or infinite. `result.state` is the last good state.

    Attributes:
      batch: the arguments of the step.
    """

    batch: tuple[Any, ...] = ()


def fit(
    step_or_loss: Callable[..., Any],
    params: Any,
    batches: Any,
    optimizer: GradientTransformation | None = None,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    model_state: Any = None,
    key: Any = None,
    accumulate: int = 1,
    average: GradientTransformation | None = None,
    validate: Callable[[Any], Any] | None = None,
    validate_every: int | None = None,
    callbacks: Sequence[Any] = (),
    checkpoints: Checkpoints | str | os.PathLike[str] | None = None,
    resume: bool | str | os.PathLike[str] = False,
    progress: bool | Progress = True,
    stop_on_nonfinite: bool = True,
    parallel: bool | int | Mapping[str, Any] | None = None,
) -> FitResult:
    """Trains: a loop over a compiled step, with progress, history, validation, checkpoints, and a clean end.

    The values of the loss stay on the device until they are ready: no step waits for one. Ctrl-C, the stop of a
    notebook or SIGTERM ends the training after the step that runs; it is saved, and what there is is returned, with the
    reason in `stopped`. A second Ctrl-C ends it at once.

    In many processes all of them call this with the same arguments, the batches being each one's own part (see
    `DataLoader`). Process 0 alone shows the progress, and writes the checkpoints. A signal to any of them stops all
    after the same step. What `validate` returns has to be alike, and that of process 0 counts, so that callbacks decide
    alike, as they have to. Where one fails, all do: by a `FitError` that names the process; or, where one waits in a
    computation for another that has failed, it is ended after a few seconds, with that message.

    Args:
      step_or_loss: a loss, `loss(params, *batch)`, see `make_step`; or, without `optimizer`, a step of one's own,
        `step(state, *batch) -> (state, values)`, where values are a scalar, the loss, or a dict of scalars.
      params: the parameters, or the state of a step of one's own. They are copied, if there is an optimizer.
      batches: an iterable of batches, gone through once an epoch: a `DataLoader`, a list, a loader of grain's or
        PyTorch's; or a function that returns one. Of a tuple or a list the parts are the arguments of the loss.
      optimizer: any of `optimizers`: schedules and `reduce_on_plateau` are part of it.
      epochs, steps: when to end, in all; 1 epoch by default.
      model_state: what changes and is no parameter, such as `nn.init_state(model)`.
      key: a random key, where the loss takes `key=`.
      accumulate: of how many batches the gradients are averaged for a step of the optimizer.
      average: of the parameters: `optimizers.ema(0.999)` or `optimizers.swa(start)`.
      validate: `validate(state)`, a number, which is then "val_loss", or a dict of numbers, such as `evaluate` gives.
      validate_every: after how many steps, in place of every epoch.
      callbacks: instances of `Callback`, such as `EarlyStopping`; or functions of the `Loop`, called after each epoch.
      checkpoints: a folder, or `Checkpoints`: it is saved there at the end, and every `Checkpoints.every` steps.
      resume: `True` goes on from the last checkpoint in `checkpoints`, if there is one; a folder, from the last there.
        The rest is then, to the last bit, what it would have been.
      progress: whether it is shown.
      stop_on_nonfinite: whether a loss or gradient that is NaN or infinite is an error.
      parallel: `True` splits each batch over all devices, a number over so many; the gradient is that of the whole
        batch. A dict has arguments of `data_parallel`: `{"devices": 4, "gradients": "ordered"}`.

    Returns:
      A `FitResult`, with `params`, `state`, `history` and `stopped`.

    Raises:
      FitError: if it cannot go on: the batches, the step, `validate` or a callback raise, or a checkpoint cannot be
        written. What was trained is in its `result`.
      NonFiniteError: for a loss or a gradient that is not finite.
      CheckpointError: if the checkpoint to go on from is damaged, or is of another model or optimizer.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers, train
      >>> x = np.linspace(-1, 1, 64, dtype=np.float32)
      >>> batches = train.data.DataLoader((x, 3 * x + 1), 16)
      >>> def loss(params, x, y):
      ...     return ((params["a"] * x + params["b"] - y) ** 2).mean()
      >>> params = {"a": np.float32(0), "b": np.float32(0)}
      >>> result = train.fit(loss, params, batches, optimizers.adam(0.1), epochs=50, progress=False)
      >>> round(float(result.params["a"]), 2), round(float(result.params["b"]), 2)
      (3.0, 1.0)
      >>> result.history["loss"].shape
      (200,)
    """
    _check(step_or_loss, params, validate, {"epochs": epochs, "steps": steps, "validate_every": validate_every})
    if optimizer is None:
        several = None if accumulate == 1 else accumulate
        _refuse({"model_state": model_state, "key": key, "average": average, "accumulate": several})
    step, state, loss = step_or_loss, params, None
    if optimizer is not None:
        optimizer, loss = accumulated(optimizer, accumulate), step_or_loss
        step = make_step(loss, optimizer, average=average, stop_on_nonfinite=stop_on_nonfinite)
        state = TrainState.create(params, optimizer, model_state=model_state, key=key, average=average)
    spread = None
    if options := options_of(parallel):
        if optimizer is not None:
            options |= {"average": average, "stop_on_nonfinite": stop_on_nonfinite}
        step = spread = data_parallel(step_or_loss, optimizer, **options)
        state, loss = spread.place(state), None if loss is None else spread.alone
    ends = _Ends(epochs if epochs or steps else 1, steps, validate_every)
    loop = Loop(state, batches, loss, ends, validate, callbacks, checkpoints, stop_on_nonfinite, spread)
    source = loop.source
    with loop.running(progress), _Telling(loop):
        try:
            loop.start(resume)
            while not loop.over():
                for loop.batch in source.epoch():
                    loop.state, values = step(loop.state, *loop.batch)
                    loop.step += 1
                    loop.add(values)
                    for callback in loop.each_step:
                        if loop.step % callback.every == 0:
                            callback.on_step(loop)
                    if loop.step == loop.due:
                        loop.mark()
                    if loop.stopped or loop.step == steps:
                        break
                else:
                    loop.end_epoch()
            loop.finish()
        except KeyboardInterrupt:
            if not source.fetching or agreement.count() > 1:
                raise
            loop.finish(save=False)
    return loop.result()


@dataclass(frozen=True)
class _Ends:
    epochs: int | None
    steps: int | None
    validate_every: int | None


class _AfterEpoch(Callback):
    """A function as a callback."""

    def __init__(self, fun: Callable[[Loop], Any]) -> None:
        if isinstance(fun, type):
            name = fun.__name__
            raise TypeError(f"{called()}: a callback is the class {name} {here()}. Write {name}(...).")
        need_function(fun, "fit", "a callback", "callbacks=[train.EarlyStopping(), function_of_the_loop]")
        self._fun = fun

    def on_epoch(self, loop: Loop) -> None:
        self._fun(loop)


class _NotFinite(ArithmeticError):
    """Found among the values: of which step, and what."""


class _Telling:
    """Errors in it have the step, and what was trained. A class: `called` would not see `fit` past a generator's."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and (told := self._loop.told(error)) is not error:
            raise told from error


class Loop:
    """A training that runs: what callbacks see.

    Attributes:
      state: the `TrainState`, or the state of a step of one's own. Its arrays are gone after the next step.
      step: how many steps there were.
      epoch: how many epochs are over.
      batch: the arguments of the last step.
      history: what was measured.
      loss: as `fit` was given it; `None` with a step of one's own.
      stopped: why it ends before its last step; "" if it does not.
    """

    def __init__(
        self,
        state: Any,
        batches: Any,
        loss: Callable[..., Any] | None,
        ends: _Ends,
        validate: Callable[[Any], Any] | None,
        callbacks: Sequence[Any],
        checkpoints: Checkpoints | str | os.PathLike[str] | None,
        stop_on_nonfinite: bool,
        spread: DataParallel | None,
    ) -> None:
        self.state = state
        self.step = self.epoch = 0
        self.batch: tuple[Any, ...] = ()
        self.history = History()
        self.loss = loss
        self.stopped = ""
        self.source = Source(batches, self._compiling)
        self.callbacks = [c if isinstance(c, Callback) else _AfterEpoch(c) for c in callbacks]
        self.each_step = [c for c in self.callbacks if type(c).on_step is not Callback.on_step]
        self._checkpoints: Checkpoints | None
        self._checkpoints = Checkpoints(checkpoints) if isinstance(checkpoints, (str, os.PathLike)) else checkpoints
        every = (ends.validate_every, self._checkpoints.every if self._checkpoints is not None else None)
        self._every = [n for n in every if n]
        self.due = -1
        self._ends = ends
        self._validate = validate
        self._stop_on_nonfinite = stop_on_nonfinite
        self._spread = spread
        self._progress: Progress | None = None
        self._together: Together | None = None
        self._waiting: list[tuple[Any, tuple[Any, ...]]] = []
        self._read = time.perf_counter()
        self._first = 0
        self._measured = -1
        self._before: dict[int, tuple[Any, ...]] = {}

    def stop(self, why: str) -> None:
        """Ends the training after this step; in many processes all have to call it after the same one."""
        self.stopped = self.stopped or why

    @property
    def interrupted(self) -> bool:
        """Whether it was asked to end by Ctrl-C or SIGTERM."""
        return self.stopped in (INTERRUPTED, TERMINATED)

    def _ask(self, why: str) -> None:
        if self._together is None:
            self.stop(why)
        else:
            self._together.ask(why)

    def over(self) -> bool:
        """Whether there is nothing more to do."""
        epochs, steps = self._ends.epochs, self._ends.steps
        reached = (epochs is not None and self.epoch >= epochs) or (steps is not None and self.step >= steps)
        return reached or bool(self.stopped)

    def alone(self) -> Any:
        """The state as one device has it."""
        return self.state if self._spread is None else self._spread.local(self.state)

    def result(self) -> FitResult:
        """What `fit` returns."""
        return FitResult(self.state, self.history, self.stopped)

    # -- from the start to the end

    @contextlib.contextmanager
    def running(self, progress: bool | Progress) -> Iterator[None]:
        """What is open while it runs: the progress, the folder of checkpoints, and the ears for signals and others."""
        with contextlib.ExitStack() as stack:
            if progress and agreement.index() == 0:
                self._progress = Progress() if progress is True else progress
                stack.enter_context(self._progress)
            if self._checkpoints is not None and not self._checkpoints.locked:
                stack.push(self._checkpoints)
            if agreement.count() > 1:
                self._together = stack.enter_context(Together(self._begun, self._before_end))
                if self._checkpoints is not None:
                    self._checkpoints.waiting = self._together.check
                    stack.callback(setattr, self._checkpoints, "waiting", nothing)
            stack.enter_context(heard(self._ask, quiet=self._together is not None))
            yield

    def _begun(self) -> int:
        return self._first + self.source.total

    def _before_end(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.join(_PATIENCE)

    def start(self, resume: bool | str | os.PathLike[str]) -> None:
        """Goes to the last checkpoint, if it is asked for."""
        checkpoints = self._checkpoints
        if checkpoints is not None:
            checkpoints.lock()
        if resume is True and checkpoints is None:
            raise ValueError(
                f"{called()}: resume=True, and there are no checkpoints {here()}. Give checkpoints=folder, or "
                "resume=folder."
            )
        at = checkpoints if resume is True else Checkpoints(resume) if resume else None
        looked = at or checkpoints
        latest = None if looked is None else agreement.first("looking for checkpoints", looked.latest)
        if at is not None and (resume is not True or latest is not None):
            self._go_on(at)
        elif checkpoints is not None and resume is False and latest is not None:
            raise CheckpointError(
                f"{called()}: {checkpoints.directory} has checkpoints of another training, the last of step {latest} "
                f"{here()}. Give resume=True to go on from it, or another folder."
            )
        length = self.source.length()
        totals = [self._ends.steps] if self._ends.steps else []
        if self._ends.epochs and length:
            totals.append(self._ends.epochs * length)
        if self._progress is not None:
            self._progress.step, self._progress.total = self.step, min(totals, default=None)
        self._first = self.step
        if self._together is not None:
            self.stop(self._together.reached(self.step))
        self._next()
        for callback in self.callbacks:
            callback.on_start(self)

    def _go_on(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.restore(self.state)
        if "position" not in found.extra:
            raise CheckpointError(
                f"{called()}: the checkpoint of step {found.step} in {checkpoints.directory} was not saved by fit "
                f"{here()}. Give its state to a loop of your own, or its parameters to fit."
            )
        terms = found.extra.get("terms", {})
        if self._spread is not None:
            self._spread.compare(terms)
        elif terms and agreement.index() == 0:
            print(
                f"{called()}: the checkpoint was trained with parallel={{'gradients': {terms['gradients']}}} {here()}. "
                "It goes on without, and the bits are not those that an uninterrupted training would have.",
                file=sys.stderr,
            )
        self.source.go_to(found.extra["position"])
        self.state, self.step, self.epoch = found.state, found.step, found.extra["epoch"]
        self._measured = found.extra["measured"]
        self.history.load_state_dict(found.extra["history"])
        for name, callback in self._named_callbacks():
            if name in found.extra["callbacks"]:
                callback.load_state_dict(found.extra["callbacks"][name])

    def _named_callbacks(self) -> list[tuple[str, Callback]]:
        """Each with its kind, and which of that kind it is."""
        names = [type(c).__name__ for c in self.callbacks]
        return [(f"{name}{names[:i].count(name)}", self.callbacks[i]) for i, name in enumerate(names)]

    def mark(self) -> None:
        """Measures and saves, at those steps at which it is time to."""
        if self._ends.validate_every and self.step % self._ends.validate_every == 0:
            self.measure()
        if self._checkpoints is not None and self._checkpoints.every and self.step % self._checkpoints.every == 0:
            self.save()
        self._next()

    def _next(self) -> None:
        self.due = min([(self.step // n + 1) * n for n in self._every], default=-1)

    def end_epoch(self) -> None:
        """Counts an epoch, and measures."""
        self.epoch += 1
        if self._together is not None:
            self._together.end_epoch(self.epoch, self.step)
        if self._ends.validate_every is None:
            self.measure()

    def measure(self) -> None:
        """Waits for the steps so far, validates, and calls the callbacks."""
        self.settle()
        self._measured = self.step
        numbers: dict[str, float] = {}
        if self._validate is not None:
            if self._progress is not None:
                self._progress.say("validating…")
            measured = self._validate(self.alone())
            measured = measured if isinstance(measured, Mapping) else {"val_loss": measured}
            numbers = {name: _numbers([v], f"validate: {name}")[0] for name, v in measured.items()}
        if self._together is not None:
            numbers = self._together.alike(self.step, numbers, self.history.at(self.step))
        if numbers:
            self.history.add(self.step, numbers)
            self._show()
        for callback in self.callbacks:
            callback.on_epoch(self)
        if self._checkpoints is not None and (self._checkpoints.monitor or "") in self.history.at(self.step):
            self.save()

    def save(self) -> None:
        """Saves a checkpoint of where it is."""
        self.settle()
        if self._checkpoints is None:
            return
        position = self.source.position()
        if self._together is not None:
            position = self._together.positions(self.step, position)
        extra = {
            "epoch": self.epoch,
            "measured": self._measured,
            "position": position,
            "history": self.history.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self._named_callbacks()},
        }
        if self._spread is not None:
            extra["terms"] = self._spread.terms
        self._checkpoints.save(self.step, self.state, self.history.at(self.step), extra)

    def finish(self, save: bool = True) -> None:
        """Waits for all steps, saves, and ends."""
        self.settle()
        if self._validate is not None and not self.stopped and self._measured != self.step:
            self.measure()
        if self._together is not None:
            self._together.end(self.step)
            self._together.alike(self.step, {}, self.history.at(self.step))
        if save and self.step > self._first:
            self.save()
        for callback in self.callbacks:
            callback.on_end(self)
        if self._checkpoints is not None:
            self._checkpoints.wait()

    # -- values

    def add(self, values: Any) -> None:
        """Takes what a step returned, and reads what earlier ones have."""
        self._waiting.append((values, self.batch))
        if self._together is not None:
            self._take(max(0, len(self._waiting) - _BEHIND))
            if self.step == self._first + _BEHIND + 1:  # The first was read.
                self._together.alike(self._first + 1, {}, self.history.last())
            self.stop(self._together.reached(self.step))
        elif len(self._waiting) >= 2 * _LAG:
            self._take(_LAG)
        elif time.perf_counter() - self._read > _READ:
            ready = [all(_is_ready(x) for x in jax.tree.leaves(values)) for values, _ in self._waiting]
            self._take(ready.index(False) if False in ready else len(ready))

    def settle(self) -> None:
        """Waits for all steps, and reads their values."""
        self._take(len(self._waiting))
        if isinstance(self.state, TrainState) and bool(self.state.failed):
            raise _NotFinite(self.step, self.batch, None)

    def _take(self, count: int) -> None:
        self._read = time.perf_counter()
        first, taken = self.step - len(self._waiting) + 1, self._waiting[:count]
        if taken:
            named = [v if isinstance(v, Mapping) else {"loss": v} for v, _ in taken]
            columns = {name: _numbers([v[name] for v in named], name) for name in named[0]}
            good = np.isfinite(columns.get("loss", [0.0] * count)) | (not self._stop_on_nonfinite)
            at = count if good.all() else int(np.argmin(good))
            self.history.extend(range(first, first + at), {name: column[:at] for name, column in columns.items()})
            if at < count:
                raise _NotFinite(first + at, taken[at][1], columns["loss"][at])
            # A step whose gradient alone is not finite is seen by the loss of the next.
            self._before = {first + count - 1: taken[-1][1]}
            del self._waiting[:count]
        self._show()

    def _show(self) -> None:
        if self._progress is not None:
            self._progress.update(self.step - len(self._waiting), self.history.last())

    def _compiling(self) -> None:
        if self._progress is not None:
            self._progress.say("compiling…")

    # -- errors

    def told(self, error: Exception) -> Exception:
        """What is raised in place of an error: one that has the step, and what was trained."""
        step, fetching = self.step + 1, self.source.fetching
        kept = f"What was trained in {self.step} steps is in error.result"
        if self._together is not None and self._together.failed and not isinstance(error, _NotFinite):
            self._waiting.clear()
            kept = "The last steps may wait for that process for ever; resume=True goes on from a checkpoint"
        elif not isinstance(error, _NotFinite):
            # What was begun before the error is kept; if that is where it went wrong, that is the error.
            try:
                self.settle()
            except _NotFinite as first:
                error = first
            except Exception:  # The same one again: there is nothing to read of the steps that failed.
                self._waiting.clear()
        if isinstance(error, _NotFinite):
            return self._not_finite(*error.args)
        lost = any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves(self.state))
        if self.step == self._first and not fetching and not isinstance(error, BatchError):
            if isinstance(error, TypeError):
                given = ", ".join(describe(x) for x in self.batch)
                error.add_note(f"The first batch gave the arguments ({given}), after the parameters.")
            return error
        at = f"at step {step}"
        if self._together is not None:
            at = f"in process {agreement.index()} of {agreement.count()}, {at}"
        if lost:
            self.state, kept = None, "The arrays of the state were given to the step that failed"
        if fetching and self.step > self._first:
            kept += self._saved_after_all()
        what = str(error) if isinstance(error, BatchError) else f"{type(error).__name__}: {error}"
        what = (f"batches raised {what}" if fetching else what).removesuffix(".")
        return FitError(f"{called()}: {at}, {what}. {kept}.", step, self.result())

    def _saved_after_all(self) -> str:
        if self._checkpoints is None or self._together is not None:
            return ""
        try:
            self.save()
            self._checkpoints.wait()
        except CheckpointError as error:
            return f", and not in a checkpoint: {error}"
        return f", and in the checkpoint of step {self.step}"

    def _not_finite(self, step: int, batch: tuple[Any, ...], value: Any) -> FitError:
        first = self.step - len(self._waiting) + 1
        batches = self._before | {first + i: batch for i, (_, batch) in enumerate(self._waiting)}
        if isinstance(self.state, TrainState) and bool(self.state.failed):
            # The state has stayed as it was before the step, however many were begun after it.
            self.step = int(self.state.step)
            step, batch = self.step + 1, batches[self.step + 1]
            self.state = self.state._replace(failed=jax.numpy.zeros_like(self.state.failed))
            why = f"The loss is {value}." if self.loss is None else why_not_finite(self.loss, self.alone(), batch)
            why += "\n" if "\n" in why else " "
            why += "The last good state is in error.result, and the batch is error.batch"
        else:
            why = f"The loss is {value}. Give fit a loss and an optimizer, not a step, and it has the state before it"
        self.history.cut(step - 1)
        self._waiting.clear()
        error = NonFiniteError(f"{called()}: step {step} is not finite {here()}. {why}.", step, self.result())
        error.batch = batch
        return error


def _is_ready(x: Any) -> bool:
    return not isinstance(x, jax.Array) or bool(x.is_ready())  # type: ignore[attr-defined]


def _numbers(values: Sequence[Any], name: str) -> list[float]:
    """Scalars as numbers of Python's; those on a device are fetched together."""
    if jax.default_backend() != "cpu":
        for value in values:
            if isinstance(value, jax.Array):
                value.copy_to_host_async()
    arrays = [np.asarray(value) for value in values]
    for array in arrays:
        if array.shape != ():
            raise ValueError(
                f"{called()}: {name} is {describe(array)}, not a scalar {here()}. Return one number for each name, "
                "such as the mean over the batch."
            )
    return [float(array) for array in arrays]


def _check(step_or_loss: Any, params: Any, validate: Any, counts: dict[str, Any]) -> None:
    need_function(step_or_loss, "fit", "step_or_loss", "fit(loss, params, batches, optimizer)")
    if isinstance(params, FunctionType):
        raise TypeError(
            f"{called()}: params is the function {params.__name__} {here()}. Write fit(loss, params, batches, "
            "optimizer)."
        )
    if validate is not None:
        need_function(validate, "fit", "validate", "validate=lambda state: train.evaluate(fun, batches)")
    for name, value in counts.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{called()}: {name} is {value!r} {here()}. Give a number of 1 or more.")


def _refuse(given: dict[str, Any]) -> None:
    """Raises for what a step of the user's does not take."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{called()}: {name}= goes with a loss and an optimizer, and there is no optimizer {here()}. A step of "
                "your own has all that it needs in its state."
            )


__all__ = ["FitError", "FitResult", "Loop", "NonFiniteError", "fit"]
