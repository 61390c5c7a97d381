"""What a loop calls: at the start, after steps, after epochs, and at the end; early stopping, plateaus."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import called, here
from ..optimizers.hyperparams import Hyperparams, InjectHyperparamsState
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


class _Watching(Callback):
    """Looks after each epoch whether a number has got better."""

    def __init__(self, monitor: str, min_delta: float, patience: int, mode: str) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"{called()}: mode={mode!r} {here()}. Choose 'auto', 'min' or 'max'.")
        if not isinstance(patience, int) or patience < 0:
            raise ValueError(f"{called()}: patience is {patience!r} {here()}. Give epochs, 0 or more.")
        if mode == "auto":
            mode = "max" if any(word in monitor.lower() for word in ("acc", "auc")) else "min"
        self.monitor, self.min_delta, self.patience, self.mode = monitor, abs(min_delta), patience, mode
        self.best: float | None = None
        self.wait = 0
        self._seen = 0

    def update(self, value: float) -> bool:
        """Takes the number of one more epoch, and says whether the patience is over. NaN is no improvement."""
        gain = 0.0 if self.best is None else self.best - value if self.mode == "min" else value - self.best
        better = not math.isnan(value) and (self.best is None or gain > self.min_delta)
        if better:
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        return self._over()

    def _over(self) -> bool:
        return self.wait > 0 and self.wait >= self.patience

    def _measured(self, loop: Loop) -> float | None:
        """The mean of what was measured since the last time, if anything was."""
        if self.monitor not in loop.history:
            raise ValueError(
                f"{called()}: {type(self).__name__} looks at {self.monitor!r}, which was not measured {here()}. There "
                f"are {', '.join(loop.history)}: choose monitor= among them, or let validate= return it."
            )
        new = loop.history[self.monitor][self._seen :]
        self._seen += len(new)
        return float(np.mean(new)) if len(new) else None

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "wait": self.wait, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.wait, self._seen = state["best"], state["wait"], state["seen"]


class EarlyStopping(_Watching):
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
        super().__init__(monitor, min_delta, patience, mode)
        self.restore_best_weights = restore_best_weights
        self._weights: Any = None

    def on_start(self, loop: Loop) -> None:
        if self.restore_best_weights and not hasattr(loop.state, "params"):
            raise TypeError(
                f"{called()}: restore_best_weights needs to know what the weights are {here()}. Give fit a loss and an "
                "optimizer, not a step, or leave it out and keep the best in a checkpoint: Checkpoints(monitor=)."
            )
        if self._weights is not None:
            self._weights = from_named(self._weights, _weights(loop.state))
        if self._over():
            self._stop(loop)

    def on_epoch(self, loop: Loop) -> None:
        value = self._measured(loop)
        if value is None:
            return
        over = self.update(value)
        if self.restore_best_weights and self.wait == 0:
            self._weights = jax.tree.map(jnp.copy, _weights(loop.state))
        if over:
            self._stop(loop)

    def _stop(self, loop: Loop) -> None:
        loop.stop(f"{self.monitor} is not better than {self.best:.4g} for {self.wait} epoch{'s' * (self.wait != 1)}")

    def on_end(self, loop: Loop) -> None:
        if self._weights is not None and not loop.interrupted:
            loop.state = loop.state._replace(**self._weights)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"weights": None if self._weights is None else named_leaves(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._weights = state["weights"]


class ReduceLROnPlateau(_Watching):
    """Lowers the learning rate when a number has stopped to get better. Names and defaults are those of Keras.

    The cooldown is that of optax and PyTorch: what is measured in it does not count. The rate has to be in the
    optimizer's state: `optimizers.inject_hyperparams(optimizers.adam)(1e-3)`. What it is after each epoch is in the
    history, as "learning_rate". (`optimizers.reduce_on_plateau` looks at the loss of the steps, and is part of the
    optimizer.)

    Args:
      monitor: what `validate` returns by this name; or "loss", of which the mean over the epoch counts.
      factor: what the rate is multiplied by, between 0 and 1.
      patience: after how many epochs without improvement.
      mode: "min", "max", or "auto": the greatest is the best of what is named an accuracy or AUC.
      min_delta: what is no improvement if it is less.
      cooldown: for how many epochs after that nothing is counted.
      min_lr: what the rate does not fall below.

    Attributes:
      best: the best number so far.
      wait: for how many epochs there was none better.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers, train
      >>> optimizer = optimizers.inject_hyperparams(optimizers.sgd)(learning_rate=0.4)
      >>> plateau = train.ReduceLROnPlateau("loss", factor=0.5, patience=2)
      >>> result = train.fit(lambda w, x: (w * 0 + x).sum(), np.zeros(1), [np.ones(1)], optimizer, epochs=6,
      ...                    callbacks=[plateau], progress=False)
      >>> np.round(result.history["learning_rate"], 2).tolist()
      [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: Literal["auto", "min", "max"] = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, min_delta, patience, mode)
        if not 0 < factor < 1:
            raise ValueError(f"{called()}: factor is {factor!r} {here()}. Give a number between 0 and 1.")
        if not isinstance(cooldown, int) or cooldown < 0:
            raise ValueError(f"{called()}: cooldown is {cooldown!r} {here()}. Give epochs, 0 or more.")
        self.factor, self.cooldown, self.min_lr = factor, cooldown, min_lr
        self._cooling = 0
        self._set: float | None = None

    def on_start(self, loop: Loop) -> None:
        self._rate(loop)

    def on_epoch(self, loop: Loop) -> None:
        value = self._measured(loop)
        if value is None:
            return
        hyperparams = self._rate(loop)
        rate = float(hyperparams["learning_rate"])
        if self._set is not None and rate != self._set:
            raise ValueError(
                f"{called()}: ReduceLROnPlateau set the learning rate to {self._set:.4g}, and it is {rate:.4g} "
                f"{here()}: a schedule sets it in each step. Use either of them."
            )
        over = self.update(value)
        if self._cooling:
            self._cooling -= 1
            self.wait = 0
        elif over:
            self.wait, self._cooling = 0, self.cooldown
            if rate > self.min_lr:
                hyperparams["learning_rate"] = max(rate * self.factor, self.min_lr)
                self._set = float(hyperparams["learning_rate"])
        loop.history.add(loop.step, {"learning_rate": float(hyperparams["learning_rate"])})

    def _rate(self, loop: Loop) -> Hyperparams:
        """Where the rate is, in the state of the loop."""
        injected: list[Hyperparams] = [
            node.hyperparams
            for node in jax.tree.leaves(loop.state, is_leaf=lambda x: isinstance(x, InjectHyperparamsState))
            if isinstance(node, InjectHyperparamsState) and "learning_rate" in node.hyperparams
        ]
        if len(injected) != 1:
            raise ValueError(
                f"{called()}: ReduceLROnPlateau needs an optimizer with its learning rate in the state, and found "
                f"{len(injected)} {here()}. Write optimizers.inject_hyperparams(optimizers.adam)(learning_rate=1e-3)."
            )
        return injected[0]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"cooling": self._cooling, "set": self._set}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._cooling, self._set = state["cooling"], state["set"]


def _weights(state: Any) -> dict[str, Any]:
    """What is put back: the parameters, and their average."""
    return {"params": state.params, "average": state.average}


__all__ = ["Callback", "EarlyStopping", "ReduceLROnPlateau"]
