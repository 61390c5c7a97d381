"""Schedules: functions from the number of steps taken to a rate, for wherever one is taken. Use ops, and names.

Each function here returns a schedule, `schedule(step)`. A step is a number or an array, traced or not; the first is 0.
A negative one is a `ValueError`, and NaN under `@jit`, where its value is not known. Schedules can be pickled, and
differentiated. `join_schedules`, `linear_schedule` and the like are optax's, with its names and arguments.

Example:
  >>> from tracegrad import optimizers, schedules
  >>> rate = schedules.warmup_cosine(peak_value=0.1, warmup_steps=10, decay_steps=100)
  >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 55, 100)]
  [0.0, 0.05, 0.1, 0.05, 0.0]
  >>> optimizer = optimizers.adam(rate)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

import jax
import numpy as np

from . import numpy as tnp
from .errors import called, describe, here
from .names import listed
from .pickling import pickled_as_call
from .tape import Var

Schedule = Callable[[Any], Any]

P = ParamSpec("P")


def _schedule(formula: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """What makes schedules by this formula: they know a negative step, and can be pickled."""

    @functools.wraps(formula)
    def make(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        rate = formula(*args, **kwargs)

        def schedule(step: Any) -> Any:
            # As a float of full width: a quotient of integers is of float32 in double precision too.
            count = tnp.astype(step, jax.dtypes.canonicalize_dtype(float))
            if isinstance(step, Var | jax.core.Tracer):
                return tnp.where(count < 0, np.nan, rate(count))
            if np.any(np.asarray(step) < 0):
                raise ValueError(
                    f"{called()}: a step is {np.min(step)} {here()}. Steps count from 0: pass the number of steps "
                    "taken before."
                )
            return rate(count)

        return schedule

    return pickled_as_call(make)


def _positive(**values: Any) -> None:
    """Raises for a number of steps, or a divisor, that is not above 0, where it is known."""
    for name, value in values.items():
        if isinstance(value, (int, float)) and not value > 0:
            raise ValueError(f"{called()}: {name} is {value} {here()}. Give a number above 0.")


def _at(rate: Any, step: Any) -> Any:
    return rate(step) if callable(rate) else rate


# -- of the textbooks


@_schedule
def constant(value: Any) -> Schedule:
    """The same at each step.

    Example:
      >>> from tracegrad import schedules
      >>> schedules.constant(0.5)(7)
      0.5
    """
    return lambda step: value + tnp.zeros(np.shape(step)) if np.shape(step) else value


@_schedule
def step_decay(init_value: Any, factor: Any, steps: int) -> Schedule:
    """init_value * factor^floor(step / steps): times `factor` after every so many steps. CS231n (2016).

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.step_decay(1.0, 0.5, 10)
      >>> [float(rate(step)) for step in (0, 9, 10, 20)]
      [1.0, 1.0, 0.5, 0.25]
    """
    _positive(steps=steps)
    return lambda step: init_value * factor ** tnp.floor(step / steps)


@_schedule
def exponential(init_value: Any, rate: Any) -> Schedule:
    """init_value * e^(-rate * step). CS231n (2016).

    Example:
      >>> from tracegrad import schedules
      >>> round(float(schedules.exponential(1.0, 0.1)(10)), 4)
      0.3679
    """
    return lambda step: init_value * tnp.exp(-rate * step)


@_schedule
def polynomial(init_value: Any, rate: Any) -> Schedule:
    """init_value / (1 + rate * step). For a polynomial in the step, see `polynomial_schedule`.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.polynomial(1.0, 0.5)(2))
      0.5
    """
    return lambda step: init_value / (1 + rate * step)


@_schedule
def inverse(init_value: Any) -> Schedule:
    """init_value / t at t = step + 1, so that it is `init_value` at the first step. Goldberg (2015).

    Example:
      >>> from tracegrad import schedules
      >>> [float(schedules.inverse(1.0)(step)) for step in (0, 1, 3)]
      [1.0, 0.5, 0.25]
    """
    return lambda step: init_value / (step + 1)


@_schedule
def search_then_converge(init_value: Any, steps: Any) -> Schedule:
    """init_value * T / max(step, T), for T = `steps`: constant first, and then falling as 1 / step. Bengio (2012).

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.search_then_converge(1.0, 10)
      >>> [float(rate(step)) for step in (0, 10, 20)]
      [1.0, 1.0, 0.5]
    """
    _positive(steps=steps)
    return lambda step: init_value * steps / tnp.maximum(step, steps)


@_schedule
def bottou(init_value: Any, decay: Any) -> Schedule:
    """init_value / (1 + init_value * decay * step). Bottou, "Stochastic gradient descent tricks" (2012).

    Args:
      init_value: the rate of the first step.
      decay: the strength of the L2 regularization, which is what this is the right rate for.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.bottou(0.5, 0.1)(20))
      0.25
    """
    return lambda step: init_value / (1 + init_value * decay * step)


@_schedule
def fan_in_scaled(init_value: Any, fan_in: int) -> Schedule:
    """init_value / sqrt(fan_in): the rate of one layer, by the number of inputs to each of its units.

    Args:
      init_value: a number or a schedule.
      fan_in: the number of inputs. For a rate for each layer see `tracegrad.optimizers.multi_transform`.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.fan_in_scaled(1.0, 16)(0))
      0.25
    """
    _positive(fan_in=fan_in)
    return lambda step: _at(init_value, step) / tnp.sqrt(fan_in)


# -- optax's


@_schedule
def polynomial_schedule(
    init_value: Any, end_value: Any, power: Any, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """(init_value - end_value) (1 - s)^power + end_value, for s the part of the transition that is done.

    Args:
      init_value, end_value: the rate before and after.
      power: 1 for a line.
      transition_steps: how long it takes; 0 for `init_value` throughout.
      transition_begin: the step at which it begins.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.polynomial_schedule(1.0, 0.0, 2, 10)(5))
      0.25
    """
    if transition_steps <= 0:
        return lambda step: _at(constant(init_value), step)

    def rate(step: Any) -> Any:
        # Clipped after the division: XLA multiplies by the inverse instead, which may give more than 1.
        done = tnp.clip((step - max(transition_begin, 0)) / transition_steps, 0, 1)
        return (init_value - end_value) * (1 - done) ** power + end_value

    return rate


@_schedule
def linear_schedule(init_value: Any, end_value: Any, transition_steps: int, transition_begin: int = 0) -> Schedule:
    """From `init_value` to `end_value` in a line.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.linear_schedule(1.0, 0.0, 10)(5))
      0.5
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


linear = linear_schedule


@_schedule
def exponential_decay(
    init_value: Any,
    transition_steps: int,
    decay_rate: Any,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Any = None,
) -> Schedule:
    """init_value * decay_rate^((step - transition_begin) / transition_steps), and `init_value` before.

    Args:
      init_value: the rate of the first step.
      transition_steps: after how many steps it is times `decay_rate`; 0 for never.
      decay_rate: the factor; 0 for `init_value` throughout.
      transition_begin: the step at which it begins.
      staircase: whether the exponent is rounded down to an integer.
      end_value: what the rate does not pass.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.exponential_decay(1.0, 10, 0.5)(20))
      0.25
    """
    if transition_steps <= 0 or (isinstance(decay_rate, (int, float)) and decay_rate == 0):
        return constant(init_value)

    def rate(step: Any) -> Any:
        done = tnp.maximum(step - max(transition_begin, 0), 0) / transition_steps
        value = init_value * decay_rate ** (tnp.floor(done) if staircase else done)
        if end_value is None:
            return value
        return tnp.where(decay_rate < 1, tnp.maximum(value, end_value), tnp.minimum(value, end_value))

    return rate


@_schedule
def cosine_decay_schedule(init_value: Any, decay_steps: int, alpha: Any = 0.0, exponent: Any = 1.0) -> Schedule:
    """init_value ((1 - alpha) c^exponent + alpha), for c = (1 + cos(pi step / decay_steps)) / 2, to decay_steps.

    Loshchilov and Hutter, "SGDR" (2016).

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.cosine_decay_schedule(1.0, 10)
      >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 20)]
      [1.0, 0.5, 0.0, 0.0]
    """
    _positive(decay_steps=decay_steps)

    def rate(step: Any) -> Any:
        part = 0.5 * (1 + tnp.cos(np.pi * (tnp.minimum(step, decay_steps) / decay_steps)))
        # A power of 1 has a derivative at 0 where a power of 1.0 has none.
        part = part if isinstance(exponent, (int, float)) and exponent == 1 else part**exponent
        return init_value * ((1 - alpha) * part + alpha)

    return rate


cosine = cosine_decay_schedule


@_schedule
def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after the other, each counting from the boundary at which it begins.

    Args:
      schedules: functions of a step.
      boundaries: the step at which the second begins, and each that follows.

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.join([schedules.linear(0.0, 1.0, 4), schedules.constant(1.0)], [4])
      >>> [float(rate(step)) for step in (0, 2, 4, 9)]
      [0.0, 0.5, 1.0, 1.0]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"{called()}: {len(schedules)} schedules and {len(boundaries)} boundaries {here()}. Give one boundary "
            "fewer than schedules: where the second begins, and each after it."
        )

    def rate(step: Any) -> Any:
        value = schedules[0](step)
        for begin, schedule in zip(boundaries, schedules[1:], strict=True):
            value = tnp.where(step < begin, value, schedule(tnp.maximum(step - begin, 0)))
        return value

    return rate


join = join_schedules


@_schedule
def warmup_cosine_decay_schedule(
    init_value: Any, peak_value: Any, warmup_steps: int, decay_steps: int, end_value: Any = 0.0, exponent: Any = 1.0
) -> Schedule:
    """From `init_value` up to `peak_value` in a line, and down to `end_value` by a cosine.

    Args:
      warmup_steps: how long it goes up.
      decay_steps: how long it takes in all, the warm-up included.
      exponent: as in `cosine_decay_schedule`.

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100)(5))
      0.5
    """
    alpha = 0.0 if isinstance(peak_value, (int, float)) and peak_value == 0 else end_value / peak_value
    down = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return join_schedules([linear_schedule(init_value, peak_value, warmup_steps), down], [warmup_steps])


@_schedule
def warmup_cosine(peak_value: Any, warmup_steps: int, decay_steps: int, end_value: Any = 0.0) -> Schedule:
    """`warmup_cosine_decay_schedule` from 0."""
    return warmup_cosine_decay_schedule(0.0, peak_value, warmup_steps, decay_steps, end_value)


@_schedule
def warmup_constant_schedule(init_value: Any, peak_value: Any, warmup_steps: int) -> Schedule:
    """From `init_value` to `peak_value` in a line, and `peak_value` from then on."""
    return linear_schedule(init_value, peak_value, warmup_steps)


@_schedule
def warmup_exponential_decay_schedule(
    init_value: Any,
    peak_value: Any,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: Any,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: Any = None,
) -> Schedule:
    """From `init_value` up to `peak_value` in a line, and then `exponential_decay`, counted from there."""
    down = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return join_schedules([linear_schedule(init_value, peak_value, warmup_steps), down], [warmup_steps])


@_schedule
def warmup_stable_decay(
    peak_value: Any, warmup_steps: int, stable_steps: int, decay_steps: int, end_value: Any = 0.0
) -> Schedule:
    """Up from 0 to `peak_value` in a line, there for `stable_steps`, and down to `end_value` in a line.

    Hu et al., "MiniCPM" (2024), with a line for the decay as in Hägele et al. (2024).

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.warmup_stable_decay(1.0, 10, 80, 10)
      >>> [float(rate(step)) for step in (0, 5, 10, 90, 95, 100)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    up, down = linear_schedule(0.0, peak_value, warmup_steps), linear_schedule(peak_value, end_value, decay_steps)
    return join_schedules([up, constant(peak_value), down], [warmup_steps, warmup_steps + stable_steps])


@_schedule
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Schedule:
    """`warmup_cosine_decay_schedule`s one after the other: restarts. Loshchilov and Hutter, "SGDR" (2016).

    Args:
      cosine_kwargs: the arguments of each.
    """
    rates = [warmup_cosine_decay_schedule(**kwargs) for kwargs in cosine_kwargs]
    return join_schedules(rates, np.cumsum([kwargs["decay_steps"] for kwargs in cosine_kwargs]).tolist()[:-1])


def _scales(boundaries_and_scales: Mapping[int, Any] | None) -> list[tuple[int, Any]]:
    pairs = sorted((boundaries_and_scales or {}).items())
    for boundary, scale in pairs:
        if isinstance(scale, (int, float)) and not scale >= 0:
            raise ValueError(
                f"{called()}: the scale at step {boundary} is {scale} {here()}. Give numbers of at least 0, to "
                "multiply the rate by."
            )
    return pairs


@_schedule
def piecewise_constant_schedule(init_value: Any, boundaries_and_scales: Mapping[int, Any] | None = None) -> Schedule:
    """`init_value`, times the scale of each boundary from that step on.

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.piecewise_constant_schedule(1.0, {10: 0.5, 20: 0.5})
      >>> [float(rate(step)) for step in (9, 10, 20)]
      [1.0, 0.5, 0.25]
    """
    pairs = _scales(boundaries_and_scales)

    def rate(step: Any) -> Any:
        value = _at(constant(init_value), step)
        for boundary, scale in pairs:
            value = tnp.where(step < boundary, value, value * scale)
        return value

    return rate


@_schedule
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Any, boundaries_and_scales: Mapping[int, Any] | None = None
) -> Schedule:
    """`init_value` at step 0, times the scale of each boundary at that step, and in between by a line or a cosine.

    Args:
      interpolate_type: "linear" or "cosine".

    Example:
      >>> from tracegrad import schedules
      >>> float(schedules.piecewise_interpolate_schedule("linear", 1.0, {10: 3.0})(5))
      2.0
    """
    if interpolate_type not in ("linear", "cosine"):
        raise ValueError(
            f"{called()}: interpolate_type is {describe(interpolate_type)} {here()}. Give 'linear' or 'cosine'."
        )
    pairs = _scales(boundaries_and_scales)

    def rate(step: Any) -> Any:
        value = after = _at(constant(init_value), step)
        begin = 0
        for boundary, scale in pairs:
            done = tnp.clip((step - begin) / max(boundary - begin, 1), 0, 1)
            before, after = after, after * scale
            part = done if interpolate_type == "linear" else (1 - tnp.cos(np.pi * done)) / 2
            value = tnp.where(step < begin, value, tnp.where(step < boundary, before + (after - before) * part, after))
            begin = boundary
        return value

    return rate


@_schedule
def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: Any,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Up to `peak_value`, down to where it began, and further down, in three lines. Smith and Topin (2017).

    Args:
      transition_steps: how many steps there are in all.
      pct_start, pct_final: the parts of them at which the first and the second line end.
      div_factor: the peak over the first rate.
      final_div_factor: the first rate over the last.
    """
    _positive(transition_steps=transition_steps)
    scales = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1 / div_factor,
        transition_steps: 1 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, scales)


@_schedule
def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: Any,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Up to `peak_value` and down to almost 0, by cosines. Smith and Topin (2017).

    Args:
      transition_steps: how many steps there are in all.
      pct_start: the part of them that goes up.
      div_factor: the peak over the first rate.
      final_div_factor: the first rate over the last.

    Example:
      >>> from tracegrad import schedules
      >>> rate = schedules.one_cycle(100, 1.0)
      >>> [round(float(rate(step)), 4) for step in (0, 30, 65)]
      [0.04, 1.0, 0.5]
    """
    _positive(transition_steps=transition_steps)
    scales = {int(pct_start * transition_steps): div_factor, int(transition_steps): 1 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, scales)


one_cycle = cosine_onecycle_schedule
constant_schedule = constant


__all__ = [
    "bottou", "constant", "constant_schedule", "cosine", "cosine_decay_schedule", "cosine_onecycle_schedule",
    "exponential", "exponential_decay", "fan_in_scaled", "inverse", "join", "join_schedules", "linear",
    "linear_onecycle_schedule", "linear_schedule", "one_cycle", "piecewise_constant_schedule",
    "piecewise_interpolate_schedule", "polynomial", "polynomial_schedule", "search_then_converge", "sgdr_schedule",
    "step_decay", "warmup_constant_schedule", "warmup_cosine", "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule", "warmup_stable_decay",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
