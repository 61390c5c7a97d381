"""Sorting against NumPy, its derivatives against JAX's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_grads, check_value
from tracegrad import ops

X = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) / 7.0
TIES = np.random.default_rng(1).integers(0, 4, (5, 9)).astype(np.float32)


def _descending(x: Any, axis: int = -1) -> Any:
    return np.flip(np.sort(x, axis), axis)


@pytest.mark.parametrize(
    ("fn", "ref", "jax_fn"),
    [
        (ops.sort, np.sort, jnp.sort),
        (lambda x: ops.sort(x, 0), lambda x: np.sort(x, 0), lambda x: jnp.sort(x, 0)),
        (lambda x: ops.sort(x, None), lambda x: np.sort(x, None), lambda x: jnp.sort(x, None)),
        (
            lambda x: ops.sort(x, 1, descending=True),
            lambda x: _descending(x, 1),
            lambda x: jnp.sort(x, 1, descending=True),
        ),
        (lambda x: ops.top_k(x, 2)[0], lambda x: _descending(x)[..., :2], lambda x: jax.lax.top_k(x, 2)[0]),
        (lambda x: ops.top_k(x, 2, axis=0)[0], lambda x: _descending(x, 0), lambda x: jnp.sort(x, 0, descending=True)),
    ],
)
def test_sorted(fn: Any, ref: Any, jax_fn: Any) -> None:
    check_value(fn, ref, X)
    check_grads(lambda x: fn(x) ** 3, X, jax_fn=lambda x: jax_fn(x) ** 3)


@pytest.mark.parametrize(
    ("fn", "ref"),
    [
        (ops.argsort, lambda x: np.argsort(x, stable=True)),
        (lambda x: ops.argsort(x, 0), lambda x: np.argsort(x, 0, stable=True)),
        (lambda x: ops.argsort(x, None), lambda x: np.argsort(x, None, stable=True)),
        (lambda x: ops.argsort(x, descending=True), lambda x: np.argsort(-x, stable=True)),
        (lambda x: ops.top_k(x, 3)[1], lambda x: np.argsort(-x, stable=True)[:, :3]),
        (lambda x: ops.top_k(x, 3, axis=0)[1], lambda x: np.argsort(-x, 0, stable=True)[:3]),
    ],
)
def test_equal_elements_keep_their_order(fn: Any, ref: Any) -> None:
    check_value(fn, ref, TIES)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: Any) -> None:
    a = np.sort(TIES[0])
    check_value(lambda a, v: ops.searchsorted(a, v, side), lambda a, v: np.searchsorted(a, v, side), a, TIES)


def test_special_values() -> None:
    x = np.array([np.nan, np.inf, 1.0, -np.inf, -0.0, 0.0], np.float32)
    check_value(ops.sort, np.sort, x)
    check_value(lambda x: ops.sort(x, descending=True), _descending, x)
    check_value(ops.sort, np.sort, np.array([True, False, True]))
    check_value(ops.sort, np.sort, np.zeros((2, 0), np.float32))


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: ops.sort(x, 3), "sort: axis 3 of an array of 3 axes at .*test_sort"),
        (lambda x: ops.top_k(x, 5), r"top_k\(.*cannot take the 5 largest .* shape \(2, 3, 4\)"),
        (lambda x: ops.searchsorted(x, 1.0), r"a is f32\[2,3,4\].*sorted vector"),
        (lambda x: ops.searchsorted(x[0, 0], 1.0, "middle"), "side is 'middle'"),
    ],
)
def test_bad_arguments(fn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        tg.jit(fn)(X.astype(np.float32))
