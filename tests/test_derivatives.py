"""Forward mode against `jax.jvp`, `jax.jacfwd` and `jax.linearize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad.passes import optimize

RNG = np.random.default_rng(0)
P = {"w": RNG.normal(size=(2, 3)), "x": RNG.uniform(0.5, 1.5, size=3)}
T = {"w": RNG.normal(size=(2, 3)), "x": RNG.normal(size=3)}
Z = RNG.normal(size=3) + 1j * RNG.normal(size=3)


def tree(np: Any) -> Callable[..., Any]:
    return lambda p: {"a": np.tanh(p["w"] @ p["x"]) * np.sqrt(p["x"][:2] ** 2 + 1), "b": np.sum(p["w"], 0) / p["x"]}


def with_integers(np: Any) -> Callable[..., Any]:
    return lambda p: (np.argmax(p["x"]), p["x"] * 2.0, np.sort(p["x"]), np.ones(2))


def close(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (np.shape(a), a.dtype) == (np.shape(e), e.dtype)
        if a.dtype != jax.dtypes.float0:
            np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("f", [tree, with_integers])
def test_jvp(f: Any) -> None:
    with x64():
        expected = jax.jvp(f(jnp), (P,), (T,))
        close(tg.jvp(f(tnp), (P,), (T,)), expected)
        close(tg.jvp(lambda p: (f(tnp)(p), p["w"]), (P,), (T,), has_aux=True), (*expected, jnp.asarray(P["w"])))
        if f is tree:
            close(tg.jit(lambda p, t: tg.jvp(f(tnp), (p,), (t,)))(P, T), expected)


def test_linearize() -> None:
    with x64():
        value, push = tg.linearize(tree(tnp), P)
        expected, reference = jax.linearize(tree(jnp), P)
        close(value, expected)
        for scale in (1.0, -0.5):
            t = jax.tree.map(lambda x, s=scale: s * x, T)
            close(push(t), reference(t))
        aux = tg.linearize(lambda p: (tree(tnp)(p), 3), P, has_aux=True)[2]
        assert aux == 3
        # Inside a recording it is a function of the tape.
        close(tg.jit(lambda p, t: tg.linearize(tree(tnp), p)[1](t))(P, T), reference(T))


def test_jacfwd() -> None:
    with x64():
        close(tg.jacfwd(tree(tnp))(P), jax.jacfwd(tree(jnp))(P))
        close(tg.jacobian(tree(tnp))(P), jax.jacrev(tree(jnp))(P))
        assert tg.jacrev is tg.jacobian

        def g(np: Any) -> Any:
            return lambda x, y: (np.sin(x) @ y, np.outer(x, y))

        x, y = P["x"], P["x"][::-1].copy()
        for argnums in (1, (0, 1)):
            close(tg.jacfwd(g(tnp), argnums)(x, y), jax.jacfwd(g(jnp), argnums)(x, y))
        out, aux = tg.jacfwd(lambda x: (x * x, "aux"), has_aux=True)(x)
        assert aux == "aux" and out.shape == (3, 3)


def test_complex_and_higher_orders() -> None:
    def f(np: Any) -> Any:
        return lambda z: np.sum(np.exp(z) * np.conj(z) * z)

    def h(np: Any) -> Any:
        return lambda x: np.sum(np.sin(x) ** 3 / x)

    with x64():
        close(tg.jvp(f(tnp), (Z,), (1j * Z,)), jax.jvp(f(jnp), (Z,), (1j * Z,)))
        x, t = P["x"], T["x"]
        close(tg.jacfwd(tg.grad(h(tnp)))(x), jax.hessian(h(jnp))(x))
        close(
            tg.grad(lambda x: tg.jvp(h(tnp), (x,), (t,))[1])(x), jax.grad(lambda x: jax.jvp(h(jnp), (x,), (t,))[1])(x)
        )

        def twice(lib: Any, np: Any) -> Any:
            return lambda x: lib.jvp(lambda x: lib.jvp(h(np), (x,), (t,))[1], (x,), (t,))[1]

        close(tg.jit(twice(tg, tnp))(x), jax.jit(twice(jax, jnp))(x))
        close(tg.vmap(lambda t: tg.jvp(h(tnp), (x,), (t,))[1])(np.eye(3)), jax.grad(h(jnp))(x))


def test_the_pullback_itself_is_dropped() -> None:
    """What remains of the two backward passes is the forward pass of the derivative."""
    tape = optimize(tg.trace(lambda x, t: tg.jvp(lambda x: tnp.sin(x) * x, (x,), (t,)))(P["x"], T["x"]))
    assert [node.op.name for node in tape.nodes] == ["sin", "mul", "cos", "mul", "mul", "mul", "add"]


def test_under_pmap() -> None:
    x, t = RNG.normal(size=(4, 3)).astype(np.float32), RNG.normal(size=(4, 3)).astype(np.float32)

    def f(psum: Any, np: Any) -> Any:
        return lambda x: np.sin(x) * psum(x * x, "i")

    actual = tg.pmap(lambda x, t: tg.jvp(f(tg.psum, tnp), (x,), (t,)), axis_name="i")(x, t)
    expected = jax.vmap(lambda x, t: jax.jvp(f(jax.lax.psum, jnp), (x,), (t,)), axis_name="i")(x, t)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("primals", "tangents", "message"),
    [
        (
            (np.zeros(3),),
            (np.zeros(2),),
            r"the tangent is f\d\d\[2\], the argument is f\d\d\[3\] at .*test_derivatives",
        ),
        ((np.zeros(3),), ({"a": np.zeros(3)},), r"the tangent has structure .*'a'"),
        ((1,), (1,), r"jvp with respect to argument x of <lambda>: it is i32\[\].*only float or complex"),
        (np.zeros(3), np.zeros(3), r"jvp: primals and tangents are tuples.*jvp\(f, \(x,\), \(t,\)\)"),
        ((np.zeros(3),), ("t",), r"a leaf of the tangent is str 't'"),
    ],
)
def test_messages(primals: Any, tangents: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tg.jvp(lambda x: x * 2.0, primals, tangents)
