"""Random numbers: the bits of `jax.random`, eager and recorded, with gradients where there are any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_grads, x64
from tracegrad import random
from tracegrad.ops import mul, reduce_sum

P = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
LOGITS = np.log(P)[None] + np.zeros((3, 1), np.float32)
X = np.arange(12.0, dtype=np.float32).reshape(3, 4)

# A name and its arguments after the key: the same in both libraries.
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("split", (), {}),
    ("split", (3,), {}),
    ("split", ((2, 2),), {}),
    ("fold_in", (7,), {}),
    ("normal", (), {}),
    ("normal", ((2, 3),), {}),
    ("normal", ((2, 3), jnp.bfloat16), {}),
    ("normal", ((2,), np.complex64), {}),
    ("uniform", (), {}),
    ("uniform", ((2, 3), np.float16), {}),
    ("uniform", ((2, 3),), {"minval": -1.5, "maxval": P[:3]}),
    ("truncated_normal", (-2.0, 2.0, (50,)), {}),
    ("truncated_normal", (P, 1.0), {}),
    ("bernoulli", (), {}),
    ("bernoulli", (0.3, (20,)), {}),
    ("bernoulli", (P,), {}),
    ("bernoulli", (P,), {"mode": "high"}),
    ("categorical", (LOGITS,), {}),
    ("categorical", (LOGITS.T, 0), {"shape": (5, 3)}),
    ("categorical", (LOGITS,), {"shape": (2, 3), "replace": False}),
    ("randint", ((20,), 0, 10), {}),
    ("randint", ((20,), -5, 300, np.int16), {}),
    ("randint", ((20,), 0, 256, np.uint8), {}),
    ("gumbel", ((4,),), {}),
    ("gumbel", ((4,),), {"mode": "high"}),
    ("exponential", ((4,),), {}),
    ("permutation", (6,), {}),
    ("permutation", (X[0],), {}),
    ("permutation", (X,), {}),
    ("permutation", (X, 1), {}),
    ("permutation", (X, 1, True), {}),
    ("choice", (5,), {}),
    ("choice", (5, (2, 2)), {}),
    ("choice", (5, (3,), False), {}),
    ("choice", (4, (3,), True, P), {}),
    ("choice", (4, (3,), False, P), {}),
    ("choice", (X[0], (3,)), {}),
    ("choice", (X, (2,), False), {"axis": 1}),
]


def bits(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def each_mode(fn: Callable[[Any], Any]) -> dict[str, Callable[[Any], Any]]:
    return {
        "eager": fn,
        "undecorated": lambda key: tg.vjp(lambda x: (x, fn(key)), 1.0, has_aux=True)[2],
        "jit": tg.jit(fn),
    }


def every(key: Any, module: Any = random) -> Any:
    return [getattr(module, name)(key, *args, **kwargs) for name, args, kwargs in CASES]


@pytest.mark.parametrize("mode", ["eager", "undecorated", "jit"])
def test_same_bits_as_jax(mode: str) -> None:
    key = jax.random.key(3)
    expected = every(key, jax.random)
    for actual, e, (name, args, _) in zip(each_mode(every)[mode](key), expected, CASES, strict=True):
        assert isinstance(actual, jax.Array) and actual.dtype == e.dtype, name
        # What is compiled in one program may be rounded otherwise than what is not.
        rounding = 4 * float(jnp.finfo(e.dtype).eps) if jnp.issubdtype(e.dtype, jnp.inexact) and mode != "eager" else 0
        np.testing.assert_allclose(bits(actual), bits(e), rounding, err_msg=f"{name}{args}")


@pytest.mark.parametrize("name", ["split", "fold_in", "normal", "bernoulli", "permutation"])
def test_raw_keys(name: str) -> None:
    _, args, kwargs = next(case for case in CASES if case[0] == name)
    raw = jax.random.PRNGKey(3)
    expected = getattr(jax.random, name)(raw, *args, **kwargs)
    for mode, run in each_mode(lambda key: getattr(random, name)(key, *args, **kwargs)).items():
        np.testing.assert_array_equal(np.asarray(run(raw)), np.asarray(expected), mode)


@pytest.mark.parametrize("seed", [0, 5, -1, 2**31, 2**40 + 3, np.int32(-7), np.uint32(2**32 - 1), np.int64(2**40)])
@pytest.mark.parametrize("wide", [False, True], ids=["x32", "x64"])
@pytest.mark.parametrize("make", ["key", "PRNGKey"])
def test_seeds(seed: Any, wide: bool, make: str) -> None:
    with x64(wide):
        expected = bits(getattr(jax.random, make)(seed))
        for mode, run in each_mode(lambda _: getattr(random, make)(seed)).items():
            np.testing.assert_array_equal(bits(run(0.0)), expected, mode)


def test_traced_seed_compiles_once() -> None:
    count = []

    @tg.jit
    def draw(seed: Any) -> Any:
        count.append(seed)
        return random.normal(random.key(seed))

    for seed in (1, 2, 3):
        assert float(draw(seed)) == float(jax.random.normal(jax.random.key(seed)))
    assert len(count) == 1


def test_default_dtype_follows_the_x64_flag() -> None:
    for wide in (True, False):
        with x64(wide):
            for name in ("normal", "uniform", "exponential", "gumbel"):
                assert getattr(random, name)(random.key(0)).dtype == (np.float64 if wide else np.float32)


@pytest.mark.parametrize(
    "draw",
    [
        lambda r, key, a, b: r.uniform(key, (3, 4), a.dtype, a, b),
        lambda r, key, a, b: r.truncated_normal(key, a, b, (3, 4), a.dtype),
        lambda r, key, a, b: a + b * r.normal(key, (3, 4), a.dtype),
    ],
    ids=["uniform", "truncated_normal", "normal"],
)
def test_gradients_of_the_parameters(draw: Any) -> None:
    a, b = np.linspace(-1.0, 0.3, 4), np.float64(1.3)
    key = jax.random.key(1)
    check_grads(lambda a, b: draw(random, key, a, b), a, b, jax_fn=lambda a, b: draw(jax.random, key, a, b), rtol=1e-4)


@pytest.mark.parametrize(("axis", "independent"), [(0, False), (1, False), (1, True), (-1, True)])
def test_gradient_of_a_permutation(axis: int, independent: bool) -> None:
    key = jax.random.key(1)

    def run(r: Any) -> Any:
        return lambda x: r.permutation(key, x * x, axis, independent)

    check_grads(run(random), X.astype(np.float64), jax_fn=run(jax.random))


def test_gradient_of_a_choice() -> None:
    key = jax.random.key(1)
    check_grads(
        lambda x: random.choice(key, x * x, (2, 3), axis=1),
        X.astype(np.float64),
        jax_fn=lambda x: jax.random.choice(key, x * x, (2, 3), axis=1),
    )


def test_a_key_among_differentiated_code_is_an_ordinary_argument() -> None:
    def loss(x: Any, key: Any) -> Any:
        key, other = random.split(key)
        return reduce_sum(mul(x, random.normal(key, (3,)) + random.normal(other, (3,))), axes=(0,))

    key = jax.random.key(5)
    a, b = jax.random.split(key)
    expected = (jax.random.normal(a, (3,)) + jax.random.normal(b, (3,))).sum()
    for run in (
        tg.grad(loss),
        tg.jit(tg.grad(loss)),
        lambda x, key: tg.vmap(lambda k: tg.grad(loss)(x, k))(key[None])[0],
    ):
        np.testing.assert_allclose(run(2.0, key), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda k: random.normal(k, "ab"), (TypeError, ValueError), ["shape"]),
        (lambda k: random.uniform(k, (2,), np.int32), TypeError, ["uniform", "int32", "floating", "test_random.py"]),
        (
            lambda k: random.normal(np.float32(1.0)),
            TypeError,
            ["random_normal", "f32[]", "random.key(seed)", "test_random.py"],
        ),
        (lambda k: random.choice(k, 3, (4,), replace=False), ValueError, ["4 of 3", "replace=True", "test_random.py"]),
        (lambda k: random.uniform(k, (2,), minval=X), ValueError, ["(3, 4)", "(2,)", "test_random.py"]),
        (lambda k: random.permutation(k, X, 2), ValueError, ["f32[3,4]", "axis 2", "test_random.py"]),
        (lambda k: random.choice(k, X, (2,), axis=5), ValueError, ["axis 5"]),
    ],
)
def test_errors(call: Any, kind: Any, words: list[str]) -> None:
    with pytest.raises(kind) as info:
        call(jax.random.key(0))
    for word in words:
        assert word in str(info.value)


def test_a_key_has_no_gradient() -> None:
    with pytest.raises(TypeError, match="key<fry>"):
        tg.grad(lambda k: random.normal(k))(jax.random.key(0))
