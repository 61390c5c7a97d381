"""Schedules against their formulas, written out in NumPy. Those that optax has too are in `test_optax.py`."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import optimizers, schedules

T = np.arange(60)
CASES: list[tuple[Callable[[Any], Any], np.ndarray]] = [
    (schedules.constant(0.3), np.full(60, 0.3)),
    (schedules.step_decay(0.5, 0.1, 7), 0.5 * 0.1 ** (T // 7)),
    (schedules.exponential(0.5, 0.03), 0.5 * np.exp(-0.03 * T)),
    (schedules.polynomial(0.5, 0.2), 0.5 / (1 + 0.2 * T)),
    (schedules.inverse(0.5), 0.5 / (T + 1)),
    (schedules.search_then_converge(0.5, 20), 0.5 * 20 / np.maximum(T, 20)),
    (schedules.bottou(0.5, 0.1), 0.5 / (1 + 0.5 * 0.1 * T)),
    (schedules.fan_in_scaled(0.5, 30), np.full(60, 0.5 / np.sqrt(30))),
    (schedules.fan_in_scaled(schedules.inverse(0.5), 30), 0.5 / (T + 1) / np.sqrt(30)),
    (schedules.warmup_stable_decay(0.5, 10, 20, 25, 0.1), np.interp(T, [0, 10, 30, 55], [0, 0.5, 0.5, 0.1])),
    (schedules.warmup_stable_decay(0.5, 0, 20, 25), np.interp(T, [0, 20, 45], [0.5, 0.5, 0])),
    (
        schedules.warmup_cosine(0.5, 10, 50, 0.1),
        np.where(T < 10, 0.05 * T, 0.1 + 0.4 * (1 + np.cos(np.pi * (np.clip(T, 10, 50) - 10) / 40)) / 2),
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), CASES)
def test_formula(schedule: Callable[[Any], Any], expected: np.ndarray) -> None:
    with x64():
        for rate in (schedule, tg.jit(schedule), jax.jit(schedule), pickle.loads(pickle.dumps(schedule))):
            np.testing.assert_allclose(rate(T.astype(np.int32)), expected, rtol=1e-12, atol=1e-15)
        for step in (0, 1, 20, 59):
            np.testing.assert_allclose(schedule(step), expected[step], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in CASES])
def test_a_negative_step(schedule: Callable[[Any], Any]) -> None:
    for step in (-1, np.int32(-1), np.array([3, -1])):
        with pytest.raises(ValueError, match=r"^\w+: a step is -1 at .*test_schedules.py.*Steps count from 0"):
            schedule(step)
    rates = np.asarray(tg.jit(schedule)(np.array([3, -1])))
    assert np.isfinite(rates[0]) and np.isnan(rates[1])
    assert np.isfinite(float(tg.jit(schedule)(np.float32(1e6)))) and np.isfinite(float(schedule(10**6)))


def test_the_first_and_last_step_have_derivatives() -> None:
    """Of a schedule in its own numbers, at the ends of it: for learning them."""
    with x64():
        for make, step, expected in (
            (lambda a: schedules.cosine(a, 10), 10, 0.0),
            (lambda a: schedules.cosine(0.1, 10, alpha=a), 10, 0.1),
            (lambda a: schedules.polynomial_schedule(1.0, a, 0.5, 10), 10, 1.0),
            (lambda a: schedules.exponential_decay(1.0, 10, a), 0, 0.0),
            (lambda a: schedules.exponential_decay(1.0, 10, a), 20, 1.0),
        ):
            slope = tg.grad(lambda a, make=make, step=step: make(a)(step))
            np.testing.assert_allclose(slope(0.5), expected, atol=1e-12)
            assert np.isfinite(tg.grad(slope)(0.5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedules.step_decay(0.1, 0.5, 0), "step_decay: steps is 0"),
        (lambda: schedules.cosine_decay_schedule(0.1, -2), "decay_steps is -2"),
        (lambda: schedules.one_cycle(0, 1.0), "transition_steps is 0"),
        (lambda: schedules.join([schedules.constant(1.0)], [3]), "1 schedules and 1 boundaries"),
        (lambda: schedules.piecewise_constant_schedule(1.0, {3: -0.5}), "scale at step 3 is -0.5"),
        (lambda: schedules.piecewise_interpolate_schedule("cubic", 1.0), "interpolate_type is str 'cubic'.*'linear'"),
    ],
)
def test_errors(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"{words}(.|\n)*" if "'linear'" in words else words) as caught:
        call()
    assert "test_schedules.py" in str(caught.value)


def test_an_optimizer_takes_one() -> None:
    optimizer = optimizers.sgd(schedules.inverse(1.0))
    state = optimizer.init(np.zeros(1))
    for expected in (-1.0, -0.5, -1 / 3):
        updates, state = optimizer.update(np.ones(1), state)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)
