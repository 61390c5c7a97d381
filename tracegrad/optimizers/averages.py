"""Averages: of gradients, and of the parameters that they lead to."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from .. import numpy as tnp
from .. import schedules
from ..errors import called, describe, here
from ..pickling import pickled_as_call
from .base import (
    GradientTransformation,
    Params,
    Rate,
    State,
    chain,
    debias,
    each,
    increment,
    init_of,
    is_ours,
    need_optimizer,
    need_params,
    need_rate,
    rate_at,
    real_dtype,
    running_mean,
    transformation,
    typed_like,
    update_of,
    zero_count,
    zeros_like,
)
from .scaling import add_decayed_weights, scale_by_learning_rate, scale_by_rms


class EmaState(NamedTuple):
    """count: int32, the values taken; ema: their running mean."""

    count: Any
    ema: Any


@pickled_as_call
def ema(decay: Any, debias: bool = True, accumulator_dtype: Any = None) -> GradientTransformation:
    """The exponential moving average of what `update` is given: of gradients in a chain, or of parameters.

    m = decay m + (1 - decay) x, from 0, divided by 1 - decay^t with `debias`. Polyak and Juditsky (1992) for averages
    of parameters.

    Args:
      decay: 0.999 for parameters.
      debias: whether the first values count for what is missing.
      accumulator_dtype: the dtype of the mean, such as float32 for 16-bit parameters; by default their own.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> average = optimizers.ema(0.5)
      >>> state = average.init(np.zeros(1))
      >>> for params in (np.array([1.0]), np.array([4.0])):
      ...     smooth, state = average.update(params, state)
      >>> smooth.tolist()
      [3.0]
    """

    def update(values: Any, state: EmaState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = EmaState(increment(state.count), running_mean(decay, values, state.ema))
        if not debias:
            return new.ema, new
        return each(lambda c, m: m / c, [_debias(decay, new.count)], new.ema), new

    return transformation(lambda params: EmaState(zero_count(), zeros_like(params, accumulator_dtype)), update)


_debias = debias


class SwaState(NamedTuple):
    """count, taken: int32, the steps, and how many of them are in the mean; mean: like the parameters."""

    count: Any
    taken: Any
    mean: Any


@pickled_as_call
def swa(start: int = 0, period: int = 1, accumulator_dtype: Any = None) -> GradientTransformation:
    """The equal mean of the parameters from step `start` on, of every `period`-th; the parameters themselves before.

    Izmailov et al., "Averaging weights leads to wider optima" (2018).

    Args:
      start: the first step that counts.
      period: every how many steps from there on.
      accumulator_dtype: the dtype of the mean; by default the parameters'.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> average = optimizers.swa(start=1)
      >>> state = average.init(np.zeros(1))
      >>> for params in (np.array([9.0]), np.array([1.0]), np.array([4.0])):
      ...     mean, state = average.update(params, state)
      >>> mean.tolist()
      [2.5]
    """
    for name, value, least in (("start", start, 0), ("period", period, 1)):
        if isinstance(value, (int, float)) and value < least:
            raise ValueError(f"{called()}: {name} is {describe(value)} {here()}. Give a number of at least {least}.")

    def update(values: Any, state: SwaState, params: Params, **extra: Any) -> tuple[Any, State]:
        since = state.count - start
        take = (since >= 0) & (since % period == 0)
        taken = tnp.where(take, increment(state.taken), state.taken)
        mean = each(lambda n, x, m: tnp.where(take, m + (x - m) / n, m), [tnp.maximum(taken, 1)], values, state.mean)
        shown = each(lambda x, m: tnp.where(taken > 0, m, x), [], values, mean)
        return shown, SwaState(increment(state.count), taken, mean)

    return transformation(
        lambda params: SwaState(zero_count(), zero_count(), zeros_like(params, accumulator_dtype)), update
    )


class ScheduleFreeState(NamedTuple):
    """b1, weight_sum, max_lr: numbers; step_count: int32, the next step; z: the parameters of the optimizer itself."""

    b1: Any
    weight_sum: Any
    step_count: Any
    max_lr: Any
    base_optimizer_state: Any
    z: Any


@pickled_as_call
def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: Rate,
    b1: Any = 0.9,
    weight_lr_power: Any = 2.0,
    state_dtype: Any = None,
) -> GradientTransformation:
    """A schedule's results without one: gradients are taken between the optimizer's point z and the mean x of all.

    The parameters are y = b1 x + (1 - b1) z; evaluate at `schedule_free_eval_params(state, params)`, which is x.
    Defazio et al., "The road less scheduled" (2024).

    Args:
      base_optimizer: an optimizer without momentum of its own.
      learning_rate: the same as its rate: points count by its largest value so far.
      b1: how near to the mean the gradient is taken.
      weight_lr_power: the power of the rate that a point counts by.
      state_dtype: the dtype of z; by default the parameters'.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.schedule_free(optimizers.sgd(0.5), 0.5)
      >>> params = np.array([1.0])
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(np.array([1.0]), state, params)
      >>> params = optimizers.apply_updates(params, updates)
      >>> optimizers.schedule_free_eval_params(state, params).round(4).tolist()
      [0.5]
    """
    need_optimizer(base_optimizer, "schedule_free(optimizer, learning_rate)")
    need_rate(learning_rate)
    start, step = init_of(base_optimizer), update_of(base_optimizer)

    def init(params: Params) -> State:
        leaves = jax.tree.leaves(params)
        zero = tnp.zeros((), real_dtype(*leaves) if leaves else None)
        z = params if state_dtype is None else jax.tree.map(lambda p: tnp.astype(p, state_dtype), params)
        return ScheduleFreeState(zero + b1, zero, zero_count() + 1, zero, start(params), z)

    def update(grads: Any, state: ScheduleFreeState, params: Params, **extra: Any) -> tuple[Any, State]:
        need_params(params)
        max_lr = tnp.maximum(state.max_lr, rate_at(learning_rate, state.step_count))
        weight = max_lr**weight_lr_power
        total = state.weight_sum + weight
        part = tnp.where(total == 0, 0, weight / tnp.where(total == 0, 1, total))
        updates, inner = step(grads, state.base_optimizer_state, params, **extra)
        z = typed_like(each(lambda z, u: z + u, [], state.z, updates), state.z)

        def next_params(b1: Any, part: Any, y: Any, old: Any, new: Any) -> Any:
            x = (1 - part) * ((y - (1 - b1) * old) / b1) + part * new
            return b1 * x + (1 - b1) * new - y

        updates = each(next_params, [b1, part], params, state.z, z)
        return updates, ScheduleFreeState(state.b1, total, increment(state.step_count), max_lr, inner, z)

    return transformation(init, update, is_ours(base_optimizer))


def schedule_free_eval_params(state: Any, params: Params) -> Params:
    """The mean x of `schedule_free`, at which to evaluate the model: (y - (1 - b1) z) / b1."""
    if not isinstance(state, ScheduleFreeState):
        raise TypeError(f"{called()}: state is {type(state).__name__} {here()}. Give the state of schedule_free.")
    return each(lambda b1, y, z: (y - (1 - b1) * z) / b1, [state.b1], params, state.z)


def _warmed_up(learning_rate: Any, warmup_steps: int | None) -> Rate:
    return learning_rate if warmup_steps is None else schedules.warmup_constant_schedule(0, learning_rate, warmup_steps)


@pickled_as_call
def schedule_free_sgd(
    learning_rate: Any = 1.0,
    warmup_steps: int | None = None,
    b1: Any = 0.9,
    weight_decay: Any = None,
    weight_lr_power: Any = 2.0,
    state_dtype: Any = None,
) -> GradientTransformation:
    """`schedule_free` of `sgd`. Defazio et al. (2024)."""
    rate = _warmed_up(learning_rate, warmup_steps)
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay)]
    optimizer = chain(*decay, scale_by_learning_rate(rate))
    return schedule_free(optimizer, rate, b1, weight_lr_power, state_dtype)


@pickled_as_call
def schedule_free_adamw(
    learning_rate: Any = 0.0025,
    warmup_steps: int | None = None,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
    weight_lr_power: Any = 2.0,
    state_dtype: Any = None,
) -> GradientTransformation:
    """`schedule_free` of `adamw` without its first moment. Defazio et al. (2024)."""
    rate = _warmed_up(learning_rate, warmup_steps)
    optimizer = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(rate),
    )
    return schedule_free(optimizer, rate, b1, weight_lr_power, state_dtype)


__all__ = [
    "EmaState", "ScheduleFreeState", "SwaState", "ema", "schedule_free", "schedule_free_adamw",
    "schedule_free_eval_params", "schedule_free_sgd", "swa",
]  # fmt: skip
