"""Activations against `jax.nn` in value and derivatives, and at their edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_grads, check_value, x64
from tracegrad import nn

X = np.array([[-7.3, -3.2, -1.1, -0.4], [0.3, 1.2, 3.4, 7.9]])
MASK = np.array([[True, True, False, True], [False, False, False, False]])

# A name and its arguments after x: the same in both libraries.
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("sigmoid", (), {}),
    ("tanh", (), {}),
    ("hard_tanh", (), {}),
    ("soft_sign", (), {}),
    ("relu", (), {}),
    ("leaky_relu", (), {}),
    ("leaky_relu", (0.3,), {}),
    ("elu", (), {}),
    ("elu", (0.7,), {}),
    ("selu", (), {}),
    ("silu", (), {}),
    ("swish", (), {}),
    ("gelu", (), {}),
    ("gelu", (False,), {}),
    ("softplus", (), {}),
    ("log_sigmoid", (), {}),
    ("mish", (), {}),
    ("celu", (), {}),
    ("celu", (2.5,), {}),
    ("relu6", (), {}),
    ("hard_sigmoid", (), {}),
    ("hard_silu", (), {}),
    ("hard_swish", (), {}),
    ("glu", (), {}),
    ("glu", (0,), {}),
    ("softmax", (), {}),
    ("softmax", (0,), {}),
    ("softmax", (None,), {}),
    ("softmax", ((0, 1),), {}),
    ("log_softmax", (), {}),
    ("log_softmax", ((0, -1),), {}),
    ("logsumexp", (), {}),
    ("logsumexp", (1,), {"keepdims": True}),
    ("logsumexp", (1, np.array([1.0, 2.0, 0.0, 3.0])), {}),
    ("logsumexp", (), {"where": MASK}),
    ("standardize", (), {"epsilon": 0.1}),
    ("standardize", (0,), {}),
    ("standardize", (-1,), {"mean": 0.3, "variance": 2.0}),
    ("standardize", (), {"where": np.array([True, True, False, True])}),
]


def of(library: Any) -> Any:
    """Every case at once, each of its own array: one compilation, and a gradient that says whose it is."""
    return lambda xs: [getattr(library, name)(x, *a, **k) for (name, a, k), x in zip(CASES, xs, strict=True)]


@pytest.mark.parametrize(("name", "args", "kwargs"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_value(name: str, args: Any, kwargs: Any) -> None:
    with x64():
        ours, theirs = getattr(nn, name)(X, *args, **kwargs), getattr(jax.nn, name)(X, *args, **kwargs)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_values_in_every_mode() -> None:
    check_value(of(nn), of(jax.nn), [X] * len(CASES), dtype=True)


def test_gradients() -> None:
    check_grads(of(nn), [X] * len(CASES), jax_fn=of(jax.nn))


ELEMENTWISE = sorted({name for name, *_ in CASES[:23]})
EXTREMES = np.array([-1e30, -1e4, -100.0, -20.0, -0.0, 0.0, 20.0, 100.0, 1e4, 1e30], np.float32)


def total(xs: Any) -> Any:
    return sum(getattr(nn, name)(x).sum().astype(np.float32) for name, x in zip(ELEMENTWISE, xs, strict=True))


def test_no_nan_at_extremes() -> None:
    def slopes(xs: Any) -> Any:
        return sum(g.sum() for g in tg.grad(total)(xs))

    first = tg.jit(tg.grad(total))([EXTREMES] * len(ELEMENTWISE))
    second = tg.jit(tg.grad(slopes))([EXTREMES[1:-1]] * len(ELEMENTWISE))
    for name, g, h in zip(ELEMENTWISE, first, second, strict=True):
        assert not np.isnan(np.asarray(getattr(nn, name)(EXTREMES))).any(), name
        assert (np.abs(g) < 2).all(), (name, g)
        assert (np.abs(h) < 2).all(), (name, h)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_dtype_is_kept(dtype: Any) -> None:
    x = X.astype(dtype)
    gradients = tg.jit(tg.grad(total))([x] * len(ELEMENTWISE))
    exact = jax.grad(lambda xs: sum(getattr(jax.nn, n)(x).sum() for n, x in zip(ELEMENTWISE, xs, strict=True)))(
        [jnp.asarray(x, np.float32)] * len(ELEMENTWISE)
    )
    for name, g, e in zip(ELEMENTWISE, gradients, exact, strict=True):
        out, reference = getattr(nn, name)(x), getattr(jax.nn, name)(x.astype(np.float32))
        assert out.dtype == g.dtype == dtype, name
        for a, b in ((out, reference), (g, e)):
            np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=0.05, atol=0.03, err_msg=name)


def test_subgradients() -> None:
    assert float(tg.grad(nn.relu)(0.0)) == 0
    assert float(tg.grad(nn.relu6)(0.0)) == 0
    assert float(tg.grad(nn.hard_tanh)(0.5)) == 1
    assert float(tg.grad(nn.hard_tanh)(1.5)) == 0
    assert float(tg.grad(nn.elu)(0.0)) == 1
    assert float(tg.grad(nn.leaky_relu)(0.0)) == 1


def test_parameters_have_gradients() -> None:
    slope = np.array([0.1, 0.2, 0.3, 0.4])
    check_grads(nn.prelu, X, slope, jax_fn=jax.nn.leaky_relu)
    check_grads(nn.elu, X, 0.7, jax_fn=jax.nn.elu)
    check_grads(nn.celu, X, 0.7, jax_fn=jax.nn.celu)
    check_grads(nn.swish, X, 0.7, jax_fn=lambda x, b: x * jax.nn.sigmoid(b * x))


def test_masked_softmax_rows() -> None:
    x = np.array([[1.0, 2.0, np.inf, 3.0], [np.nan, -np.inf, 1.0, 2.0]], np.float32)
    p = nn.softmax(x, where=MASK)
    np.testing.assert_allclose(p[0], [*jax.nn.softmax(x[0, [0, 1]]) * (1 - p[0, 3]), 0, p[0, 3]], rtol=1e-6)
    np.testing.assert_array_equal(p[1], 0)
    for f in (nn.softmax, lambda x, where: np.where(where, nn.log_softmax(x, where=where), 0)):
        grad = tg.grad(lambda x: (f(x, where=MASK) * X).sum())(x)  # noqa: B023
        assert np.isfinite(grad).all()
        np.testing.assert_array_equal(np.asarray(grad)[~MASK], 0)
    assert np.isneginf(np.asarray(nn.log_softmax(x, where=MASK))[~MASK]).all()


def test_softmax_is_stable() -> None:
    x = np.array([1e4, 0.0, -1e4], np.float32)
    np.testing.assert_array_equal(nn.softmax(x), [1, 0, 0])
    np.testing.assert_array_equal(nn.log_softmax(x), [0, -1e4, -2e4])
    assert float(nn.logsumexp(x)) == 1e4


def test_logsumexp_of_nothing() -> None:
    x = np.full(3, -np.inf, np.float32)
    value, grad = tg.value_and_grad(nn.logsumexp)(x)
    assert np.isneginf(value) and (grad == 0).all()


def test_logsumexp_sign() -> None:
    a, b = np.array([1.0, 2.0]), np.array([1.0, -2.0])
    for keepdims in (False, True):
        ours = nn.logsumexp(a, b=b, return_sign=True, keepdims=keepdims)
        for mine, theirs in zip(ours, jax.nn.logsumexp(a, b=b, return_sign=True, keepdims=keepdims), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    labels = np.array([[0, 2], [3, -1]])
    check_value(lambda x: nn.one_hot(x, 3, axis=axis), lambda x: jax.nn.one_hot(x, 3, axis=axis), labels, dtype=True)
    assert nn.one_hot(labels, 3, dtype=jnp.bfloat16).dtype == jnp.bfloat16


def test_integers_become_floats() -> None:
    x = np.arange(4)
    for name in ("softmax", "log_softmax", "logsumexp", "standardize", "sigmoid", "gelu", "silu"):
        np.testing.assert_allclose(
            getattr(nn, name)(x), getattr(jax.nn, name)(x.astype(np.float32)), rtol=1e-6, atol=1e-6
        )


def test_standardize_about_a_given_mean() -> None:
    expected = (X - 0.3) / np.sqrt(((X - 0.3) ** 2).mean(-1, keepdims=True) + 1e-5)
    check_value(lambda x: nn.standardize(x, mean=0.3), lambda x: expected, X)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"glu: shape \(2, 3\) has size 3 along axis 1 .*test_activations.py"):
        nn.glu(np.ones((2, 3)))
    with pytest.raises(ValueError, match="axis 5"):
        nn.softmax(np.ones(3), 5)


# -- dropout


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_dropout(mode: str) -> None:
    run: Any = tg.jit if mode == "jit" else lambda f: f
    key, x = jax.random.key(0), np.ones((1000,), np.float32)
    out = np.asarray(run(lambda x: nn.dropout(key, x, 0.25))(x))
    assert set(np.unique(out)) == {0, np.float32(1 / 0.75)}
    assert abs(out.mean() - 1) < 0.1
    grad = run(tg.grad(lambda x: nn.dropout(key, x, 0.25).sum()))(x)
    np.testing.assert_array_equal(grad, out)
    assert nn.dropout(key, x.astype(jnp.bfloat16), 0.25).dtype == jnp.bfloat16


def test_dropout_at_its_ends() -> None:
    key, x = jax.random.key(0), np.ones(10, np.float32)
    assert nn.dropout(key, x, 0.5, deterministic=True) is x
    assert nn.dropout(key, x, 0) is x
    assert (np.asarray(nn.dropout(key, x, 1.0)) == 0).all()
    assert (np.asarray(tg.grad(lambda x: nn.dropout(key, x, 1.0).sum())(x)) == 0).all()
    with pytest.raises(ValueError, match=r"rate=1.5 .*test_activations.py"):
        nn.dropout(key, x, 1.5)
