"""Functions of JAX as ours: what is recorded for them, and what tells one call from another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tracegrad.borrow import borrow

X = np.arange(6, dtype=np.float32).reshape(2, 3)

transpose = borrow(jax.lax.transpose, None, "permutation")
smooth = borrow(jax.nn.silu)


def recorded(f: Any, *args: Any) -> list[str]:
    return [node.op.name for node in tg.trace(f)(*args).nodes]


def test_one_op_is_recorded_as_it_is_and_several_as_one_call() -> None:
    assert recorded(lambda x: transpose(x, (1, 0)), X) == ["transpose"]
    assert recorded(smooth, X) == ["call"]
    both = lambda x: (transpose(x, (1, 0)) * 2.0, smooth(x))  # noqa: E731
    for run in (both, tg.jit(both)):
        first, second = run(X)
        np.testing.assert_array_equal(first, X.T * 2)
        np.testing.assert_allclose(second, jax.nn.silu(X), rtol=1e-6)
    grad = tg.grad(lambda x: (transpose(x, (1, 0)) ** 2).sum() + smooth(x).sum())(X)
    np.testing.assert_allclose(grad, 2 * X + jax.grad(lambda x: jax.nn.silu(x).sum())(X), rtol=1e-6)


def test_operands_keep_their_order() -> None:
    def swapped(x: Any, y: Any, *, z: Any) -> Any:
        return jnp.subtract(z, x) if y is None else jnp.subtract(y, x)

    function = borrow(swapped)
    for run in (lambda x, y: function(x, y, z=y), lambda x, y: function(z=x, y=y, x=x)):
        assert float(tg.jit(run)(np.float32(1), np.float32(5))) == 4.0
    assert float(tg.jit(lambda x, y: function(x, None, z=y))(np.float32(1), np.float32(5))) == 4.0


def test_static_values_of_other_types_are_other_programs() -> None:
    def filled(x: Any, value: Any) -> Any:
        return jnp.full(jnp.shape(x), value)

    function = borrow(filled, None, "value")
    for value in (1, 1.0, True, np.float32(1)):
        out = tg.jit(lambda x, value=value: function(x, value))(X)
        assert out.dtype == jnp.full((), value).dtype, value
    turned = tg.jit(lambda x: (transpose(x, [1, 0]), transpose(x, (1, 0)), transpose(x, permutation=[1, 0])))(X)
    assert [t.shape for t in turned] == [(3, 2)] * 3


def test_numbers_and_arrays_are_operands() -> None:
    power = borrow(jnp.logaddexp)
    f = tg.jit(lambda x: (power(x, 0.5), power(2, x), power(x, X), power([1.0, 2.0, 3.0], x)))
    for ours, theirs in zip(f(X), (0.5, 2, X, np.array([1.0, 2.0, 3.0], np.float32)), strict=True):
        np.testing.assert_allclose(ours, jnp.logaddexp(X, theirs), rtol=1e-6)


def test_a_traced_value_where_one_has_to_be_known() -> None:
    for run in (tg.jit(lambda x, p: transpose(x, p)), tg.jit(lambda x, p: transpose(X, p))):
        with pytest.raises(TypeError, match="test_borrow"):
            run(X, np.array([1, 0]))
