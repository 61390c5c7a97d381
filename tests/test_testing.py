"""The gradient check finds what is wrong, and says where."""

from __future__ import annotations

import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.testing import check_grads

A = np.linspace(0.3, 1.2, 6).reshape(2, 3)


def test_right_derivatives_pass() -> None:
    check_grads(lambda x, y: tnp.sin(x) * y, (A, A[0]), order=3)
    check_grads(lambda p, n: {"a": p["x"] * p["y"], "n": n}, ({"x": A, "y": 2.0}, 3))
    check_grads(lambda z: tnp.exp(z) * z, (A + 1j * A,))
    check_grads(lambda x: tnp.sum(tnp.exp(x)), (np.zeros((20, 20), np.float32),))


def test_functions_may_branch_on_values() -> None:
    check_grads(lambda x: x * x if x > 0 else -x, (2.0,))


@pytest.mark.parametrize("error", [5e-4, -5e-4, 1.0])
def test_a_rule_that_is_slightly_wrong_is_caught(error: float) -> None:
    wrong = tg.Op("wrong", lambda x: jnp.sin(x), (lambda ct, out, x: ct * tnp.cos(x) * (1 + error),))

    def scale(left: Any, right: Any) -> Any:
        return left * wrong(right["w"])

    with pytest.raises(
        AssertionError, match=r"gradient of scale .* argument right\['w'\]\[0, 0\] is .* give"
    ) as caught:
        check_grads(scale, (A, {"w": A}), order=1)
    gradient, difference = (float(n) for n in re.findall(r"(?:is|give) (\S+?),? ", str(caught.value)))
    assert gradient / difference == pytest.approx(1 + error, rel=1e-6)


def test_a_second_derivative_that_is_wrong_is_caught() -> None:
    op = tg.Op("sine", lambda x: jnp.sin(x), (lambda ct, out, x: ct * tg.stop_gradient(tnp.cos(x)),))
    check_grads(op, (A,), order=1)
    with pytest.raises(AssertionError, match="gradient of the gradient"):
        check_grads(op, (A,), order=2)


def test_large_arrays_are_checked_along_random_directions() -> None:
    op = tg.Op("sine", lambda x: jnp.sin(x), (lambda ct, out, x: ct * tnp.cos(x) * 1.01,))
    with pytest.raises(AssertionError, match="random direction"):
        check_grads(op, (np.full((30, 30), 0.5),), order=1)


@pytest.mark.parametrize(
    "f, args, message",
    [
        (tnp.sin, 1.0, "args is f32.* give a tuple"),
        (lambda n: n * 1.0, (3,), "no float or complex value among the arguments"),
        (lambda x: x > 0, (1.0,), "returns no float or complex value"),
    ],
)
def test_nothing_to_check(f: Any, args: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        check_grads(f, args)
    assert "test_testing.py" in str(caught.value)
