"""`tracegrad.scipy.interpolate` against SciPy in value, and against `jax.grad` and differences in derivatives."""

from __future__ import annotations

from typing import Any

import jax.scipy.interpolate as jinterpolate
import numpy as np
import pytest
import scipy.interpolate

import tracegrad as tg
from tests.reference import check_grads, check_message, check_value
from tracegrad.scipy.interpolate import RegularGridInterpolator

RNG = np.random.default_rng(2)
GRID = (np.array([0.0, 1.0, 3.0]), np.array([1.0, 2.0, 4.0, 5.0]))
VALUES = RNG.normal(size=(3, 4, 2))
AT = np.array([[0.5, 1.5], [2.0, 4.5], [2.9, 4.7], [-1.0, 2.0], [1.0, 6.0]])


@pytest.mark.parametrize("fill", [np.nan, None, 7.0])
@pytest.mark.parametrize("method", ["linear", "nearest"])
def test_values(method: str, fill: Any) -> None:
    def of(kind: Any) -> Any:
        return lambda at: kind(GRID, VALUES, method, bounds_error=False, fill_value=fill)(at)

    check_value(of(RegularGridInterpolator), of(scipy.interpolate.RegularGridInterpolator), AT)


def test_derivatives() -> None:
    def of(kind: Any) -> Any:
        return lambda x, y, values, at: kind((x, y), values)(at)

    check_grads(of(RegularGridInterpolator), *GRID, VALUES, AT[:3], jax_fn=of(jinterpolate.RegularGridInterpolator))


def test_it_is_a_pytree() -> None:
    f = RegularGridInterpolator(GRID, VALUES)
    at = (0.5, np.array([1.5, 2.5]))
    expected = scipy.interpolate.RegularGridInterpolator(GRID, VALUES)(at)
    np.testing.assert_allclose(tg.jit(lambda f, at: f(at))(f, at), expected, rtol=1e-5)
    slopes = tg.grad(lambda f: f(at).sum())(f)
    assert isinstance(slopes, RegularGridInterpolator) and slopes.method == "linear"
    assert slopes.values.sum() == pytest.approx(4.0)  # the weights of each of four numbers add up to 1
    line = RegularGridInterpolator(([0.0, 2.0],), [1.0, 5.0])
    assert float(line(0.5)[0]) == 2.0 and line(([0.5, 1.0],)).tolist() == [2.0, 3.0]


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: RegularGridInterpolator(GRID, VALUES, "cubic"), ValueError, "method='cubic'.*Use 'linear'"),
    (lambda: RegularGridInterpolator(GRID, VALUES)(AT, "cubic"), ValueError, "method='cubic'"),
    (lambda: RegularGridInterpolator(GRID, VALUES[0]), ValueError, r"points f32\[3\], f32\[4\] for values f32\[4,2\]"),
    (lambda: RegularGridInterpolator(GRID, VALUES, bounds_error=True), NotImplementedError, "bounds_error=True"),
    (lambda: RegularGridInterpolator(GRID, VALUES)(AT[:, :1]), ValueError, r"points f32\[5,1\] on a grid of 2 axes"),
    (lambda: RegularGridInterpolator(GRID, "values"), TypeError, "str 'values'"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], pattern: str) -> None:
    check_message(call, kind, f"^RegularGridInterpolator: .*{pattern}")
