"""What makes a step of a gradient: by the rate, by momentum, by running means of squares, by decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .. import numpy as tnp
from ..pickling import pickled_as_call
from .base import (
    GradientTransformation,
    Mask,
    Params,
    Rate,
    State,
    abs_square,
    debias,
    each,
    increment,
    need_params,
    need_rate,
    parts,
    rate_at,
    real_dtype,
    real_full_like,
    running_mean,
    stateless,
    transformation,
    zero_count,
    zeros_like,
)
from .masking import masked

# -- the rate


@pickled_as_call
def scale(step_size: Any) -> GradientTransformation:
    """Multiplies the gradients by a number."""
    return stateless(lambda grads, params, **extra: each(lambda a, g: g * a, [step_size], grads))


class ScaleByScheduleState(NamedTuple):
    """count: int32, the steps taken."""

    count: Any


@pickled_as_call
def scale_by_schedule(step_size_fn: Callable[[Any], Any]) -> GradientTransformation:
    """Multiplies the gradients by a function of the number of steps taken before."""

    def update(grads: Any, state: ScaleByScheduleState, params: Params, **extra: Any) -> tuple[Any, State]:
        updates = each(lambda a, g: g * a, [step_size_fn(state.count)], grads)
        return updates, ScaleByScheduleState(increment(state.count))

    return transformation(lambda params: ScaleByScheduleState(zero_count()), update)


@pickled_as_call
def scale_by_learning_rate(learning_rate: Rate, *, flip_sign: bool = True) -> GradientTransformation:
    """Multiplies the gradients by minus the learning rate.

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      flip_sign: whether to multiply by minus the rate (descent) or the rate.
    """
    need_rate(learning_rate)
    if callable(learning_rate):
        return scale_by_schedule((lambda count: -learning_rate(count)) if flip_sign else learning_rate)
    return scale(-learning_rate if flip_sign else learning_rate)


# -- momentum


class TraceState(NamedTuple):
    """trace: the momentum, like the parameters."""

    trace: Any


@pickled_as_call
def trace(decay: Any, nesterov: bool = False, accumulator_dtype: Any = None) -> GradientTransformation:
    """Momentum: t = g + decay t; returns t, or g + decay t once more with `nesterov`.

    Polyak (1964); Nesterov (1983), in the form of Sutskever et al. (2013).
    """

    def formula(decay: Any, g: Any, t: Any) -> Any:
        return g + decay * t

    def update(grads: Any, state: TraceState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = each(formula, [decay], grads, state.trace)
        return each(formula, [decay], grads, new) if nesterov else new, TraceState(new)

    return transformation(lambda params: TraceState(zeros_like(params, accumulator_dtype)), update)


class ScaleByLionState(NamedTuple):
    """count: int32, the steps taken; mu: the momentum, like the parameters."""

    count: Any
    mu: Any


@pickled_as_call
def scale_by_lion(b1: Any = 0.9, b2: Any = 0.99, mu_dtype: Any = None) -> GradientTransformation:
    """The sign of b1 mu + (1 - b1) g, for mu the running mean of the gradient, of decay b2. Chen et al. (2023)."""

    def update(grads: Any, state: ScaleByLionState, params: Params, **extra: Any) -> tuple[Any, State]:
        updates = each(tnp.sign, [], running_mean(b1, grads, state.mu))
        return updates, ScaleByLionState(increment(state.count), running_mean(b2, grads, state.mu))

    return transformation(lambda params: ScaleByLionState(zero_count(), zeros_like(params, mu_dtype)), update)


# -- by running means of squares


class ScaleByAdamState(NamedTuple):
    """count: int32, the steps taken; mu, nu: the first and second moments, like the parameters."""

    count: Any
    mu: Any
    nu: Any


def _moments(mu_dtype: Any) -> Callable[[Params], ScaleByAdamState]:
    return lambda params: ScaleByAdamState(zero_count(), zeros_like(params, mu_dtype), real_full_like(params))


def _next_moments(b1: Any, b2: Any, grads: Any, state: ScaleByAdamState) -> ScaleByAdamState:
    return ScaleByAdamState(
        increment(state.count),
        running_mean(b1, grads, state.mu),
        running_mean(b2, grads, state.nu, abs_square),
    )


def first_moment(b1: Any, grads: Any, mu: Any, count: Any, nesterov: bool) -> Any:
    """The unbiased running mean of the gradient, or the one of Dozat (2016), which looks ahead by one more step."""
    if not nesterov:
        return each(lambda c, m: m / c, [debias(b1, count)], mu)
    now, ahead = debias(b1, count), debias(b1, increment(count))
    return each(lambda old, new, m, g: old * m + new * g, [b1 / ahead, (1 - b1) / now], mu, grads)


@pickled_as_call
def scale_by_adam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """m / (sqrt(v) + eps), for m and v the unbiased running means of the gradient and of its square.

    With mu = b1 mu + (1 - b1) g and nu = b2 nu + (1 - b2) g^2, at step t = 1, 2, ...:
    m = mu / (1 - b1^t) and v = nu / (1 - b2^t) + eps_root. Kingma and Ba, "Adam" (2014). With `nesterov`,
    m = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t). Dozat (2016).
    """

    def step(eps: Any, eps_root: Any, c: Any, m: Any, nu: Any) -> Any:
        v = nu / c
        return m / (tnp.sqrt(v if _is_zero(eps_root) else v + eps_root) + eps)

    def update(grads: Any, state: ScaleByAdamState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = _next_moments(b1, b2, grads, state)
        m = first_moment(b1, grads, new.mu, new.count, nesterov)
        return each(step, [eps, eps_root, debias(b2, new.count)], m, new.nu), new

    return transformation(_moments(mu_dtype), update)


def _is_zero(x: Any) -> bool:
    return isinstance(x, (int, float)) and x == 0


@pickled_as_call
def scale_by_radam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    threshold: Any = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam's step times the rectification r, or the mean of the gradient alone while the variance is not known.

    For R = 2 / (1 - b2) - 1 and rho = R - 2 t b2^t / (1 - b2^t), r is the root of
    (rho - 4)(rho - 2) R / ((R - 4)(R - 2) rho), used where rho >= threshold. Liu et al. (2019).
    """

    def update(grads: Any, state: ScaleByAdamState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = _next_moments(b1, b2, grads, state)
        limit = 2 / (1 - b2) - 1
        c = debias(b2, new.count)
        rho = limit - 2 * new.count * (1 - c) / c
        known = rho >= threshold
        # Where it is not known the root is of a negative number, or the division by 0.
        safe = tnp.where(known, rho, 5.0)
        r = tnp.sqrt((safe - 4) * (safe - 2) * limit / ((limit - 4) * (limit - 2) * safe))

        def step(eps: Any, eps_root: Any, c: Any, r: Any, m: Any, nu: Any) -> Any:
            return tnp.where(known, r * m / (tnp.sqrt(nu / c + eps_root) + eps), m)

        m = first_moment(b1, grads, new.mu, new.count, nesterov)
        return each(step, [eps, eps_root, c, r], m, new.nu), new

    return transformation(_moments(None), update)


class ScaleByRssState(NamedTuple):
    """sum_of_squares: like the parameters."""

    sum_of_squares: Any


@pickled_as_call
def scale_by_rss(initial_accumulator_value: Any = 0.1, eps: Any = 1e-7) -> GradientTransformation:
    """g / sqrt(s + eps), for s the sum of the squares of all gradients so far, 0 where s is 0. Duchi et al. (2011)."""

    def step(eps: Any, g: Any, s: Any) -> Any:
        return tnp.where(s > 0, g / tnp.sqrt(s + eps), 0)

    def update(grads: Any, state: ScaleByRssState, params: Params, **extra: Any) -> tuple[Any, State]:
        total = each(lambda g, s: abs_square(g) + s, [], grads, state.sum_of_squares)
        return each(step, [eps], grads, total), ScaleByRssState(total)

    return transformation(lambda params: ScaleByRssState(real_full_like(params, initial_accumulator_value)), update)


class ScaleByRmsState(NamedTuple):
    """count: int32, the steps taken; nu: the running mean of the square, like the parameters."""

    count: Any
    nu: Any


def _over_root(eps_in_sqrt: bool) -> Callable[..., Any]:
    return lambda eps, g, v: g / (tnp.sqrt(v + eps) if eps_in_sqrt else tnp.sqrt(v) + eps)


@pickled_as_call
def scale_by_rms(
    decay: Any = 0.9, eps: Any = 1e-8, initial_scale: Any = 0.0, eps_in_sqrt: bool = True, bias_correction: bool = False
) -> GradientTransformation:
    """g / sqrt(v + eps), for v the running mean of the square of the gradient. Tieleman and Hinton (2012).

    Args:
      decay: of the running mean.
      eps: against division by 0.
      initial_scale: what the mean starts from.
      eps_in_sqrt: whether eps is added to the mean, or to its root.
      bias_correction: whether the mean is divided by 1 - decay^t.
    """

    def update(grads: Any, state: ScaleByRmsState, params: Params, **extra: Any) -> tuple[Any, State]:
        nu = running_mean(decay, grads, state.nu, abs_square)
        new = ScaleByRmsState(increment(state.count), nu)
        v = each(lambda c, nu: nu / c, [debias(decay, new.count)], nu) if bias_correction else nu
        return each(_over_root(eps_in_sqrt), [eps], grads, v), new

    return transformation(lambda params: ScaleByRmsState(zero_count(), real_full_like(params, initial_scale)), update)


@pickled_as_call
def scale_by_stddev(
    decay: Any = 0.9, eps: Any = 1e-8, initial_scale: Any = 0.0, eps_in_sqrt: bool = True, bias_correction: bool = False
) -> GradientTransformation:
    """`scale_by_rms` with the running variance, the mean of the square less the square of the mean. Graves (2013)."""

    def init(params: Params) -> State:
        return ScaleByAdamState(zero_count(), zeros_like(params), real_full_like(params, initial_scale))

    def update(grads: Any, state: ScaleByAdamState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = _next_moments(decay, decay, grads, state)
        c = debias(decay, new.count) if bias_correction else 1.0
        v = each(lambda c, mu, nu: nu / c - abs_square(mu / c), [c], new.mu, new.nu)
        return each(_over_root(eps_in_sqrt), [eps], grads, v), new

    return transformation(init, update)


class FactoredState(NamedTuple):
    """count: int32, the steps taken; v_row, v_col: the means by row and by column of what is factored; v: of the rest.

    What an array does not need of these is one zero.
    """

    count: Any
    v_row: Any
    v_col: Any
    v: Any


def _factored_axes(shape: tuple[int, ...], factored: bool, min_dim_size_to_factor: int) -> tuple[int, int] | None:
    """The second largest axis and the largest, if both are large enough."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape, kind="stable")
    return (int(order[-2]), int(order[-1])) if shape[order[-2]] >= min_dim_size_to_factor else None


@pickled_as_call
def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: Any = 0.8,
    step_offset: Any = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: Any = 1e-30,
) -> GradientTransformation:
    """g / sqrt(v), for v the running mean of g^2 + epsilon, of which large arrays keep the rows' and columns' alone.

    v is then the product of the two over the mean of the rows'. The mean has the decay 1 - t^-decay_rate at step
    t = 1, 2, ..., counted from `step_offset`, in float32. Shazeer and Stern, "Adafactor" (2018).
    """

    def axes_of(p: Any) -> tuple[int, int] | None:
        return _factored_axes(p.shape, factored, min_dim_size_to_factor)

    def init(params: Params) -> State:
        def start(p: Any) -> tuple[Any, Any, Any]:
            axes, dtype = axes_of(p), real_dtype(p)
            none = tnp.zeros((1,), dtype)
            if axes is None:
                return none, none, tnp.zeros(p.shape, dtype)
            second, first = (tnp.zeros(tuple(np.delete(p.shape, axis)), dtype) for axis in axes)
            return first, second, none

        return FactoredState(zero_count(), *parts(3, start, [], params))

    def update(grads: Any, state: FactoredState, params: Params, **extra: Any) -> tuple[Any, State]:
        need_params(params)
        t = tnp.astype(state.count - step_offset + 1, np.float32)

        def step(new: Any, old: Any, g: Any, row: Any, col: Any, v: Any) -> tuple[Any, Any, Any, Any]:
            square, axes = abs_square(g) + epsilon, axes_of(g)
            if axes is None:
                v = new * square + old * v
                return g / tnp.sqrt(v), row, col, v
            second, first = axes
            row = new * square.mean(first) + old * row
            col = new * square.mean(second) + old * col
            mean = row.mean(second - (second > first), keepdims=True)
            over_rows = tnp.expand_dims(tnp.sqrt(row / mean), first)
            return g / over_rows / tnp.expand_dims(tnp.sqrt(col), second), row, col, v

        weight = t ** (-decay_rate)
        updates, *new = parts(4, step, [weight, 1 - weight], grads, state.v_row, state.v_col, state.v)
        return updates, FactoredState(increment(state.count), *new)

    return transformation(init, update)


# -- by the size of the parameters


def _norm(x: Any) -> Any:
    return tnp.sqrt(tnp.sum(abs_square(x)))


@pickled_as_call
def scale_by_trust_ratio(min_norm: Any = 0.0, trust_coefficient: Any = 1.0, eps: Any = 0.0) -> GradientTransformation:
    """Times trust_coefficient ||p|| / (||g|| + eps), for each array; times 1 where a norm is 0.

    Norms below `min_norm` count as that. You, Gitman and Ginsburg, "LARS" (2017).

    Raises:
      ValueError: from `update`, if it is not given the parameters.
    """

    def step(min_norm: Any, coefficient: Any, eps: Any, g: Any, p: Any) -> Any:
        size, step = tnp.maximum(_norm(p), min_norm), tnp.maximum(_norm(g), min_norm)
        zero = (size == 0) | (step == 0)
        return g * tnp.where(zero, 1, coefficient * size / tnp.where(zero, 1, step + eps))

    def update(grads: Any, params: Params, **extra: Any) -> Any:
        return each(step, [min_norm, trust_coefficient, eps], grads, need_params(params))

    return stateless(update)


@pickled_as_call
def scale_by_param_block_rms(min_scale: Any = 1e-3) -> GradientTransformation:
    """Times the root mean square of each array of parameters, at least `min_scale`. Shazeer and Stern (2018)."""

    def step(least: Any, g: Any, p: Any) -> Any:
        return g * tnp.maximum(tnp.sqrt(tnp.mean(abs_square(p))), least)

    return stateless(lambda grads, params, **extra: each(step, [min_scale], grads, need_params(params)))


# -- decay


@pickled_as_call
def add_decayed_weights(weight_decay: Rate = 0.0, mask: Mask = None) -> GradientTransformation:
    """g + weight_decay * p: decoupled weight decay, when it comes after the scaling of the gradient.

    Args:
      weight_decay: a number, or a schedule.
      mask: which parameters to decay: a pytree of booleans like the parameters, or a function from them to one.

    Raises:
      ValueError: from `update`, if it is not given the parameters.
    """
    need_rate(weight_decay, "weight_decay")

    def decayed(grads: Any, params: Params, rate: Any) -> Any:
        return each(lambda rate, g, p: g + rate * p, [rate], grads, need_params(params))

    def update(grads: Any, state: ScaleByScheduleState, params: Params, **extra: Any) -> tuple[Any, State]:
        new = ScaleByScheduleState(increment(state.count))
        return decayed(grads, params, rate_at(weight_decay, state.count)), new

    if callable(weight_decay):
        decay = transformation(lambda params: ScaleByScheduleState(zero_count()), update)
    else:
        decay = stateless(lambda grads, params, **extra: decayed(grads, params, weight_decay))
    return decay if mask is None else masked(decay, mask)


@pickled_as_call
def add_l1_step(learning_rate: Rate, l1: Any, mask: Mask = None) -> GradientTransformation:
    """u - min(a l1, |p|) sign(p): a step of L1 decay, which ends at 0 rather than cross it.

    It comes after the scaling by the learning rate a, which it has to know. Straka, "Deep learning" (2023).

    Args:
      learning_rate: a number, or a schedule: that of the optimizer before.
      l1: the strength.
      mask: which parameters to decay, as in `add_decayed_weights`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> shrink = optimizers.add_l1_step(0.5, 1.0)
      >>> params, none = np.array([3.0, -0.25]), np.zeros(2)
      >>> optimizers.apply_updates(params, shrink.update(none, shrink.init(params), params)[0]).tolist()
      [2.5, 0.0]
    """
    need_rate(learning_rate)

    def step(most: Any, u: Any, p: Any) -> Any:
        return u - tnp.minimum(most, abs(p)) * tnp.sign(p)

    def update(grads: Any, state: ScaleByScheduleState, params: Params, **extra: Any) -> tuple[Any, State]:
        most = rate_at(learning_rate, state.count) * l1
        return each(step, [most], grads, need_params(params)), ScaleByScheduleState(increment(state.count))

    shrink = transformation(lambda params: ScaleByScheduleState(zero_count()), update)
    return shrink if mask is None else masked(shrink, mask)


__all__ = [
    "FactoredState", "ScaleByAdamState", "ScaleByLionState", "ScaleByRmsState", "ScaleByRssState",
    "ScaleByScheduleState", "TraceState", "add_decayed_weights", "add_l1_step", "scale", "scale_by_adam",
    "scale_by_factored_rms", "scale_by_learning_rate", "scale_by_lion", "scale_by_param_block_rms", "scale_by_radam",
    "scale_by_rms", "scale_by_rss", "scale_by_schedule", "scale_by_stddev", "scale_by_trust_ratio", "trace",
]  # fmt: skip
