"""Ops that move elements, against NumPy and JAX."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import tracegrad as tg
from tests.reference import check_grads, check_value
from tracegrad import ops

X = np.random.default_rng(0).normal(size=(3, 4))
U = np.random.default_rng(1).normal(size=(2, 2))
CONFIG = ((1, 2, 1), (-1, 0, 0))

CASES: list[tuple[Any, Any, Any, tuple[Any, ...]]] = [
    (lambda x: ops.reshape(x, shape=(2, 6)), lambda x: x.reshape(2, 6), None, (X,)),
    (lambda x: ops.transpose(x[None], axes=(2, 0, 1)), lambda x: x[None].transpose(2, 0, 1), None, (X,)),
    (
        lambda x: ops.broadcast_to(x, (2, 3, 4)),
        lambda x: np.broadcast_to(x, (2, 3, 4)),
        lambda x: jnp.broadcast_to(x, (2, 3, 4)),
        (X[:, :1],),
    ),
    (lambda x: ops.reduce_sum(x, axes=(1,)), lambda x: x.sum(1), None, (X,)),
    (lambda x: ops.slice_(x, start=(0, 1), limit=(3, 4), strides=(2, 2)), lambda x: x[0:3:2, 1:4:2], None, (X,)),
    (lambda x: ops.slice_(x, start=(1, 4), limit=(1, 4), strides=(1, 2)), lambda x: x[1:1, 4:4], None, (X,)),
    (lambda x: ops.rev(x, axes=(0, 1)), lambda x: x[::-1, ::-1], None, (X,)),
    (
        lambda x, v: ops.pad(x, v, config=CONFIG),
        lambda x, v: np.asarray(lax.pad(x, v, CONFIG)),
        lambda x, v: lax.pad(x, v, CONFIG),
        (X, np.array(2.5)),
    ),
    (
        lambda x, y: ops.concatenate(x, y, axis=1),
        lambda x, y: np.concatenate([x, y], 1),
        lambda x, y: jnp.concatenate([x, y], 1),
        (X, X[:, :2]),
    ),
    (lambda x: ops.dynamic_slice(x, (1, np.int32(2)), (2, 2)), lambda x: x[1:3, 2:4], None, (X,)),
    (lambda x: ops.dynamic_slice(x, (9, -3), (1, 2)), lambda x: x[2:3, 1:3], None, (X,)),
    (
        lambda x, u: ops.dynamic_update_slice(x, u, (1, 9)),
        lambda x, u: np.asarray(lax.dynamic_update_slice(x, u, (1, 9))),
        lambda x, u: lax.dynamic_update_slice(x, u, (1, 9)),
        (X, U),
    ),
    (
        lambda x, u: ops.dynamic_update_slice_op(x, u, 1, 0, adds=True),
        lambda x, u: np.concatenate([x[:1], np.concatenate([x[1:, :2] + u, x[1:, 2:]], 1)]),
        lambda x, u: x.at[1:, :2].add(u),
        (X, U),
    ),
]


@pytest.mark.parametrize(("fn", "ref", "jax_fn", "args"), CASES)
def test_movement(fn: Any, ref: Any, jax_fn: Any, args: tuple[Any, ...]) -> None:
    check_value(fn, ref, *args)
    check_grads(lambda *xs: fn(*xs) ** 3, *args, jax_fn=lambda *xs: (jax_fn or ref)(*xs) ** 3)


def test_the_start_of_a_window_may_be_traced() -> None:
    x = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    f = tg.jit(lambda x, i, j: ops.dynamic_slice(x, (i, j), (2, 2)))
    np.testing.assert_array_equal(f(x, 1, 2), x[1:3, 2:4])
    g = tg.jit(lambda x, i: ops.dynamic_update_slice(x, x[:1, :2] * 0, (i, i)))
    np.testing.assert_array_equal(g(x, 1)[1, 1:3], [0, 0])


@pytest.mark.parametrize(
    ("fn", "error", "message"),
    [
        (lambda x: ops.reshape(x, shape=(5, 2)), ValueError, r"cannot reshape \(3, 4\) \(12 elements\) to \(5, 2\)"),
        (lambda x: ops.transpose(x, axes=(0, 0)), ValueError, r"axes \(0, 0\) are not a permutation"),
        (lambda x: ops.broadcast_to(x, (3, 5)), ValueError, "cannot broadcast shape"),
        (lambda x: ops.broadcast_to(x, (4,)), ValueError, "it has more axes"),
        (lambda x: ops.pad(x, 0.0, config=((-2, -2, 0), (0, 0, 0))), ValueError, "takes away more than"),
        (lambda x: ops.concatenate(x, x[:2], axis=1), ValueError, "differ along another axis"),
        (lambda x: ops.dynamic_slice(x, (0,), (1, 1)), ValueError, "1 starts and a window of 2 axes"),
        (lambda x: ops.dynamic_slice(x, (0, 0), (4, 1)), ValueError, r"window of shape \(4, 1\) is larger"),
        (lambda x: ops.dynamic_slice(x, (0, 1.0), (1, 1)), TypeError, "must be integer scalars"),
        (lambda x: ops.dynamic_update_slice(x, x.astype(int), (0, 0)), TypeError, "the update has dtype int32"),
    ],
)
def test_bad_arguments(fn: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tg.jit(fn)(X.astype(np.float32))
