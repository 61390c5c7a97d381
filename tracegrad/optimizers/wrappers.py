"""Optimizers made of optimizers: of several gradients, of good ones alone, less by a value, or twice over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import numpy as tnp
from ..control import cond
from ..errors import called, here
from ..parallel import sum_gradients
from ..pickling import pickled_as_call
from .base import (
    GradientTransformation,
    LookaheadParams,
    Params,
    State,
    each,
    increment,
    is_ours,
    need,
    need_params,
    rate_at,
    real_dtype,
    stateless,
    transformation,
    typed_like,
    unwrapped,
    zero_count,
    zeros_like,
)


def _where(chosen: Any, these: Any, those: Any) -> Any:
    return jax.tree.map(lambda x, y: tnp.where(chosen, x, y), these, those)


# -- of several gradients, or only of good ones


class MultiStepsState(NamedTuple):
    """mini_step, gradient_step: int32, gradients since the last step, and steps; acc_grads: their mean or sum."""

    mini_step: Any
    gradient_step: Any
    inner_opt_state: Any
    acc_grads: Any


@pickled_as_call
def multi_steps(
    opt: GradientTransformation,
    every_k_schedule: int | Callable[[Any], Any],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[[Any, Any, Params], Any] | None = None,
    accumulator_dtype: Any = np.float32,
) -> GradientTransformation:
    """A step of `opt` after every k gradients, of their mean; updates of zero in between.

    The result is that of one batch k times as large. The optimizer runs, and costs, at those steps alone.

    Args:
      opt: an optimizer.
      every_k_schedule: k, or a function of the number of steps taken to it.
      use_grad_mean: whether it takes the mean of the gradients, or the sum.
      should_skip_update_fn: `f(grads, gradient_step, params)`, a boolean: gradients to leave out, such as
        `skip_not_finite`; it may be the first of a pair, as optax has it.
      accumulator_dtype: the dtype in which gradients are added up; `None` for their own.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.multi_steps(optimizers.sgd(1.0), 2)
      >>> state = optimizer.init(np.zeros(1))
      >>> for grads in (np.array([1.0]), np.array([3.0])):
      ...     updates, state = optimizer.update(grads, state)
      ...     print(updates)
      [0.]
      [-2.]
    """
    start, update = unwrapped(opt, "multi_steps(optimizer, k)")
    if isinstance(every_k_schedule, int) and every_k_schedule < 1:
        raise ValueError(f"{called()}: every_k_schedule is {every_k_schedule} {here()}. Give a number of at least 1.")

    def init(params: Params) -> State:
        return MultiStepsState(zero_count(), zero_count(), start(params), zeros_like(params, accumulator_dtype))

    def multi_update(grads: Any, state: MultiStepsState, params: Params, **extra: Any) -> tuple[Any, State]:
        k, done = rate_at(every_k_schedule, state.gradient_step), state.mini_step
        if use_grad_mean:
            total = each(lambda n, g, acc: acc + (g - acc) / n, [done + 1], grads, state.acc_grads)
        else:
            total = each(lambda g, acc: g + acc, [], grads, state.acc_grads)
        total = typed_like(total, state.acc_grads)

        def step() -> tuple[Any, State]:
            updates, inner = update(typed_like(total, grads), state.inner_opt_state, params, **extra)
            new = MultiStepsState(zero_count(), increment(state.gradient_step), inner, zeros_like(state.acc_grads))
            return typed_like(updates, grads), typed_like(new, state)

        def wait() -> tuple[Any, State]:
            return zeros_like(grads), state._replace(mini_step=increment(done), acc_grads=total)

        def go_on() -> tuple[Any, State]:
            return cond(done >= k - 1, step, wait)  # type: ignore[no-any-return]

        if should_skip_update_fn is None:
            return go_on()
        skip = should_skip_update_fn(grads, state.gradient_step, params)
        skip = skip[0] if isinstance(skip, tuple) else skip
        return cond(skip, lambda: (zeros_like(grads), state), go_on)  # type: ignore[no-any-return]

    return transformation(init, multi_update, is_ours(opt))


def _all_finite(tree: Any) -> Any:
    return functools.reduce(lambda x, y: x & y, [tnp.all(tnp.isfinite(x)) for x in jax.tree.leaves(tree)], np.True_)


def skip_not_finite(grads: Any, gradient_step: Any = None, params: Params = None) -> Any:
    """Whether anything in the gradients is NaN or infinite: for `multi_steps`."""
    return ~_all_finite(grads)


class ApplyIfFiniteState(NamedTuple):
    """notfinite_count, total_notfinite: int32, bad gradients in a row, and in all; last_finite: the last was good."""

    notfinite_count: Any
    last_finite: Any
    total_notfinite: Any
    inner_state: Any


@pickled_as_call
def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: Any) -> GradientTransformation:
    """`inner`, which leaves out gradients with NaN or infinity in them: updates of zero, and the same state.

    Args:
      inner: an optimizer.
      max_consecutive_errors: after how many such gradients in a row the next is taken as it is.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.apply_if_finite(optimizers.sgd(1.0), 3)
      >>> updates, state = optimizer.update(np.array([np.nan]), optimizer.init(np.zeros(1)))
      >>> updates.tolist(), int(state.total_notfinite)
      ([0.0], 1)
    """
    start, update = unwrapped(inner, "apply_if_finite(optimizer, max_consecutive_errors)")

    def init(params: Params) -> State:
        return ApplyIfFiniteState(zero_count(), tnp.asarray(True), zero_count(), start(params))

    def careful(grads: Any, state: ApplyIfFiniteState, params: Params, **extra: Any) -> tuple[Any, State]:
        good = tnp.asarray(_all_finite(grads))
        bad = tnp.where(good, 0, increment(state.notfinite_count))

        def step() -> tuple[Any, State]:
            updates, new = update(grads, state.inner_state, params, **extra)
            return typed_like(updates, grads), typed_like(new, state.inner_state)

        updates, new = cond(good | (bad > max_consecutive_errors), step, lambda: (zeros_like(grads), state.inner_state))
        total = tnp.where(good, state.total_notfinite, increment(state.total_notfinite))
        return updates, ApplyIfFiniteState(bad, good, total, new)

    return transformation(init, careful, is_ours(inner))


class ReduceLROnPlateauState(NamedTuple):
    """scale: what the updates are multiplied by; best_value, avg_value: of the loss; the rest are counts, int32."""

    scale: Any
    best_value: Any
    plateau_count: Any
    cooldown_count: Any
    count: Any
    avg_value: Any


@pickled_as_call
def reduce_on_plateau(
    factor: float = 0.1,
    patience: Any = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: Any = 0,
    accumulation_size: Any = 1,
    min_scale: Any = 0.0,
) -> GradientTransformation:
    """Multiplies the updates by a scale that falls when a value, such as a development loss, stops to.

    To come after an optimizer in a `chain`; `update(grads, state, params, value=loss)`.

    Args:
      factor: what the scale is multiplied by, between 0 and 1.
      patience: after how many values without improvement.
      rtol, atol: an improvement is below (1 - rtol) best - atol.
      cooldown: for how many values after that nothing is counted.
      accumulation_size: of how many values a mean is taken first.
      min_scale: what the scale does not fall below.

    Raises:
      ValueError: from `update`, if there is no `value=`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.chain(optimizers.sgd(1.0), optimizers.reduce_on_plateau(0.5, patience=2))
      >>> state = optimizer.init(np.zeros(1))
      >>> for loss in (3.0, 2.0, 2.0, 2.0):
      ...     updates, state = optimizer.update(np.ones(1), state, value=loss)
      ...     print(updates)
      [-1.]
      [-1.]
      [-1.]
      [-0.5]
    """
    if not 0 < factor < 1:
        raise ValueError(f"{called()}: factor is {factor} {here()}. Give a number between 0 and 1.")
    if not (0 <= rtol <= 1 and atol >= 0 and rtol + atol > 0):
        raise ValueError(
            f"{called()}: rtol is {rtol} and atol {atol} {here()}. Give 0 <= rtol <= 1 and 0 <= atol, not both 0."
        )

    def init(params: Params) -> State:
        leaves = jax.tree.leaves(params)
        dtype = real_dtype(*leaves) if leaves else None
        count, zero = zero_count(), tnp.zeros((), dtype)
        return ReduceLROnPlateauState(zero + 1, zero + np.inf, count, count, count, zero)

    def update(grads: Any, state: ReduceLROnPlateauState, params: Params, **extra: Any) -> tuple[Any, State]:
        value = need(extra, "value", "grads, state, params, value=loss")
        count = increment(state.count)
        mean = (state.count * state.avg_value + value) / count
        improved = mean < (1 - rtol) * state.best_value - atol
        waited = tnp.where(improved, 0, increment(state.plateau_count))
        cooling = state.cooldown_count > 0
        fall = ~cooling & (waited == patience)
        measured = ReduceLROnPlateauState(
            scale=tnp.where(cooling, state.scale, tnp.maximum(state.scale * tnp.where(fall, factor, 1), min_scale)),
            best_value=tnp.where(improved, mean, state.best_value),
            plateau_count=tnp.where(cooling | fall, 0, waited),
            cooldown_count=tnp.where(cooling, state.cooldown_count - 1, tnp.where(fall, cooldown, 0)),
            count=zero_count(),
            avg_value=zeros_like(state.avg_value),
        )
        new = _where(count == accumulation_size, measured, state._replace(count=count, avg_value=mean))
        return each(lambda scale, g: g * scale, [new.scale], grads), new

    return transformation(init, update)


# -- twice over


class LookaheadState(NamedTuple):
    """fast_state: that of the optimizer; steps_since_sync: int32."""

    fast_state: Any
    steps_since_sync: Any


def _need_period(period: Any) -> None:
    if isinstance(period, (int, float)) and period < 1:
        raise ValueError(f"{called()}: sync_period is {period} {here()}. Give a number of steps of at least 1.")


@pickled_as_call
def lookahead(
    fast_optimizer: GradientTransformation, sync_period: Any, slow_step_size: Any, reset_state: bool = False
) -> GradientTransformation:
    """Fast weights take the steps; slow ones follow a part of the way every few, and the fast ones go on from there.

    Parameters and updates are `LookaheadParams`, pairs of both copies, and gradients are those at `params.fast`.
    Zhang et al. (2019).

    Args:
      fast_optimizer: an optimizer.
      sync_period: every how many steps the slow weights follow.
      slow_step_size: which part of the way.
      reset_state: whether the optimizer begins anew then.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.lookahead(optimizers.sgd(1.0), 2, 0.5)
      >>> params = optimizers.LookaheadParams.init_synced(np.zeros(1))
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(np.ones(1), state, params)
      ...     params = optimizers.apply_updates(params, updates)
      >>> params.fast.tolist(), params.slow.tolist()
      ([-1.0], [-1.0])
    """
    start, update = unwrapped(fast_optimizer, "lookahead(optimizer, sync_period, slow_step_size)")
    _need_period(sync_period)

    def init(params: Params) -> State:
        return LookaheadState(start(params.fast if isinstance(params, LookaheadParams) else params), zero_count())

    def slow_update(grads: Any, state: LookaheadState, params: Params, **extra: Any) -> tuple[Any, State]:
        if not isinstance(params, LookaheadParams):
            raise TypeError(
                f"{called()} needs LookaheadParams for parameters {here()}: params = "
                "LookaheadParams.init_synced(params), and gradients at params.fast."
            )
        updates, fast = update(grads, state.fast_state, params.fast, **extra)
        sync = state.steps_since_sync == sync_period - 1
        ahead = each(lambda p, u, s: p + u - s, [], params.fast, updates, params.slow)
        slow = each(lambda a, d: tnp.where(sync, a * d, 0), [slow_step_size], ahead)
        updates = each(lambda a, u, d: tnp.where(sync, u - (1 - a) * d, u), [slow_step_size], updates, ahead)
        if reset_state:
            fast = _where(sync, start(params.fast), fast)
        steps = tnp.where(sync, 0, state.steps_since_sync + 1)
        return LookaheadParams(fast=updates, slow=slow), LookaheadState(fast, steps)

    return transformation(init, slow_update, is_ours(fast_optimizer))


@pickled_as_call
def normalize() -> GradientTransformation:
    """g / ||g||, with the norm of all the gradients together: the adversary's step of `sam`."""

    def update(grads: Any, params: Params, **extra: Any) -> Any:
        squares = [tnp.sum(tnp.square(abs(g))) for g in jax.tree.leaves(grads)]
        return each(lambda norm, g: g / norm, [tnp.sqrt(sum(squares))], grads) if squares else grads

    return stateless(update)


class SAMState(NamedTuple):
    """steps_since_sync: int32; opt_state, adv_state: those of the optimizers; cache: the parameters gone out from."""

    steps_since_sync: Any
    opt_state: Any
    adv_state: Any
    cache: Any


@pickled_as_call
def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
    batch_axis_name: str | None = None,
) -> GradientTransformation:
    """Sharpness-aware minimization: the gradient is taken where the loss is largest nearby. Foret et al. (2020).

    Without `opaque_mode`, each call of `update` is a step: `sync_period - 1` up by the adversary, and one by the
    optimizer from where these began. With it, each call does all of that, and `update(grads, state, params,
    grad_fn=f)` needs `f(params, i)`, which gives the gradients anywhere.

    Args:
      optimizer: takes the step.
      adv_optimizer: goes up: `chain(normalize(), sgd(rho))` for the source's.
      sync_period: the adversary's steps to each of the optimizer's, and one.
      reset_state: whether the adversary begins anew each time.
      opaque_mode: as said above.
      batch_axis_name: a mapped axis over which `grad_fn`'s gradients are averaged.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import optimizers
      >>> adversary = optimizers.chain(optimizers.normalize(), optimizers.sgd(0.5))
      >>> optimizer = optimizers.sam(optimizers.sgd(0.1), adversary, opaque_mode=True)
      >>> slope = tg.grad(lambda x: (x ** 2).sum())
      >>> x = np.array([1.0])
      >>> updates, _ = optimizer.update(slope(x), optimizer.init(x), x, grad_fn=lambda x, i: slope(x))
      >>> round(float(updates[0]), 4)
      -0.3
    """
    start, update = unwrapped(optimizer, "sam(optimizer, adv_optimizer)")
    adv_start, adv_update = unwrapped(adv_optimizer, "sam(optimizer, adv_optimizer)")
    _need_period(sync_period)

    def init(params: Params) -> State:
        return SAMState(zero_count(), start(params), adv_start(params), None if opaque_mode else params)

    def up(grads: Any, state: State, params: Params) -> tuple[Any, State]:
        updates, state = adv_update(grads, state, params)
        return each(lambda u: -u, [], updates), state

    def one(grads: Any, state: SAMState, params: Params, **extra: Any) -> tuple[Any, State]:
        last = state.steps_since_sync == sync_period - 1
        origin = _where(state.steps_since_sync == 0, need_params(params), state.cache)
        adv_updates, adv_state = up(grads, state.adv_state, params)
        updates, opt_state = update(grads, state.opt_state, origin)
        updates = each(lambda c, p, u: c - p + u, [], origin, params, updates)
        adv_state = _where(last, adv_start(params) if reset_state else state.adv_state, adv_state)
        opt_state = _where(last, opt_state, state.opt_state)
        steps = tnp.where(last, 0, state.steps_since_sync + 1)
        return _where(last, updates, adv_updates), SAMState(steps, opt_state, adv_state, origin)

    def whole(grads: Any, state: SAMState, params: Params, **extra: Any) -> tuple[Any, State]:
        grad_fn = need(extra, "grad_fn", "grads, state, params, grad_fn=f")
        point, adv_state = need_params(params), state.adv_state
        for i in range(sync_period - 1):
            updates, adv_state = up(grads, adv_state, point)
            point = each(lambda p, u: typed_like(p + u, p), [], point, updates)
            grads = grad_fn(point, i)
            if batch_axis_name is not None:
                grads = sum_gradients(grads, batch_axis_name, mean=True)
        updates, opt_state = update(grads, state.opt_state, params)
        return updates, SAMState(zero_count(), opt_state, adv_start(params) if reset_state else adv_state, None)

    return transformation(init, whole if opaque_mode else one, is_ours(optimizer) and is_ours(adv_optimizer))


__all__ = [
    "ApplyIfFiniteState",
    "LookaheadState",
    "MultiStepsState",
    "ReduceLROnPlateauState",
    "SAMState",
    "apply_if_finite",
    "lookahead",
    "multi_steps",
    "normalize",
    "reduce_on_plateau",
    "sam",
    "skip_not_finite",
]
