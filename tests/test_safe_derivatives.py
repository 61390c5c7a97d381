"""Derivatives at the edge: what each function gives where a formula has a pole, a jump, a tie or nothing to count."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, ops

INF, NAN, PI = math.inf, math.nan, math.pi


class Row(NamedTuple):
    """What is promised: of a function, at a point, the value, the derivative, and the derivative of that.

    Derivatives of a function of several numbers are those of its sum, in the order of the numbers; the second are
    those of the sum of the first.
    """

    text: str
    fn: Callable[[Any], Any]
    at: Any
    value: Any
    first: Any
    second: Any


TABLE = [
    # a branch that is not taken
    Row("where(x > 0, sqrt(x), 0)", lambda x: tnp.where(x > 0, tnp.sqrt(x), 0), 0.0, 0.0, 0.0, 0.0),
    Row("where(x > 0, log(x), 0)", lambda x: tnp.where(x > 0, tnp.log(x), 0), 0.0, 0.0, 0.0, 0.0),
    Row("where(x != 0, x / x, 1)", lambda x: tnp.where(x != 0, x / x, 1), 0.0, 1.0, 0.0, 0.0),
    Row("where(x > 0, x ** 0.3, 0)", lambda x: tnp.where(x > 0, x**0.3, 0), -1.0, 0.0, 0.0, 0.0),
    Row("where(x > 0, x ** x, 0)", lambda x: tnp.where(x > 0, x**x, 0), -0.5, 0.0, 0.0, 0.0),
    Row("where(x < 1, arcsin(x), 0)", lambda x: tnp.where(x < 1, tnp.arcsin(x), 0), 1.0, 0.0, 0.0, 0.0),
    Row("where(x < 1, erf_inv(x), 0)", lambda x: tnp.where(x < 1, ops.erf_inv(x), 0), 1.0, 0.0, 0.0, 0.0),
    # an infinite factor, met by a cotangent of 0: scipy.special.xlogy has the derivative that is wanted
    Row("where(x > 0, x * log(x), 0)", lambda x: tnp.where(x > 0, x * tnp.log(x), 0), 0.0, 0.0, 0.0, 0.0),
    Row("where(x != 0, sin(x) * (1 / x), 1)", lambda x: tnp.where(x != 0, tnp.sin(x) * (1 / x), 1), 0.0, 1.0, 0.0, 0.0),
    Row("where(x > 0, xlogy(x, x), 0)", lambda x: tnp.where(x > 0, ops.xlogy(x, x), 0), 0.0, 0.0, 0.0, 0.0),
    # a pole on the path that is taken: the derivative is infinite, and not hidden
    Row("sqrt(x)", tnp.sqrt, 0.0, 0.0, INF, -INF),
    Row("cbrt(x)", tnp.cbrt, 0.0, 0.0, INF, NAN),
    Row("log(x)", tnp.log, 0.0, -INF, INF, -INF),
    Row("log1p(x)", tnp.log1p, -1.0, -INF, INF, -INF),
    Row("1 / x", lambda x: 1 / x, 0.0, INF, -INF, INF),
    Row("x ** 0.5", lambda x: x**0.5, 0.0, 0.0, INF, -INF),
    Row("arcsin(x)", tnp.arcsin, 1.0, PI / 2, INF, INF),
    Row("arccos(x)", tnp.arccos, 1.0, 0.0, -INF, -INF),
    Row("arccosh(x)", tnp.arccosh, 1.0, 0.0, INF, -INF),
    Row("arctanh(x)", tnp.arctanh, 1.0, INF, INF, INF),
    Row("erf_inv(x)", ops.erf_inv, 1.0, INF, INF, NAN),
    Row("erf_inv(x)", ops.erf_inv, -1.0, -INF, INF, NAN),
    Row("sqrt(x * x)", lambda x: tnp.sqrt(x * x), 0.0, 0.0, NAN, INF),
    # powers
    Row("x ** 0", lambda x: x**0, 0.0, 1.0, 0.0, 0.0),
    Row("power(x, y), in x, for y = 0", lambda x: tnp.power(x, tnp.zeros(())), 0.0, 1.0, 0.0, 0.0),
    Row("x ** 1", lambda x: x**1, 0.0, 0.0, 1.0, 0.0),
    Row("x ** 2", lambda x: x**2, 0.0, 0.0, 0.0, 2.0),
    Row("x ** 1.5", lambda x: x**1.5, 0.0, 0.0, 0.0, INF),
    Row("0 ** y", lambda y: 0.0**y, 0.0, 1.0, 0.0, 0.0),
    Row("0 ** y", lambda y: 0.0**y, 2.0, 0.0, 0.0, 0.0),
    # jumps, kinks and ties
    Row("relu(x)", nn.relu, 0.0, 0.0, 0.0, 0.0),
    Row("abs(x)", tnp.abs, 0.0, 0.0, 0.0, 0.0),
    Row("abs(z), z complex", lambda z: tnp.abs(z), 0j, 0.0, 0j, 0j),
    Row("angle(z), z complex", lambda z: tnp.angle(z), 0j, 0.0, 0j, 0j),
    Row("sign(x)", tnp.sign, 0.0, 0.0, 0.0, 0.0),
    Row("floor(x)", tnp.floor, 1.0, 1.0, 0.0, 0.0),
    Row("maximum(x, 1)", lambda x: tnp.maximum(x, 1), 1.0, 1.0, 0.5, 0.0),
    Row("clip(x, 0, 1)", lambda x: tnp.clip(x, 0, 1), 1.0, 1.0, 0.5, 0.0),
    Row("max(x)", tnp.max, [1.0, 1.0, 0.0], 1.0, [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]),
    Row("cummax(x)", tg.lax.cummax, [1.0, 1.0], [1.0, 1.0], [1.5, 0.5], [0.0, 0.0]),
    Row("max_pool(x, 2)", lambda x: nn.max_pool(x[None, :, None], 2)[0, 0, 0], [1.0, 1.0], 1.0, [0.5, 0.5], [0.0, 0.0]),
    Row("nan_to_num(x)", tnp.nan_to_num, NAN, 0.0, 0.0, 0.0),
    # the origin
    Row("norm(x)", tnp.linalg.norm, [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row("norm(x, 1)", lambda x: tnp.linalg.norm(x, 1), [0.0, 2.0], 2.0, [0.0, 1.0], [0.0, 0.0]),
    Row("norm(x, 3)", lambda x: tnp.linalg.norm(x, 3), [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row("hypot(x, y)", lambda x: tnp.hypot(x[0], x[1]), [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row("arctan2(y, x)", lambda x: tnp.arctan2(x[0], x[1]), [0.0, 0.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row("sinc(x)", tnp.sinc, 0.0, 1.0, 0.0, -(PI**2) / 3),
    Row("std(x)", tnp.std, [1.0, 1.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row("var(x)", tnp.var, [1.0, 1.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    # products with zeros among the factors
    Row("prod(x)", tnp.prod, [0.0, 2.0], 0.0, [2.0, 0.0], [1.0, 1.0]),
    Row("prod(x)", tnp.prod, [0.0, 0.0, 3.0], 0.0, [0.0, 0.0, 0.0], [3.0, 3.0, 0.0]),
    Row("cumprod(x)", tnp.cumprod, [0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [6.0, 4.0, 2.0]),
    # nothing but minus infinity
    Row("logsumexp(x)", tnp.logsumexp, [-INF, -INF], -INF, [0.0, 0.0], [0.0, 0.0]),
    Row("logsumexp(x)", tnp.logsumexp, [-INF, 1.0], 1.0, [0.0, 1.0], [0.0, 0.0]),
    Row("logaddexp(x, y)", lambda x: tnp.logaddexp(x[0], x[1]), [-INF, -INF], -INF, [0.5, 0.5], [0.0, 0.0]),
    Row("cumlogsumexp(x)", tg.lax.cumlogsumexp, [-INF, 1.0], [-INF, 1.0], [0.0, 1.0], [0.0, 0.0]),
    Row("softmax(x)[0]", lambda x: nn.softmax(x)[0], [-INF, 1.0], 0.0, [0.0, 0.0], [0.0, 0.0]),
    Row(
        "softmax(x, where=False)", lambda x: nn.softmax(x, where=np.array([False, False])), [1.0, 2.0],
        [0.0, 0.0], [0.0, 0.0], [0.0, 0.0],
    ),
]  # fmt: skip


def _point(row: Row) -> np.ndarray:
    return np.asarray(row.at, np.complex64 if isinstance(row.at, complex) else np.float32)


POINTS = [_point(row) for row in TABLE]


def values(xs: list[Any]) -> list[Any]:
    return [row.fn(x) for row, x in zip(TABLE, xs, strict=True)]


def first(row: Row) -> Callable[[Any], Any]:
    return tg.grad(lambda x: tnp.sum(row.fn(x)))


def _compare(found: list[Any], which: str) -> None:
    wrong = []
    for row, actual in zip(TABLE, found, strict=True):
        expected = getattr(row, which)
        try:
            np.testing.assert_allclose(np.asarray(actual), expected, rtol=1e-5, atol=1e-6)
        except AssertionError:
            wrong.append(f"{row.text} at {row.at}: {which} is {np.asarray(actual).tolist()}, promised {expected}")
    assert not wrong, "\n".join(wrong)


def test_values() -> None:
    _compare(tg.jit(values)(POINTS), "value")


def test_first_derivatives() -> None:
    _compare(tg.jit(lambda xs: [first(row)(x) for row, x in zip(TABLE, xs, strict=True)])(POINTS), "first")


def test_first_derivatives_undecorated() -> None:
    """All in one recording: the derivative of the sum of all rows that have finite values."""
    use = [row for row in TABLE if np.all(np.isfinite(row.value)) and not isinstance(row.at, complex)]
    grads = tg.grad(lambda xs: sum(tnp.sum(row.fn(x)) for row, x in zip(use, xs, strict=True)))(
        [_point(row) for row in use]
    )
    for row, g in zip(use, grads, strict=True):
        np.testing.assert_allclose(g, row.first, rtol=1e-5, atol=1e-6, err_msg=row.text)


def second(row: Row) -> Callable[[Any], Any]:
    return tg.grad(lambda x: tnp.real(tnp.sum(first(row)(x))))


def test_second_derivatives() -> None:
    _compare(tg.jit(lambda xs: [second(row)(x) for row, x in zip(TABLE, xs, strict=True)])(POINTS), "second")


def test_second_derivatives_undecorated() -> None:
    _compare([second(row)(x) for row, x in zip(TABLE, POINTS, strict=True)], "second")


# -- the same table in the README of the ops


def _number(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_number, value))}]"
    if isinstance(value, complex):
        return _number(value.real) if not value.imag else str(value)
    if value == PI / 2:
        return "π/2"
    if value == -(PI**2) / 3:
        return "-π²/3"
    return {INF: "∞", -INF: "-∞"}.get(value, "NaN" if value != value else f"{value:g}")


def markdown() -> str:
    """The rows of the table as they stand in the README of the ops."""
    lines = ["| function | at | value | derivative | second derivative |", "|---|---|---|---|---|"]
    for row in TABLE:
        numbers = " | ".join(map(_number, (row.at, row.value, row.first, row.second)))
        lines.append(f"| `{row.text}` | {numbers} |")
    return "\n".join(lines)


def test_the_readme_of_the_ops_has_this_table() -> None:
    assert markdown() in (Path(__file__).parent.parent / "tracegrad/ops/README.md").read_text()
