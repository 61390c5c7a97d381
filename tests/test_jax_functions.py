"""Functions of JAX on traced values: they work where no derivative flows, and say so where one would."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import LeakedTracerError, NotRecordedError

X = np.array([[0.5, -1.25, 2.0], [1.5, 0.25, -0.75]], np.float32)
Y = np.array([[1.0, 2.0, 0.5], [-1.0, 3.0, 0.25]], np.float32)

# Each takes `x` of shape (2, 3) and `y`, either of which may be traced.
FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "numpy.sin": lambda x, y: jnp.sin(x),
    "numpy.exp": lambda x, y: jnp.exp(x),
    "numpy.add": jnp.add,
    "numpy.multiply": jnp.multiply,
    "numpy.where": lambda x, y: jnp.where(x > 0, x, y),
    "numpy.sqrt": lambda x, y: jnp.sqrt(jnp.abs(x)),
    "numpy.square": lambda x, y: jnp.square(x),
    "numpy.maximum": jnp.maximum,
    "numpy.clip": lambda x, y: jnp.clip(x, -1, 1),
    "numpy.sum": lambda x, y: jnp.sum(x, axis=0),
    "numpy.mean": lambda x, y: jnp.mean(x),
    "numpy.var": lambda x, y: jnp.var(x, axis=1),
    "numpy.max": lambda x, y: jnp.max(x),
    "numpy.cumsum": lambda x, y: jnp.cumsum(x, axis=1),
    "numpy.sort": lambda x, y: jnp.sort(x),
    "numpy.reshape": lambda x, y: jnp.reshape(x, (3, 2)),
    "numpy.transpose": lambda x, y: jnp.transpose(x),
    "numpy.concatenate": lambda x, y: jnp.concatenate([x, y]),
    "numpy.stack": lambda x, y: jnp.stack([x, y]),
    "numpy.array": lambda x, y: jnp.array([x, y]),
    "numpy.asarray": lambda x, y: jnp.asarray(x),
    "numpy.zeros_like": lambda x, y: jnp.zeros_like(x),
    "numpy.matmul": lambda x, y: jnp.matmul(x, y.T),
    "numpy.dot": lambda x, y: jnp.dot(x, jnp.transpose(y)),
    "numpy.einsum": lambda x, y: jnp.einsum("ij,kj->ik", x, y),
    "numpy.linalg.norm": lambda x, y: jnp.linalg.norm(x),
    "numpy.linalg.svd": lambda x, y: jnp.linalg.svd(x, compute_uv=False),
    "numpy.fft.rfft": lambda x, y: jnp.fft.rfft(x),
    "numpy.take": lambda x, y: jnp.take(x, jnp.array([0, 2]), axis=1),
    "numpy.broadcast_to": lambda x, y: jnp.broadcast_to(x, (4, 2, 3)),
    "numpy.tile": lambda x, y: jnp.tile(x, 2),
    "numpy.isfinite": lambda x, y: jnp.isfinite(x),
    "numpy.shape": lambda x, y: jnp.zeros(jnp.shape(x)) + jnp.ndim(x),
    "numpy.result_type": lambda x, y: jnp.ones(2, jnp.result_type(x, y)),
    "numpy.histogram": lambda x, y: jnp.histogram(x, 4)[0],
    "numpy.interp": lambda x, y: jnp.interp(x, jnp.arange(3.0), jnp.arange(3.0) ** 2),
    "numpy.vectorize": lambda x, y: jnp.vectorize(lambda a: a * a)(x),
    "lax.rsqrt": lambda x, y: lax.rsqrt(x * x),
    "lax.add": lax.add,
    "lax.mul": lax.mul,
    "lax.exp": lambda x, y: lax.exp(x),
    "lax.select": lambda x, y: lax.select(x > 0, x, y),
    "lax.dot_general": lambda x, y: lax.dot_general(x, y, (((1,), (1,)), ((), ()))),
    "lax.dynamic_slice": lambda x, y: lax.dynamic_slice(x, (0, 1), (2, 2)),
    "lax.reduce": lambda x, y: lax.reduce(x, np.float32(0), lax.add, (0,)),
    "lax.top_k": lambda x, y: lax.top_k(x, 2)[0],
    "lax.cond": lambda x, y: lax.cond(x[0, 0] > 0, lambda a: a + y, lambda a: a - y, x),
    "lax.scan": lambda x, y: lax.scan(lambda c, a: (c + a * y[0], c), y[0], x),
    "lax.fori_loop": lambda x, y: lax.fori_loop(0, 3, lambda i, c: c * y + i, x),
    "lax.while_loop": lambda x, y: lax.while_loop(lambda c: c[0, 0] < y[1, 1], lambda c: c + 1, x),
    "lax.stop_gradient": lambda x, y: lax.stop_gradient(x),
    "lax.convert_element_type": lambda x, y: lax.convert_element_type(x, jnp.int32),
    "nn.relu": lambda x, y: jax.nn.relu(x),
    "nn.softmax": lambda x, y: jax.nn.softmax(x),
    "nn.gelu": lambda x, y: jax.nn.gelu(x),
    "nn.logsumexp": lambda x, y: jax.nn.logsumexp(x),
    "nn.one_hot": lambda x, y: jax.nn.one_hot(jnp.argmax(x), 6),
    "nn.standardize": lambda x, y: jax.nn.standardize(x),
    "jit": lambda x, y: jax.jit(lambda a: a * y)(x),
    "vmap": lambda x, y: jax.vmap(lambda a: a * y.sum())(x),
    "grad": lambda x, y: jax.grad(lambda a: (a * a * y).sum())(x),
    "tree.map": lambda x, y: jax.tree.map(jnp.sin, {"a": x, "b": [y]}),
    "random.normal": lambda x, y: jax.random.normal(jax.random.key(0), jnp.shape(x)) * x,
    "isinstance": lambda x, y: jnp.float32(isinstance(x, jax.Array) and not isinstance(x, np.ndarray)),
    "an index": lambda x, y: jnp.arange(12.0)[jnp.argmax(x)],
    "an update": lambda x, y: jnp.zeros((2, 3)).at[0].set(x[1]),
}

NO_DERIVATIVE = {"numpy.zeros_like", "numpy.shape", "numpy.result_type", "isinstance", "an index"}
"""What asks for no value that is differentiated."""

RECORDED = {"numpy.reshape", "random.normal"}
"""What calls a method or an operator of the value, and is recorded."""


def close(actual: Any, expected: Any) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (e.shape, e.dtype, e.weak_type)
        np.testing.assert_allclose(a, e, rtol=1e-6, atol=1e-6)


def stepped(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """`f` in the middle of other steps, whose values it needs and gives."""

    def run(x: Any, y: Any) -> Any:
        a, b = tnp.sin(x) * 2, y + x
        out = f(a, b)
        return jax.tree.map(lambda v: v * 2, out), a + b

    return run


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_where_no_derivative_flows(name: str) -> None:
    f = FUNCTIONS[name]
    a, b = jnp.sin(X) * 2, jnp.asarray(Y + X)
    expected = jax.tree.map(lambda v: v * 2, f(a, b)), a + b
    with jax.checking_leaks():
        close(tg.jit(stepped(f))(X, Y), expected)
    # Undecorated, beside a loss that is differentiated.
    loss = lambda x, y: ((x * x).sum(), stepped(f)(tg.stop_gradient(x), y))  # noqa: E731
    gradient, found = tg.grad(loss, has_aux=True)(X, Y)
    close(found, expected)
    np.testing.assert_allclose(gradient, 2 * X)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in NO_DERIVATIVE | RECORDED])
def test_an_error_where_a_derivative_would_flow(name: str) -> None:
    f = FUNCTIONS[name]

    def loss(x: Any) -> Any:
        y = tnp.cos(x)
        return jax.tree.leaves(f(x * 2, y))[0].sum()  # <- line

    for run in (tg.grad(loss), tg.jit(tg.grad(loss))):
        with pytest.raises(NotRecordedError, match=r"was given to .*would not be recorded") as caught:
            run(X)
        message = str(caught.value)
        assert "tracegrad.from_jax" in message and __file__ in message and "f32[" in message, message


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_what_is_recorded_after_all_has_the_right_derivative(name: str) -> None:
    f = FUNCTIONS[name]
    expected = jax.grad(lambda x: (f(x * 2, x) ** 2).sum())(X)
    for wrap in (lambda f: f, tg.jit):
        np.testing.assert_allclose(wrap(tg.grad(lambda x: (f(x * 2, x) ** 2).sum()))(X), expected, rtol=1e-5)


def test_bodies_have_no_values() -> None:
    """In the body of a loop, a branch or a transform there is no value to compute with yet: an error that says so."""
    bodies = {
        "scan": lambda x: tg.scan(lambda c, t: (jnp.sin(c), None), x, X)[0],
        "fori_loop": lambda x: tg.fori_loop(0, 3, lambda i, c: jnp.sin(c), x),
        "cond": lambda x: tg.cond(True, jnp.sin, lambda x: x, x),
        "vmap": tg.vmap(lambda r: jax.nn.softmax(r[None])),
        "checkpoint": lambda x: tg.eval_shape(tg.checkpoint(lambda x: lax.exp(x)), x),
        "a nested jit": lambda x: tg.scan(lambda c, t: (tg.jit(jnp.sin)(c), None), x, X)[0],
    }
    for name, body in bodies.items():
        for run in (body, tg.jit(body)):
            with pytest.raises(NotRecordedError, match=r"test_jax_functions.py.*body of a loop.*from_jax"):
                run(X[0])
                pytest.fail(name)


def test_the_line_is_the_user_s_not_the_library_s() -> None:
    """A library of JAX's, installed beside it, is called: the message has the user's line."""
    library = types.ModuleType("library")
    source = "import jax.numpy as jnp\ndef update(g):\n    return jnp.tanh(g)\n"
    path = np.__file__.replace("numpy", "some_library_of_jax", 1).replace("numpy", "library")
    exec(compile(source, path, "exec"), library.__dict__)
    assert "some_library_of_jax" in path

    def loss(x: Any) -> Any:
        return library.update(x * x).sum()

    with pytest.raises(NotRecordedError, match=r"test_jax_functions.py:\d+ \(loss\) `return library.update") as caught:
        tg.grad(loss)(X)
    assert "some_library" not in str(caught.value)


def test_what_was_computed_is_not_computed_again() -> None:
    """A value that a function of JAX asked for is a part of the program, once."""

    def f(x: Any) -> Any:
        y = tnp.sin(tnp.exp(x))
        jax.debug.callback(lambda v: None, y)
        z = tnp.exp(y) * jnp.sign(jnp.max(y))
        return y * z * jnp.sign(jnp.max(z))

    text = tg.jit(f).lower(X).as_text()
    assert text.count("stablehlo.sine") == 1 and text.count("stablehlo.exponential") == 2
    y = np.sin(np.exp(X))
    np.testing.assert_allclose(tg.jit(f)(X), y * np.exp(y), rtol=1e-5)


def test_gradients_around_a_function_of_jax() -> None:
    """A derivative that does not flow through it is right, of any order, before and after."""

    def loss(x: Any) -> Any:
        y = tnp.sin(x)
        scale = jnp.max(jnp.abs(tg.stop_gradient(y)))
        return ((y / scale) ** 3).sum()

    def reference(x: Any) -> Any:
        y = jnp.sin(x)
        return ((y / jnp.max(jnp.abs(lax.stop_gradient(y)))) ** 3).sum()

    for wrap in (lambda f: f, tg.jit):
        np.testing.assert_allclose(wrap(tg.grad(loss))(X), jax.grad(reference)(X), rtol=1e-5)
        second = wrap(tg.grad(lambda x: (tg.grad(loss)(x) ** 2).sum()))(X)
        np.testing.assert_allclose(second, jax.grad(lambda x: (jax.grad(reference)(x) ** 2).sum())(X), rtol=1e-4)


def test_functions_that_jax_calls_inside_its_own_transformations() -> None:
    """Traced values and JAX's own, of an inner transformation, meet in one operation: it is JAX's."""

    def f(np: Any, x: Any) -> Any:
        y = np.sin(x) * 3
        total, terms = lax.scan(lambda c, r: (c + np.mean(r * y), np.cos(c) * y), y.sum(), y)
        z = lax.while_loop(lambda c: c < y.sum() + 9, lambda c: c + abs(y[0]) + 1, 0.5)
        return total, terms, z, y

    x = X[0]
    expected = f(jnp, jnp.asarray(x))
    with jax.checking_leaks():
        close(tg.jit(lambda x: f(tnp, x))(x), expected)
        found = tg.grad(lambda x: (x.sum(), f(tnp, tg.stop_gradient(x))), has_aux=True)(x)[1]
    close(found, expected)


def test_transforms_of_ours_inside_those_of_jax_inside_a_recording() -> None:
    """They record anew, in the inner JAX trace, and may read values of the recording around it."""

    def f(t: Any, np: Any, x: Any) -> Any:
        y = np.sin(x)
        batched = jax.vmap(lambda v: t.grad(lambda v: (v * v * y).sum())(v) + t.vmap(lambda a: a * v)(y).sum())(x * 2)
        looped = lax.scan(lambda c, r: (t.hessian(lambda c: c**3 * y.sum())(c), t.jit(np.cos)(r * y)), y.sum(), x)
        return batched, looped, lax.fori_loop(0, 2, lambda i, c: t.jvp(np.sin, (c,), (y,))[1], x)

    x = X[0]
    expected = f(jax, jnp, jnp.asarray(x))
    with jax.checking_leaks():
        close(tg.jit(lambda x: f(tg, tnp, x))(x), expected)
        found = tg.grad(lambda x: (x.sum(), f(tg, tnp, tg.stop_gradient(x))), has_aux=True)(x)[1]
    close(found, expected)
    with pytest.raises(NotRecordedError, match=r"test_jax_functions.py"):
        tg.grad(lambda x: f(tg, tnp, x)[0].sum())(x)


def test_leaked_values_are_errors() -> None:
    kept: list[Any] = []
    tg.jit(lambda x: kept.append(x * 2))(X)
    with pytest.raises((LeakedTracerError, TypeError)) as caught:
        jnp.sin(kept[0])
    chain = f"{caught.value} {caught.value.__cause__}"
    assert "after the recording it belongs to" in chain


def test_shapes_and_types_need_no_value() -> None:
    """What asks for the type alone works in bodies too."""

    def body(c: Any, t: Any) -> Any:
        assert jnp.shape(c) == (3,) and jnp.ndim(c) == 1 and jnp.result_type(c) == jnp.float32
        assert jax.typeof(c).shape == (3,) and jax.eval_shape(jnp.sin, c).shape == (3,)
        assert isinstance(c, jax.Array)
        return c + t, None

    np.testing.assert_allclose(tg.scan(body, X[0] * 0, X)[0], X.sum(0))


def test_an_optimizer_written_with_jax_runs_unchanged() -> None:
    """An update rule of plain jax.numpy and jax.lax, with a step counter, in a step of ours."""

    def update(grads: Any, state: Any) -> Any:
        count = jnp.where(state["count"] < jnp.iinfo(jnp.int32).max, state["count"] + 1, state["count"])
        nu = jax.tree.map(lambda g, n: 0.9 * n + 0.1 * jnp.real(g * jnp.conj(g)), grads, state["nu"])
        for leaf in jax.tree.leaves(grads):
            assert isinstance(leaf, jax.Array)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
        grads = lax.cond(norm < 1.0, lambda g: g, lambda g: jax.tree.map(lambda v: v / norm, g), grads)
        scale = lax.rsqrt(1 - 0.9**count)
        return jax.tree.map(lambda g, n: -0.1 * g * lax.rsqrt(n + 1e-8) * scale, grads, nu), {"count": count, "nu": nu}

    def train(t: Any, np: Any, wrap: Any) -> Any:
        params = {"w": jnp.asarray(X.T), "b": jnp.zeros(2)}
        state = {"count": jnp.zeros([], jnp.int32), "nu": jax.tree.map(jnp.zeros_like, params)}

        def loss(p: Any) -> Any:
            return ((np.tanh(X @ p["w"] + p["b"]) - 1) ** 2).mean()

        @wrap
        def step(params: Any, state: Any) -> Any:
            value, grads = t.value_and_grad(loss)(params)
            updates, state = update(grads, state)
            return jax.tree.map(lambda p, u: jnp.asarray(p + u), params, updates), state, value

        for _ in range(5):
            params, state, value = step(params, state)
        return params, state, value

    expected = train(jax, jnp, jax.jit)
    for wrap in (tg.jit, lambda f: f):
        for a, e in zip(jax.tree.leaves(train(tg, tnp, wrap)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)
