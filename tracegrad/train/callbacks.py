"""What a loop calls: at the start, after steps, after epochs, and at the end; early stopping."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import called, here
from .weights import from_named, named_leaves

if TYPE_CHECKING:
    from .loop import Loop


class Callback:
    """What `fit` calls; write a class under this one, and in it what is needed of these methods.

    `loop` has `state`, `step`, `epoch`, `batch` (the arguments of the last step), `history`, and `stop(why)`. What
    `state_dict` returns is in every checkpoint. The arrays of `loop.state` are gone after the next step: copy what is
    to stay (`jax.numpy.copy`).

    Attributes:
      every: every how many steps `on_step` is called.

    Example:
      >>> from tracegrad import train
      >>> class Slow(train.Callback):
      ...     every = 100
      ...
      ...     def on_step(self, loop):
      ...         print(loop.step)
    """

    every: int = 1

    def on_start(self, loop: Loop) -> None:
        """Before the first step, with what a checkpoint had."""

    def on_step(self, loop: Loop) -> None:
        """After every `every`-th step."""

    def on_epoch(self, loop: Loop) -> None:
        """After every epoch, or every `validate_every` steps, with what was measured then in `loop.history`."""

    def on_end(self, loop: Loop) -> None:
        """After the last step."""

    def state_dict(self) -> dict[str, Any]:
        """Numbers, texts and arrays to find again, in dicts and lists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` returned, with arrays of NumPy's."""


class EarlyStopping(Callback):
    """Stops when a number has stopped to get better. Names and defaults are those of Keras.

    Args:
      monitor: what `validate` returns by this name; or "loss", of which the mean over the epoch counts.
      min_delta: what is no improvement if it is less.
      patience: after how many epochs without improvement; 0 stops at the first.
      mode: "min", "max", or "auto": the greatest is the best of what is named an accuracy or AUC.
      restore_best_weights: whether the parameters of the best epoch are put back at the end.

    Attributes:
      best: the best number so far.
      wait: for how many epochs there was none better.

    Example:
      >>> from tracegrad import train
      >>> stopping = train.EarlyStopping(patience=2)
      >>> [stopping.update(value) for value in (3.0, 1.0, 2.0, 1.0)]
      [False, False, False, True]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        mode: Literal["auto", "min", "max"] = "auto",
        restore_best_weights: bool = False,
    ) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{called()}: mode={mode!r} {here()}. Choose 'auto', 'min' or 'max'.")
        if not isinstance(patience, int) or patience < 0:
            raise ValueError(f"{called()}: patience is {patience!r} {here()}. Give epochs, 0 or more.")
        if mode == "auto":
            mode = "max" if any(word in monitor.lower() for word in ("acc", "auc")) else "min"
        self.monitor, self.min_delta, self.patience, self.mode = monitor, abs(min_delta), patience, mode
        self.restore_best_weights = restore_best_weights
        self.best: float | None = None
        self.wait = 0
        self._seen = 0
        self._weights: Any = None

    def update(self, value: float) -> bool:
        """Takes the number of one more epoch, and says whether it is time to stop. NaN is no improvement."""
        gain = 0.0 if self.best is None else self.best - value if self.mode == "min" else value - self.best
        better = not math.isnan(value) and (self.best is None or gain > self.min_delta)
        if better:
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        return self._over()

    def _over(self) -> bool:
        return self.wait > 0 and self.wait >= self.patience

    def on_start(self, loop: Loop) -> None:
        if self._weights is not None:
            self._weights = from_named(self._weights, loop.state.params)
        if self._over():
            self._stop(loop)

    def on_epoch(self, loop: Loop) -> None:
        if self.monitor not in loop.history:
            raise ValueError(
                f"{called()}: EarlyStopping looks at {self.monitor!r}, which was not measured {here()}. There are "
                f"{', '.join(loop.history)}: choose monitor= among them, or let validate= return it."
            )
        new = loop.history[self.monitor][self._seen :]
        self._seen += len(new)
        if not len(new):
            return
        over = self.update(float(np.mean(new)))
        if self.restore_best_weights and self.wait == 0:
            self._weights = jax.tree.map(jnp.copy, loop.state.params)
        if over:
            self._stop(loop)

    def _stop(self, loop: Loop) -> None:
        loop.stop(f"{self.monitor} is not better than {self.best:.4g} for {self.wait} epoch{'s' * (self.wait != 1)}")

    def on_end(self, loop: Loop) -> None:
        if self._weights is not None and not loop.interrupted:
            loop.state = loop.state._replace(params=self._weights)

    def state_dict(self) -> dict[str, Any]:
        weights = None if self._weights is None else named_leaves(self._weights)
        return {"best": self.best, "wait": self.wait, "seen": self._seen, "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.wait, self._seen = state["best"], state["wait"], state["seen"]
        self._weights = state["weights"]


__all__ = ["Callback", "EarlyStopping"]
