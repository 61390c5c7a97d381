"""A step of training, and the state that it takes and returns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from .. import random
from ..compile import jit
from ..errors import called, describe, here, need_function
from ..optimizers import LookaheadParams, apply_updates, multi_steps, skip_not_finite
from ..optimizers.base import GradientTransformation, is_ours, need_optimizer, update_of
from ..transforms import value_and_grad
from .agreement import gather
from .weights import is_key


class Average(NamedTuple):
    """value: the average of the parameters; state: that of the average."""

    value: Any
    state: Any


class TrainState(NamedTuple):
    """All that a step changes, as a pytree: what is saved and restored.

    Attributes:
      step: int32, how many steps there were.
      params: the parameters.
      opt_state: of the optimizer.
      model_state: what changes and is no parameter, such as `nn.init_state(model)`; or `None`.
      key: a random key, from which each step has its own; or `None`.
      average: of the parameters; or `None`.
      failed: whether a loss or a gradient was not finite. Then nothing else has changed since: the state is the last
        good one.
    """

    step: Any
    params: Any
    opt_state: Any
    model_state: Any
    key: Any
    average: Average | None
    failed: Any

    @classmethod
    def create(
        cls,
        params: Any,
        optimizer: GradientTransformation,
        *,
        model_state: Any = None,
        key: Any = None,
        average: GradientTransformation | None = None,
    ) -> TrainState:
        """The state before the first step, with arrays of its own: those that it is given may be used elsewhere.

        Example:
          >>> import numpy as np
          >>> from tracegrad import optimizers, train
          >>> train.TrainState.create(np.zeros(2), optimizers.sgd(0.1)).step
          Array(0, dtype=int32)
        """
        need_optimizer(optimizer, "fit(loss, params, batches, optimizer)")
        point = params.slow if isinstance(params, LookaheadParams) else params
        averaged = None if average is None else Average(point, average.init(point))
        made = cls(jnp.zeros((), np.int32), params, optimizer.init(params), model_state, key, averaged, np.False_)
        return jax.tree.map(_own, made)  # type: ignore[no-any-return]

    def eval_params(self) -> Any:
        """The parameters to evaluate the model with: the average, where there is one."""
        if self.average is not None:
            return self.average.value
        return self.params.slow if isinstance(self.params, LookaheadParams) else self.params


def _own(leaf: Any) -> Any:
    """A copy, which may be donated, with a dtype of its own."""
    array = jnp.asarray(leaf)
    return jnp.copy(array) if is_key(array) else jnp.array(array, array.dtype)


def make_step(
    loss: Callable[..., Any],
    optimizer: GradientTransformation,
    *,
    average: GradientTransformation | None = None,
    stop_on_nonfinite: bool = True,
    donate: bool = True,
) -> Callable[..., tuple[TrainState, Any]]:
    """The step that `fit` takes: `step(state, *batch) -> (state, loss)`, compiled.

    Args:
      loss: `loss(params, *batch)`, a scalar. Where the state has a `model_state`, `loss(params, model_state, *batch)`,
        which returns `(value, model_state)`; where it has a key, `key=` is given besides, another in each step.
      optimizer: any of `optimizers`, or of optax's. Those that take the loss's value, as `reduce_on_plateau`, are given
        it.
      average: of the parameters after each step: `optimizers.ema(0.999)` or `optimizers.swa(start)`.
      stop_on_nonfinite: whether the state stays as it was from the first step on whose loss or gradients are not
        finite; all later losses are then NaN.
      donate: whether the new state takes the memory of the old one, which is then gone.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers, train
      >>> optimizer = optimizers.sgd(0.5)
      >>> step = train.make_step(lambda w, x: ((w - x) ** 2).mean(), optimizer)
      >>> state = train.TrainState.create(np.zeros(1, np.float32), optimizer)
      >>> state, value = step(state, np.ones(1, np.float32))
      >>> state.params.tolist(), float(value)
      ([1.0], 1.0)
    """
    need_function(loss, "make_step", "loss", "make_step(loss, optimizer)")
    update = updating(optimizer, average, stop_on_nonfinite)

    def step(state: TrainState, *batch: Any) -> tuple[TrainState, Any]:
        at = value_at(loss, state, batch)
        (value, model_state), grads = value_and_grad(at, has_aux=True)(point_of(state.params))
        return update(state, value, model_state, grads, lambda params: at(params)[0])

    return jit(named_after(step, loss), donate_argnums=0 if donate else None)


def named_after(step: Callable[..., Any], loss: Callable[..., Any]) -> Callable[..., Any]:
    """The step, with a name that says of which loss it is."""
    step.__name__ = step.__qualname__ = f"step_of_{getattr(loss, '__name__', 'loss')}".replace("<lambda>", "loss")
    return step


def updating(
    optimizer: GradientTransformation, average: GradientTransformation | None, stop_on_nonfinite: bool
) -> Callable[..., tuple[TrainState, Any]]:
    """What a step does with a loss and its gradients: `update(state, value, model_state, grads, value_fn)`.

    It returns the new state and the loss. `value_fn` is the loss of the batch as a function of the parameters.
    """
    need_optimizer(optimizer, "fit(loss, params, batches, optimizer)")
    apply = optimizer.update if is_ours(optimizer) else update_of(optimizer)

    def update(
        state: TrainState, value: Any, model_state: Any, grads: Any, value_fn: Callable[[Any], Any]
    ) -> tuple[TrainState, Any]:
        updates, opt_state = apply(grads, state.opt_state, state.params, value=value, grad=grads, value_fn=value_fn)
        params = apply_updates(state.params, updates)
        averaged = None
        if state.average is not None and average is not None:
            slow = params.slow if isinstance(params, LookaheadParams) else params
            averaged = Average(*average.update(slow, state.average.state))
        new = TrainState(state.step + 1, params, opt_state, model_state, None, averaged, state.failed)
        if stop_on_nonfinite:
            failed = state.failed | ~tnp.isfinite(value) | skip_not_finite(grads)
            old = state._replace(key=None)
            new = jax.tree.map(lambda o, n: tnp.where(failed, o, n), old, new)._replace(failed=failed)
            value = tnp.where(state.failed, np.nan, value)
        return new._replace(key=state.key), value

    return update


def value_at(
    loss: Callable[..., Any], state: TrainState, batch: tuple[Any, ...], shard: Any = None
) -> Callable[[Any], Any]:
    """What a step differentiates: from parameters to the loss of a batch, and the new state of the model.

    A batch that is a shard of a larger one has a random key of its own.
    """
    options = {}
    if state.key is not None:
        key = random.fold_in(state.key, state.step)
        options["key"] = key if shard is None else random.fold_in(key, shard)

    @functools.wraps(loss)
    def at(params: Any) -> Any:
        if state.model_state is None:
            out = loss(params, *batch, **options)
            if isinstance(out, tuple):
                raise TypeError(
                    f"{called()}: the loss returned {describe(out)} {here()}. Return one scalar; with model_state=, "
                    "(value, model_state). Other numbers are for validate=."
                )
            return out, None
        out = loss(params, state.model_state, *batch, **options)
        if not isinstance(out, tuple) or len(out) != 2:
            raise TypeError(
                f"{called()}: there is a model_state, and the loss returned {describe(out)} {here()}. Return (value, "
                "model_state), such as value, run.state."
            )
        return out

    return at


def point_of(params: Any) -> Any:
    """Where the gradient is taken."""
    return params.fast if isinstance(params, LookaheadParams) else params


def accumulated(optimizer: GradientTransformation, accumulate: int) -> GradientTransformation:
    """The optimizer that takes a step after so many gradients, of their mean."""
    if not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"{called()}: accumulate is {accumulate!r} {here()}. Give a number of 1 or more.")
    return optimizer if accumulate == 1 else multi_steps(optimizer, accumulate)


def evaluate(fun: Callable[..., Any], batches: Iterable[Any]) -> Any:
    """The mean of `fun(*batch)` over batches, each counted by how many examples it has.

    In many processes all of them call this, each with its batches, and the mean is over those of all.

    Args:
      fun: of a batch, to numbers that are means over it: a scalar, or a dict of scalars. Compile it with `tg.jit`.
      batches: tuples of arrays, with the examples along their first axes.

    Raises:
      ValueError: if there is no batch, in one of the processes.

    Example:
      >>> import numpy as np
      >>> from tracegrad import train
      >>> batches = [(np.array([1.0, 2.0]),), (np.array([6.0]),)]
      >>> train.evaluate(lambda x: {"mean": x.mean()}, batches)
      {'mean': 3.0}
    """
    total: Any = None
    count = 0
    for batch in batches:
        args = tuple(batch) if type(batch) in (tuple, list) else (batch,)
        size = np.shape(jax.tree.leaves(args)[0])[0]
        part = jax.tree.map(lambda x, size=size: x * size, fun(*args))  # type: ignore[misc]
        total = part if total is None else jax.tree.map(lambda x, y: x + y, total, part)
        count += size
    numbers, tree = jax.tree.flatten(total)
    found = gather("evaluating", [count, *map(float, numbers)])
    if not all(part[0] for part in found):
        raise ValueError(f"{called()}: there is no batch {here()}, so there is nothing to measure.")
    count, *sums = (sum(column) for column in zip(*found, strict=True))
    return jax.tree.unflatten(tree, [value / count for value in sums])


__all__ = ["Average", "TrainState", "evaluate", "make_step"]
