"""Transforms, alone and nested in any order, against JAX's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.passes import optimize

X = np.linspace(0.2, 1.3, 3, dtype=np.float32)
M = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)


def close(actual: Any, expected: Any, rtol: float = 2e-5) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.shape(a) == np.shape(e)
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol)


def f(x: Any, n: Any = tnp) -> Any:
    return n.sum(n.sin(x) * x * x)


# -- nesting

NESTED: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "grad": lambda t, f: t.grad(f),
    "value": lambda t, f: lambda x: t.value_and_grad(f)(x)[0],
    "jit": lambda t, f: t.jit(f),
    "vmap": lambda t, f: lambda x: (t.vmap(f)(x[None] * 2.0)).sum(),
    "hessian": lambda t, f: lambda x: (t.hessian(f)(x)).sum(),
    "jacobian": lambda t, f: lambda x: ((t.jacobian if t is tg else t.jacrev)(lambda x: x * f(x))(x)).sum(),
    "hvp": lambda t, f: lambda x: (t.hvp(f, (x,), (x,)) if t is tg else t.jvp(t.grad(f), (x,), (x,))[1]).sum(),
    "jacfwd": lambda t, f: lambda x: t.jacfwd(lambda x: x * f(x))(x).sum(),
    "jvp": lambda t, f: lambda x: t.jvp(lambda x: f(x) * x, (x,), (x,))[1].sum(),
    "checkpoint": lambda t, f: lambda x: t.checkpoint(f)(x) * x[0],
    "scan": lambda t, f: (
        lambda x: (t if t is tg else t.lax).scan(lambda c, _: (c * f(x) * 0.5, None), x, None, 2)[0].sum()
    ),
    "cond": lambda t, f: lambda x: (t if t is tg else t.lax).cond(x[0] > 0, f, lambda x: x[0], x),
}


BODIES = {"jacfwd", "jvp", "checkpoint", "scan", "cond"}
PAIRS = [
    (outer, inner)
    for outer, inner in itertools.product(NESTED, NESTED)
    # Those that run bodies with each other once, and with what differentiates and batches bodies.
    if not {outer, inner} & BODIES or outer == inner or {outer, inner} & {"grad", "vmap", "jit"}
]


@pytest.mark.parametrize("outer, inner", PAIRS)
def test_any_transform_of_any_transform(outer: str, inner: str) -> None:
    def nested(t: Any, n: Any) -> Any:
        def base(x: Any) -> Any:
            return n.sum(n.sin(x) * x * x)

        g = NESTED[inner](t, base)
        return NESTED[outer](t, lambda x: (g(x) * x).sum())

    ours, theirs = nested(tg, tnp), jax.jit(nested(jax, jnp))
    expected = theirs(X)
    close(ours(X), expected, 2e-4)
    close(tg.jit(ours)(X), expected, 2e-4)


def test_derivatives_of_any_order() -> None:
    ours: Any = lambda x: tnp.sin(x) * x  # noqa: E731
    theirs: Any = lambda x: jnp.sin(x) * x  # noqa: E731
    for _ in range(5):
        ours, theirs = tg.grad(ours), jax.grad(theirs)
        close(ours(0.7), theirs(0.7), 1e-4)


# -- arguments


def three(a: Any, b: Any, c: Any, *, scale: Any = 1.0, n: Any = tnp) -> Any:
    return n.sum(a * b + c * c * b) * scale


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (0, 2), (2, 0), (-1, 0), (0, 1, 2), [1, 2]])
def test_argnums(argnums: Any) -> None:
    expected = jax.grad(lambda *xs: three(*xs, n=jnp), argnums)(X, 2 * X, 3 * X)
    close(tg.grad(three, argnums)(X, 2 * X, 3 * X), expected)
    close(tg.value_and_grad(three, argnums)(X, 2 * X, 3 * X)[1], expected)
    expected = jax.jacrev(lambda *xs: xs[0] * xs[1] * xs[2], argnums)(X, 2 * X, 3 * X)
    close(tg.jacobian(lambda a, b, c: a * b * c, argnums)(X, 2 * X, 3 * X), expected)


def test_keyword_arguments() -> None:
    close(tg.grad(three)(X, X, c=X, scale=2.0), 2 * X)
    close(tg.jit(tg.grad(three))(X, X, c=X, scale=2.0), 2 * X)
    close(tg.vmap(lambda a, *, b: a * b)(X, b=X), X * X)


class Params(NamedTuple):
    w: Any
    layers: list[dict[str, Any]]
    nothing: None = None


def test_pytrees() -> None:
    params = Params(M, [{"b": X}, {"b": 2 * X, "scale": np.float32(3.0)}])

    def loss(p: Params, n: Any) -> Any:
        h = n.tanh(p.w * p.layers[0]["b"])
        return n.sum(h * p.layers[1]["b"] * p.layers[1]["scale"])

    expected = jax.value_and_grad(lambda p: loss(p, jnp))(params)
    for run in (tg.value_and_grad(lambda p: loss(p, tnp)), tg.jit(tg.value_and_grad(lambda p: loss(p, tnp)))):
        actual = run(params)
        assert isinstance(actual[1], Params)
        close(actual, expected)
    close(tg.jacobian(lambda p: {"out": p.layers[0]["b"] ** 2})(params)["out"].layers[0]["b"], np.diag(2 * X))


def test_auxiliary_values() -> None:
    def g(x: Any) -> Any:
        y = tnp.sin(x)
        return tnp.sum(y), {"y": y, "n": 3, "name": "text", "none": None}

    (value, aux), gradient = tg.value_and_grad(g, has_aux=True)(X)
    close(value, np.sin(X).sum())
    close(gradient, np.cos(X))
    close(aux["y"], np.sin(X))
    assert isinstance(aux["y"], jax.Array)
    assert (aux["n"], aux["name"], aux["none"]) == (3, "text", None)
    gradient, aux = tg.grad(g, has_aux=True)(X)
    close(aux["y"], np.sin(X))
    jac, aux = tg.jacobian(lambda x: (x * x, x), has_aux=True)(X)
    close(jac, np.diag(2 * X))
    close(aux, X)
    _, _, aux = tg.vjp(lambda x: (x * x, x + 1), X, has_aux=True)
    close(aux, X + 1)
    # A gradient may be an auxiliary value of another.
    outer, inner = tg.grad(lambda x: (x**3, tg.grad(lambda x: x**3)(x)), has_aux=True)(2.0)
    assert (float(outer), float(inner)) == (12.0, 12.0)


def test_as_decorators_with_options() -> None:
    @tg.grad(argnums=1)
    def g(a: Any, b: Any) -> Any:
        return a * b

    @tg.value_and_grad(has_aux=True)
    def h(a: Any) -> Any:
        return a * a, a

    @tg.jit(static_argnums=1)
    def k(a: Any, n: int) -> Any:
        return a**n

    @tg.vmap(in_axes=(0, None))
    def m(a: Any, b: Any) -> Any:
        return a * b

    assert float(g(2.0, 3.0)) == 2.0
    assert float(h(3.0)[1]) == 6.0
    assert float(k(2.0, 3)) == 8.0
    close(m(X, 2.0), 2 * X)


def test_stop_gradient() -> None:
    assert float(tg.grad(lambda x: tg.stop_gradient(x * x) * x)(3.0)) == 9.0
    tree = tg.grad(lambda p: tnp.sum(tg.stop_gradient(p)["a"] * p["b"]))({"a": X, "b": X})
    close(tree["a"], np.zeros(3))
    close(tree["b"], X)
    assert float(tg.grad(tg.grad(lambda x: tg.stop_gradient(x) * x * x))(3.0)) == 6.0
    np.testing.assert_array_equal(tg.stop_gradient(X), X)


# -- vjp


def test_vjp_outside_and_inside_a_recording() -> None:
    def g(x: Any, p: Any) -> Any:
        return {"a": tnp.sin(x) * p["w"], "b": tnp.sum(x)}

    args, ct = (X, {"w": 2 * X}), {"a": 3 * X, "b": np.float32(0.5)}
    expected_value, expected_pullback = jax.vjp(lambda x, p: {"a": jnp.sin(x) * p["w"], "b": jnp.sum(x)}, *args)
    ct_jax = jax.tree.map(jnp.asarray, ct)
    value, pullback = tg.vjp(g, *args)
    close(value, expected_value)
    close(pullback(ct), expected_pullback(ct_jax))
    close(pullback(jax.tree.map(lambda c: 2 * c, ct)), jax.tree.map(lambda g: 2 * g, expected_pullback(ct_jax)))
    close(tg.jit(lambda x, p, ct: tg.vjp(g, x, p)[1](ct))(*args, ct), expected_pullback(ct_jax))
    close(tg.grad(lambda x: tnp.sum(tg.vjp(tnp.sin, x)[1](x)[0]))(X), np.cos(X) - X * np.sin(X))


def test_a_pullback_can_be_differentiated() -> None:
    _, pullback = tg.vjp(lambda x: x * x, X)
    close(tg.grad(lambda ct: tnp.sum(pullback(ct)[0]))(X), 2 * X)
    close(tg.vmap(lambda ct: pullback(ct)[0])(np.eye(3, dtype=np.float32)), np.diag(2 * X))


# -- jacobian, hessian, hvp


def test_jacobian_of_matrices_and_trees() -> None:
    g = lambda x: x.T @ x  # noqa: E731
    close(tg.jacobian(g)(M), jax.jacrev(g)(M))
    close(tg.jacobian(lambda x: (x * x, x.sum()))(X), jax.jacrev(lambda x: (x * x, x.sum()))(X))
    close(tg.jit(tg.jacobian(g))(M), jax.jacrev(g)(M))
    close(tg.jacobian(lambda x: x)(np.zeros((0,), np.float32)), np.zeros((0, 0)))


def test_hessian_and_hvp_of_several_arguments() -> None:
    def g(a: Any, b: Any) -> Any:
        return (a * a * b).sum() + (b**3).sum()

    close(tg.hessian(g, (0, 1))(X, 2 * X), jax.hessian(g, (0, 1))(X, 2 * X))
    close(tg.hessian(g, 1)(X, 2 * X), jax.hessian(g, 1)(X, 2 * X))
    ours = tg.hvp(g, (X, 2 * X), (X, -X))
    theirs = jax.jvp(jax.grad(g, (0, 1)), (X, 2 * X), (X, -X))[1]
    close(ours, theirs)
    close(tg.jit(lambda x, v: tg.hvp(f, (x,), (v,)))(X, X), jax.hessian(lambda x: f(x, jnp))(X) @ X)
    close(tg.hvp(lambda p: (p["a"] ** 3).sum(), ({"a": X},), ({"a": X},)), {"a": 6 * X * X})


# -- vmap


@pytest.mark.parametrize(
    "in_axes, out_axes", [(0, 0), (1, 0), (-1, 1), ((0, None), 0), ((None, 1), 1), ((1, -1), -1), (({"a": 0}, 1), 0)]
)
def test_vmap_axes(in_axes: Any, out_axes: Any) -> None:
    x, y = (np.arange(9.0, dtype=np.float32).reshape(3, 3) + k for k in (0, 1))
    first: Any = {"a": x} if isinstance(in_axes, tuple) and isinstance(in_axes[0], dict) else x

    def g(x: Any, y: Any) -> Any:
        x = x["a"] if isinstance(x, dict) else x
        return x * 2.0 + y

    close(tg.vmap(g, in_axes, out_axes)(first, y), jax.vmap(g, in_axes, out_axes)(first, y))
    close(tg.jit(tg.vmap(g, in_axes, out_axes))(first, y), jax.vmap(g, in_axes, out_axes)(first, y))


def test_gradients_of_each_example() -> None:
    def loss(w: Any, x: Any, n: Any = tnp) -> Any:
        return n.sum(n.tanh(w * x))

    expected = jax.vmap(jax.grad(lambda w, x: loss(w, x, jnp)), (None, 0))(X, M)
    close(tg.vmap(tg.grad(loss), (None, 0))(X, M), expected)
    close(tg.jit(tg.vmap(tg.grad(loss), (None, 0)))(X, M), expected)


def test_gradient_of_a_vmap_with_shared_and_closed_over_values() -> None:
    def g(w: Any, x: Any, n: Any, vmap: Any) -> Any:
        return n.sum(vmap(lambda row, shared: n.sin(row * w) * n.sum(shared), (0, None))(x, w))

    expected = jax.grad(lambda w, x: g(w, x, jnp, jax.vmap), (0, 1))(X, M)
    for run in (
        tg.grad(lambda w, x: g(w, x, tnp, tg.vmap), (0, 1)),
        tg.jit(tg.grad(lambda w, x: g(w, x, tnp, tg.vmap), (0, 1))),
    ):
        close(run(X, M), expected)


def test_vmap_of_a_constant_and_of_nested_maps() -> None:
    close(tg.vmap(lambda x: 1.0)(X), np.ones(3))
    close(tg.vmap(tg.vmap(lambda x, y: x * y, (0, None)), (None, 0))(X, X), np.outer(X, X))
    close(
        tg.grad(lambda x: tnp.sum(tg.vmap(tg.vmap(lambda x, y: x * y, (0, None)), (None, 0))(x, x)))(X),
        np.full(3, 2 * X.sum()),
    )


# -- trace


def test_trace_records_without_running() -> None:
    ran = []
    tape = tg.trace(lambda x: ran.append(1) or tnp.sum(tnp.exp(x)))(X)  # type: ignore[func-returns-value]
    assert ran == [1]
    assert [node.op.name for node in tape.nodes] == ["exp", "sum"]
    struct = jax.ShapeDtypeStruct((5,), np.float16)
    assert repr(tg.trace(tnp.exp)(struct).outputs[0].aval) == "f16[5]"
    assert len(optimize(tg.trace(tg.grad(lambda x: tnp.sum(x)))(X)).nodes) <= 1


# -- functions that return their arguments, or constants


@pytest.mark.parametrize("transform", [lambda f: f, tg.jit], ids=["undecorated", "jit"])
def test_functions_that_do_nothing(transform: Any) -> None:
    assert float(transform(tg.grad(lambda x: x))(2.0)) == 1.0
    assert float(transform(tg.grad(lambda x: 3.0))(2.0)) == 0.0
    assert float(transform(tg.grad(lambda x: np.float32(3.0)))(2.0)) == 0.0
    value, gradient = transform(tg.value_and_grad(lambda x: x))(2.0)
    assert (float(value), float(gradient)) == (2.0, 1.0)
    (value, aux), gradient = transform(tg.value_and_grad(lambda x: (x, (x, X)), has_aux=True))(2.0)
    close(aux, (np.float32(2.0), X))
    assert isinstance(transform(tg.grad(lambda x: x))(np.float32(2.0)), jax.Array)


def test_the_argument_of_the_caller_is_not_touched() -> None:
    x = {"a": X.copy()}
    tg.grad(lambda p: tnp.sum(p["a"] ** 2))(x)
    assert type(x["a"]) is np.ndarray
    np.testing.assert_array_equal(x["a"], X)


def test_numpy_functions_record() -> None:
    def g(x: Any) -> Any:
        return np.sum(np.where(x > 0.5, np.sin(x), np.exp(x)) * np.array([1.0, 2.0, 3.0], np.float32))

    expected = jax.grad(lambda x: jnp.sum(jnp.where(x > 0.5, jnp.sin(x), jnp.exp(x)) * jnp.array([1.0, 2.0, 3.0])))(X)
    close(tg.grad(g)(X), expected)
    close(tg.jit(tg.grad(g))(X), expected)


def test_operators_on_both_sides() -> None:
    j = jnp.asarray(X)

    def g(x: Any) -> Any:
        y = j + x - X * x / (1 + x) + 2**x + x**2 + np.float32(3) * x - (-x) + abs(x)
        return (y @ j + j @ y + X @ y).sum()

    def h(x: Any) -> Any:
        y = j + x - X * x / (1 + x) + 2**x + x**2 + np.float32(3) * x - (-x) + abs(x)
        return (y @ j + j @ y + jnp.asarray(X) @ y).sum()

    close(tg.grad(g)(X), jax.grad(h)(X))


def test_a_body_keeps_its_constants_constant() -> None:
    """A `stop_gradient` inside a function that is recorded once, and differentiated afterwards."""

    def f(x: Any) -> Any:
        return tg.stop_gradient(x) * x

    for g in (
        tg.jit(f),
        tg.checkpoint(f),
        lambda x: tg.vmap(f)(x[None])[0],
        lambda x: tg.scan(lambda c, _: (f(c), None), x, length=1)[0],
    ):
        assert float(tg.grad(g)(np.float32(3.0))) == 3.0
