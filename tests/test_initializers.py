"""Initializers: the values of `jax.nn.initializers`, and the variances that they promise."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import x64
from tracegrad import initializers

DENSE, CONV = (20, 30), (3, 3, 8, 16)
CASES: list[tuple[str, tuple[Any, ...], tuple[int, ...]]] = [
    ("constant", (0.3,), DENSE),
    ("uniform", (0.3,), DENSE),
    ("normal", (0.3,), DENSE),
    ("truncated_normal", (0.3,), DENSE),
    ("truncated_normal", (0.3, np.float32, -1.0, 0.5), DENSE),
    *[
        (f"{name}_{kind}", (), shape)
        for name in ("glorot", "xavier", "he", "kaiming", "lecun")
        for kind in ("uniform", "normal")
        for shape in ((DENSE, CONV) if name == "he" else (DENSE,))
    ],
    ("glorot_uniform", (0, 1), (20, 30, 2, 2)),
    ("he_normal", ((0, 1), 2), (2, 3, 4)),
    ("lecun_normal", (-2, -1, 0), (5, 20, 30)),
    ("variance_scaling", (0.5, "fan_out", "normal"), DENSE),
    ("variance_scaling", (0.5, "fan_geo_avg", "uniform"), DENSE),
    ("orthogonal", (), (6, 4)),
    ("orthogonal", (2.0,), (4, 6)),
    ("orthogonal", (1.0, 0), (3, 2, 5)),
]


@pytest.mark.parametrize("mode", ["eager", "jit"])
def test_same_values_as_jax(mode: str) -> None:
    key = jax.random.key(4)

    def every(library: Any) -> Any:
        return lambda key: [getattr(library, name)(*args)(key, shape) for name, args, shape in CASES]

    ours = every(initializers) if mode == "eager" else tg.jit(every(initializers))
    for (name, args, _), actual, expected in zip(
        CASES, ours(key), jax.jit(every(jax.nn.initializers))(key), strict=True
    ):
        assert actual.dtype == expected.dtype
        rtol = 1e-5 if name == "orthogonal" else 3e-7
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol, err_msg=f"{name}{args}")


def test_pickled_initializers_give_the_same_values() -> None:
    key = jax.random.key(5)
    for name, args, shape in [*CASES, ("uniform_fan_in", (), DENSE)]:
        init = getattr(initializers, name)(*args)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(init))(key, shape), init(key, shape))
    assert pickle.loads(pickle.dumps(initializers.zeros)) is initializers.zeros


@pytest.mark.parametrize("name", ["zeros", "ones"])
def test_constants(name: str) -> None:
    init = getattr(initializers, name)
    for dtype in (np.float32, jnp.bfloat16, np.int32):
        out = init(None, (2, 3), dtype)
        assert out.dtype == dtype and out.shape == (2, 3) and (np.asarray(out) == (name == "ones")).all()
        assert tg.jit(lambda: init(None, (2, 3), dtype))().dtype == dtype  # noqa: B023


@pytest.mark.parametrize(
    ("init", "shape", "variance", "bound"),
    [
        (initializers.uniform_fan_in(), (50, 400), 1 / 150, 1 / np.sqrt(50)),
        (initializers.uniform_fan_in(), (5, 5, 10, 80), 1 / 750, 1 / np.sqrt(250)),
        (initializers.glorot_uniform(), (100, 200), 2 / 300, np.sqrt(6 / 300)),
        (initializers.glorot_normal(), (100, 200), 2 / 300, np.inf),
        (initializers.he_uniform(), (100, 200), 2 / 100, np.sqrt(6 / 100)),
        (initializers.he_normal(), (3, 3, 20, 100), 2 / 180, np.inf),
        (initializers.lecun_uniform(), (100, 200), 1 / 100, np.sqrt(3 / 100)),
        (initializers.lecun_normal(), (100, 200), 1 / 100, np.inf),
    ],
)
def test_variance(init: Any, shape: Any, variance: float, bound: float) -> None:
    x = np.asarray(init(jax.random.key(0), shape))
    assert abs(x.mean()) < 4 * np.sqrt(variance / x.size)
    assert abs(x.var() / variance - 1) < 0.05
    assert np.abs(x).max() <= bound


@pytest.mark.parametrize(("shape", "axis"), [((8, 5), -1), ((5, 8), -1), ((3, 3, 2, 6), -1), ((6, 3, 2), 0)])
def test_orthogonal(shape: Any, axis: int) -> None:
    q = np.asarray(initializers.orthogonal(2.0, axis)(jax.random.key(0), shape))
    assert q.shape == shape
    q = np.moveaxis(q, axis, -1).reshape(-1, shape[axis])
    gram = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-4)


@pytest.mark.parametrize("name", ["normal", "uniform", "he_normal", "glorot_uniform", "lecun_normal", "orthogonal"])
def test_dtypes(name: str) -> None:
    key = jax.random.key(0)
    assert getattr(initializers, name)()(key, (4, 4), jnp.bfloat16).dtype == jnp.bfloat16
    assert getattr(initializers, name)(dtype=np.float16)(key, (4, 4)).dtype == np.float16
    assert getattr(initializers, name)()(key, (4, 4)).dtype == np.float32
    with x64():
        assert getattr(initializers, name)()(key, (4, 4)).dtype == np.float64


def test_traced_scale() -> None:
    key = jax.random.key(0)
    gradient = tg.grad(lambda s: initializers.normal(s)(key, (3, 2)).sum())(0.5)
    np.testing.assert_allclose(gradient, jax.random.normal(key, (3, 2)).sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: initializers.he_normal()(k, (3,)), ["(3,)", "fan-in", "zeros", "test_initializers.py"]),
        (lambda k: initializers.orthogonal()(k, (3,)), ["orthogonal", "(3,)", "two axes"]),
        (lambda k: initializers.variance_scaling(1.0, "fan", "normal"), ["'fan'", "fan_avg", "test_initializers.py"]),
        (lambda k: initializers.variance_scaling(1.0, "fan_in", "gauss"), ["'gauss'", "truncated_normal"]),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises(ValueError) as info:
        call(jax.random.key(0))
    for word in words:
        assert word in str(info.value)
