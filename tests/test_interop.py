"""Functions of JAX as ops of ours, and ours inside of JAX: values, derivatives, compilations, messages, artifacts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax import scipy as jsp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.conftest import Compiles
from tests.reference import check_grads
from tracegrad.interop.primitives import PRIMITIVES

_RNG = np.random.default_rng(0)
X = _RNG.uniform(0.2, 0.8, (3, 4))
Y = _RNG.uniform(0.2, 0.8, (3, 4))
M = _RNG.normal(size=(3, 3)) + 2 * np.eye(3)
SPD = M @ M.T + 3 * np.eye(3)
I = np.array([2, 0, 2], np.int32)  # noqa: E741
IMAGES = _RNG.normal(size=(2, 4, 5, 4))
FAST: dict[str, Any] = {"compiler_options": {"xla_backend_optimization_level": 0}}  # for what runs once
KERNEL = _RNG.normal(size=(2, 2, 2, 4))

# -- primitives, a few dozen at a time: a program costs more to compile than to be long

_UNARY = (
    jnp.abs, lax.acos, lax.asin, lax.asinh, lax.atan, lax.atanh, lax.cbrt, lax.ceil, lax.cos, lax.cosh, lax.digamma,
    lax.erf, lax.erf_inv, lax.erfc, lax.exp, lax.exp2, lax.expm1, lax.floor, lax.lgamma, lax.log, lax.log1p,
    lax.logistic, lax.neg, lax.round, lax.rsqrt, lax.sign, lax.sin, lax.sinh, lax.sqrt,
    lax.square, lax.tan, lax.tanh, jnp.round, lambda x: lax.acosh(x + 1),
    lambda x: x**3, lambda x: x**-2, lax.bessel_i0e, lax.bessel_i1e,
    lambda x: lax.reduce_precision(x, 11, 52),
)  # fmt: skip
_BINARY = (
    lax.atan2, lax.pow, lax.max, lax.min, lax.add, lax.sub, lax.mul, lax.div, lambda x, y: lax.rem(x + 2, y),
    lambda x, y: lax.clamp(0.3, x, 0.6), lambda x, y: lax.clamp(y, x, y + 0.1), lambda x, y: jnp.where(x > y, x, y),
    lambda x, y: lax.select_n((x * 3).astype(int), x, y, x * y), lax.complex, jnp.logaddexp, jsp.special.xlogy,
    lambda x, y: lax.betainc(2.0, 3.0, x), lambda x, y: lax.polygamma(1.0, x), lambda x, y: lax.igamma(2.0, y),
    lambda x, y: lax.igammac(2.0, y), lambda x, y: (~(x <= y)) * x,
    lambda x, y: lax.nextafter(*lax.stop_gradient((x, y))),
)  # fmt: skip


def _shapes(x: Any) -> list[Any]:
    return [
        jnp.broadcast_to(x[:, None], (3, 2, 4)), x.reshape(2, 6), x[:, :1].squeeze(1), x.T, x[::-1],
        jnp.concatenate([x, x * 2], 1),
        lax.pad(x, x[0, 0], ((1, -1, 1), (0, 2, 0))), lax.slice(x, (0, 1), (3, 4), (1, 2)),
        lax.dynamic_slice(x, (jnp.array(-1), 1), (2, 2)),
        lax.dynamic_slice_p.bind(x, jnp.array(-1), jnp.array(9), slice_sizes=(2, 2)),
        lax.dynamic_update_slice(x, x[:2, :2] * 3, (1, 2)), *lax.split(x, (1, 3), 1), jnp.stack([x, x]),
        *jnp.unstack(x), jnp.tile(x, (2, 1)), x.astype(complex), x + jnp.arange(4), lax.optimization_barrier(x),
        jnp.eye(4) * x[0],         jax.device_put(x), jnp.copy(x),
        x * lax.population_count(lax.clz(jnp.int32(9))),
        lax.bitcast_convert_type(jnp.int32(1), np.float32) * x,
    ]  # fmt: skip


def _reductions(x: Any) -> list[Any]:
    return [
        x.sum(0), x.max(1), x.min(), x.prod(1), jnp.cumsum(x, 0), jnp.cumprod(x, 1), lax.cummax(x, 0),
        lax.cummin(x, 0, reverse=True), lax.cumlogsumexp(x, 1), jnp.sort(x, 0), lax.sort((x, x * x), dimension=0)[1],
        lax.top_k(x, 2)[0], x[jnp.argmax(x, 0)[0]], jnp.any(x > 0.5) * x, jnp.all(x > 0.5) * x,
        lax.approx_max_k(x, 1)[0], jnp.argsort(x) * x, x.std(), jax.nn.softmax(x),
        lax.reduce_xor(jnp.arange(3), axes=(0,)) * x,
    ]  # fmt: skip


def _windows(x: Any) -> list[Any]:
    return [
        lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "SAME", base_dilation=(2, 1)),
        lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "SAME"),
        lax.reduce_window(x, jnp.inf, lax.min, (2, 2), (2, 2), "VALID"),
        lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID", window_dilation=(2, 1)),
    ]


def _indexing(x: Any) -> list[Any]:
    return [
        x[I], x[I, I], x[:, I], x[1], x.at[I].set(2 * x), x.at[I].add(x), x.at[I].min(x * 0.9), x.at[I].max(x[0]),
        x.at[np.array([2, 0, 1], np.int32)].multiply(x, unique_indices=True), x.at[I].subtract(x),
        x.at[0, 1].set(x[1, 1]), x.at[7].set(1.0, mode="drop"), jnp.take(x, I + 2, axis=0, mode="clip"),
        jnp.take(x, I + 2, axis=0, mode="fill", fill_value=0), jnp.take_along_axis(x, I[:, None], 1),
        jax.vmap(lambda r, k: lax.dynamic_slice(r, (k,), (2,)))(x, I),
    ]  # fmt: skip


def _products(x: Any, m: Any, images: Any, kernel: Any) -> list[Any]:
    return [
        m @ x, jnp.einsum("ij,kj->ik", x, x), jax.vmap(jnp.dot, (0, None))(m, x),
        lax.dot_general(x, x, (((1,), (1,)), ((0,), (0,)))),
        lax.conv_general_dilated(
            images, kernel, (1, 2), "SAME", rhs_dilation=(2, 1), dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=2,
        ),
    ]  # fmt: skip


def _linear_algebra(m: Any, s: Any) -> list[Any]:
    s = (s + s.T) / 2
    return [
        jnp.linalg.cholesky(s), jnp.linalg.det(m), jnp.linalg.slogdet(m)[1], jnp.linalg.inv(m), jnp.linalg.solve(m, s),
        jsp.linalg.solve_triangular(m, s, lower=True), jnp.linalg.qr(m)[1], jnp.linalg.eigvalsh(s),
        jnp.linalg.svd(m, compute_uv=False), jsp.linalg.lu(m)[2], jnp.linalg.pinv(m), jnp.abs(jnp.linalg.eigvals(m)),
        jsp.linalg.cho_solve(jsp.linalg.cho_factor(s), m),
    ]  # fmt: skip


def _complex(z: Any) -> list[Any]:
    return [
        jnp.fft.fft(z), jnp.fft.irfft(z), jnp.fft.rfft(z.real), jnp.fft.ifft2(z), jnp.conj(z) * z, jnp.abs(z),
        jnp.exp(z), jnp.real(z) * jnp.imag(z), jnp.angle(z),
    ]  # fmt: skip


def _step(carry: Any, x: Any) -> Any:
    carry = jnp.tanh(carry * x + 1)
    return carry, carry * x


def _control(x: Any) -> list[Any]:
    named = jax.checkpoint(
        lambda x: jnp.sin(checkpoint_name(jnp.sin(x @ x.T), "a")),
        policy=jax.checkpoint_policies.save_only_these_names("a"),
    )
    return [
        *lax.scan(_step, x[0], x), lax.scan(_step, x[0], x, reverse=True, unroll=2)[1], lax.map(jnp.sin, x),
        lax.fori_loop(0, 3, lambda i, c: c * jnp.sin(x[0]) + i, x[1]),
        lax.cond(x[0, 0] > 0, lambda x: x * x, jnp.sin, x),
        lax.switch(jnp.argmax(x[0]), [jnp.sin, jnp.cos, jnp.exp, jnp.tan], x),
        lax.while_loop(lambda n: n < 10, lambda n: n * 2, 1) * x, jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x),
        named(x), lax.scan(lambda c, r: (lax.cond(r[0] > 0.5, jnp.sin, jnp.cos, c * r), None), x[0], x)[0],
    ]  # fmt: skip


def _loops(x: Any) -> list[Any]:
    return [
        lax.scan(_step, x[0], x)[1],
        lax.cond(x[0, 0] > 0, lambda x: x * x, jnp.sin, x),
        jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(x),
    ]


@jax.custom_jvp
def _clipped_product(x: Any, y: Any) -> Any:
    return jnp.maximum(x * y, 0)


@_clipped_product.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    return _clipped_product(x, y), dx * y * (x > 0) + dy * x


@jax.custom_vjp
def _sine_times(x: Any, n: Any, y: Any) -> Any:
    return jnp.sin(x) * y, n


_sine_times.defvjp(
    lambda x, n, y: (_sine_times(x, n, y), (x, y, jnp.cos(x))),
    lambda saved, ct: (ct[0] * saved[2] * saved[1], None, ct[0] * jnp.sin(saved[0])),
)


def _custom(x: Any, y: Any) -> list[Any]:
    return [
        _clipped_product(x, y), jax.jit(_sine_times)(x, 3, y)[0], _sine_times(_clipped_product(x, x), 1, y)[0] ** 2,
        lax.scan(lambda c, r: (_sine_times(c, 1, r)[0], None), x[0], y)[0], jax.nn.silu(x), jax.nn.gelu(x),
        jax.nn.selu(x), jax.nn.log_softmax(x), jax.nn.softplus(x), jax.nn.logsumexp(x),
        jnp.linalg.norm(x), jnp.sinc(x),
    ]  # fmt: skip


def _random(alpha: Any) -> list[Any]:
    key = jax.random.key(0)
    keep = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.5, alpha.shape)
    noise = jax.random.normal(jax.random.split(key)[0], alpha.shape)
    return [jax.random.loggamma(key, alpha), jnp.where(keep, alpha, 0), alpha * noise]


NEWER = [getattr(jax.lax, name) for name in ("log2", "one_minus_square") if hasattr(jax.lax, name)]

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "unary": (lambda x: [f(x) for f in (*_UNARY, *NEWER)], (X,)),
    "binary": (lambda x, y: [f(x, y) for f in _BINARY], (X, Y)),
    "shapes": (_shapes, (X,)),
    "reductions": (_reductions, (X,)),
    "windows": (_windows, (X,)),
    "indexing": (_indexing, (X,)),
    "products": (_products, (X, M, IMAGES, KERNEL)),
    "linear algebra": (_linear_algebra, (M, SPD)),
    "complex": (_complex, (X + 1j * Y,)),
    "control": (_control, (X,)),
}


def _total(outputs: Any) -> Any:
    total: Any = 0.0
    for out in jax.tree.leaves(outputs):
        weights = jnp.linspace(0.5, 1.5, out.size).reshape(out.shape)
        total = total + (jnp.real(out) * weights).sum() + (jnp.imag(out) * weights**2).sum()
    return total


@pytest.mark.parametrize("name", CASES)
def test_primitives(name: str) -> None:
    fun, args = CASES[name]
    loss, every = (lambda *args: _total(fun(*args))), tuple(range(len(args)))
    with jax.enable_x64(True):
        expected = jax.jit(jax.value_and_grad(loss, every), **FAST)(*args)
        actual = tg.jit(tg.value_and_grad(tg.from_jax(loss), every), **FAST)(*args)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), actual, expected)


@pytest.mark.parametrize(
    ("fun", "args"), [(lambda a, b: jnp.linalg.solve(a, b), (M, SPD)), (_custom, (X, Y)), (_loops, (X,))]
)
def test_second_derivatives(fun: Callable[..., Any], args: tuple[Any, ...]) -> None:
    check_grads(tg.from_jax(fun), *args, jax_fn=fun)


def test_half_precision() -> None:
    def f(x: Any) -> Any:
        y = lax.dot_general(x, x, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
        return (jax.nn.softmax(x) * x.sum()).sum() + y.sum()

    x = jnp.linspace(0, 1, 6, dtype=jnp.bfloat16).reshape(2, 3)
    actual, expected = tg.jit(tg.grad(tg.from_jax(f)))(x), jax.jit(jax.grad(f))(x)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(actual.astype(np.float32), expected.astype(np.float32), rtol=2e-2)


def test_stop_gradient() -> None:
    assert float(tg.grad(tg.from_jax(lambda x: lax.stop_gradient(x) * jnp.sin(x)))(0.0)) == 0.0
    assert float(tg.grad(tg.from_jax(lambda x: lax.stop_gradient(x) * x))(3.0)) == 3.0


def test_random_numbers() -> None:
    alpha, fun = jnp.array([0.7, 2.0]), lambda alpha: _total(_random(alpha))
    expected, actual = jax.jit(jax.grad(fun), **FAST)(alpha), tg.jit(tg.grad(tg.from_jax(fun)), **FAST)(alpha)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def _names(jaxpr: Any) -> set[str]:
    found = set()
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        found.add(eqn.primitive.name.replace("-", "_"))
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns"):
                    found |= _names(inner)
    return found


def test_every_rule_has_a_case() -> None:
    found: set[str] = set()
    with jax.enable_x64(True):
        for fun, args in [*CASES.values(), (_custom, (X, Y))]:
            found |= _names(jax.make_jaxpr(fun)(*args))
    found |= _names(jax.make_jaxpr(_random)(jnp.ones(2)))
    # Not covered: names that other versions of JAX have for the same, and what only gradients of JAX record.
    others = {"add_any", "checkpoint", "closed_call", "composite", "copy_p", "core_call", "eval_jaxpr", "pjit"}
    others |= set() if hasattr(jax.lax, "log2") else {"log2", "one_minus_square"}
    others |= {"igamma_grad_a", "random_gamma_grad", "tile", "xor", "shift_left", "shift_right_arithmetic", "zeta"}
    assert set(PRIMITIVES) - found - others == set()


# -- rules that JAX code brings along


def test_edges_are_those_of_the_rule() -> None:
    def edges(x: Any) -> Any:
        return jax.nn.relu(x) + jax.nn.relu6(x) + jsp.special.xlogy(x, x + 1.0) + jnp.linalg.norm(x + jnp.ones(2))

    x = jnp.zeros(2)
    expected = jax.jacobian(edges)(x)
    np.testing.assert_allclose(tg.jacobian(tg.from_jax(edges))(x), expected, rtol=1e-6)
    assert tg.grad(tg.from_jax(lambda x: jax.nn.relu(x)))(0.0) == 0.0


def test_a_custom_vjp_is_used_and_may_be_anything() -> None:
    @jax.custom_vjp
    def reversed_gradient(x: Any) -> Any:
        return x * 1.0

    reversed_gradient.defvjp(lambda x: (x, None), lambda _, ct: (-ct,))
    f = tg.from_jax(lambda x: reversed_gradient(x).sum())
    assert tg.grad(f)(jnp.ones(2)).tolist() == [-1.0, -1.0]
    _, pullback = tg.vjp(f, jnp.ones(2))
    assert [pullback(np.float32(c))[0].tolist() for c in (1.0, 2.0)] == [[-1.0, -1.0], [-2.0, -2.0]]

    def twice(x: Any) -> Any:
        _, pullback = tg.vjp(f, x)
        return pullback(np.float32(1.0))[0] + pullback(np.float32(2.0))[0]

    assert tg.jit(twice)(jnp.ones(2)).tolist() == [-3.0, -3.0]


def test_symbolic_zeros_and_constants_of_rules() -> None:
    table = np.arange(3.0, dtype=np.float32)

    @jax.custom_vjp
    def f(x: Any, y: Any) -> Any:
        return x * y

    def forward(x: Any, y: Any) -> Any:
        return x.value * y.value, (x.value, y.value, y.perturbed)

    f.defvjp(forward, lambda r, ct: (ct * r[1] * table, ct * r[0]), symbolic_zeros=True)

    @jax.custom_jvp
    def g(x: Any, y: Any) -> Any:
        return x * y

    @lambda rule: g.defjvp(rule, symbolic_zeros=True)
    def _(primals: Any, tangents: Any) -> Any:
        total = sum(t * p for t, p in zip(tangents, primals[::-1], strict=True) if hasattr(t, "shape") and t is not None
                    and not type(t).__name__.startswith("Symbolic"))  # fmt: skip
        return g(*primals), total * table

    x, y = jnp.arange(1.0, 4.0), jnp.arange(2.0, 5.0)
    for fun in (f, g):
        loss = lambda x, fun=fun: (fun(x, y) * jnp.array([1.0, 2.0, 3.0])).sum()  # noqa: E731
        np.testing.assert_allclose(tg.grad(tg.from_jax(loss))(x), jax.grad(loss)(x), rtol=1e-6)


# -- how it is traced and compiled


def test_traced_and_compiled_once() -> None:
    count = 0

    def f(w: Any, x: Any, power: int = 2) -> Any:
        nonlocal count
        count += 1
        return ((x @ w["w"] + w["b"]) ** power).sum()

    ours = tg.from_jax(f)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    tg.grad(ours)(params, jnp.ones((4, 3)))
    since = Compiles.count
    for scale in (2.0, 3.0):
        tg.grad(ours)(params, scale * np.ones((4, 3), np.float32))
    assert count == 1 and Compiles.count == since
    tg.grad(ours)(params, jnp.ones((4, 3)), power=3)
    assert count == 2


def test_closed_over_arrays_are_never_stale() -> None:
    scale = jnp.ones(2)

    def f(x: Any) -> Any:
        return (scale * x).sum()

    ours = tg.from_jax(f)
    assert float(ours(jnp.ones(2))) == 2.0
    scale = jnp.full(2, 3.0)
    assert float(ours(jnp.ones(2))) == 6.0
    assert tg.grad(ours)(jnp.ones(2)).tolist() == [3.0, 3.0]


def test_a_nested_function_is_one_body() -> None:
    @jax.jit
    def layer(x: Any) -> Any:
        for _ in range(30):
            x = jnp.sin(x) * 1.5
        return x

    tape = tg.trace(tg.from_jax(lambda x: layer(layer(x))))(jnp.ones(2))
    (outer,) = tape.nodes
    inner = outer.params["body"].nodes
    assert [node.op.name for node in inner] == ["call", "call"]
    assert inner[0].params["body"] is inner[1].params["body"]


def test_static_leaves_pass_through() -> None:
    f = tg.from_jax(lambda config, x: {"y": config["f"](x), "f": config["f"], "n": config["n"]})
    out = f({"f": jnp.sin, "n": 3}, jnp.ones(2))
    assert out["f"] is jnp.sin and out["n"] == 3 and isinstance(out["y"], jax.Array)
    assert isinstance(tg.from_jax(lambda x: x + 1)(1.0), jax.Array)


def test_effects(capfd: pytest.CaptureFixture[str]) -> None:
    def f(x: Any) -> Any:
        jax.debug.print("x is {}", x)
        jax.debug.print("hello")
        return jnp.sin(x)

    gradient = tg.jit(tg.grad(tg.from_jax(f)))(0.0)
    jax.effects_barrier()
    assert float(gradient) == 1.0
    assert sorted(capfd.readouterr().out.split("\n")) == ["", "hello", "x is 0.0"]


def test_inside_transforms() -> None:
    f = tg.from_jax(lambda x, y: jnp.sin(x) * jax.nn.silu(y))
    x, y = jnp.arange(3.0), jnp.arange(4.0)
    g = jax.grad(lambda x, y: jnp.sin(x) * jax.nn.silu(y))
    expected = jax.vmap(jax.vmap(g, (0, None)), (None, 0))(x, y)
    np.testing.assert_allclose(tg.vmap(tg.vmap(tg.grad(f), (0, None)), (None, 0))(x, y), expected, rtol=1e-6)
    ys = tg.jit(tg.grad(lambda x: tg.scan(lambda c, b: (f(c, b), None), x, y)[0]))(0.5)
    expected = jax.grad(lambda x: lax.scan(lambda c, b: (jnp.sin(c) * jax.nn.silu(b), None), x, y)[0])(0.5)
    np.testing.assert_allclose(ys, expected, rtol=1e-6)
    total = tg.pmap(tg.grad(lambda w, x: tg.psum(f(w, x), "i")), axis_name="i", in_axes=(None, 0))(1.0, x[:2])
    np.testing.assert_allclose(total, np.full(2, sum(g(1.0, v) for v in x[:2])), rtol=1e-6)


# -- the other way: a function of ours inside of JAX


def _ours(w: Any, x: Any) -> Any:
    return (tnp.tanh(x @ w) ** 2).sum()


def _theirs(w: Any, x: Any) -> Any:
    return (jnp.tanh(x @ w) ** 2).sum()


def test_inside_jax() -> None:
    w, x = jnp.linspace(-1, 1, 6).reshape(3, 2), jnp.linspace(0, 1, 24).reshape(8, 3)
    expected = jax.grad(_theirs)(w, x)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    gradient = tg.grad(_ours)
    close(jax.jit(gradient)(w, x), expected)
    close(jax.vmap(gradient, (None, 0))(w, x).sum(0), expected)
    close(lax.scan(lambda total, row: (total + tg.jit(gradient)(w, row), None), jnp.zeros_like(w), x)[0], expected)


W3, X83 = jnp.linspace(-1.0, 1.0, 3), jnp.sin(jnp.arange(24.0)).reshape(8, 3)
SHARED, SPLIT = PartitionSpec(), PartitionSpec("i")
ON_DEVICES: dict[str, tuple[Any, Any]] = {
    "summed": (lambda t, np: lambda w, x: t.grad(lambda x: t.lax.psum((x * w).sum() ** 2, "i"))(x), SPLIT),
    "shared": (lambda t, np: lambda w, x: t.grad(lambda w: np.sin(x * w).sum())(w), SHARED),
    "shared, mean": (lambda t, np: lambda w, x: t.grad(lambda w: t.lax.pmean(np.sin(x @ w).sum(), "i"))(w), SHARED),
    "jit": (lambda t, np: lambda w, x: t.jit(t.value_and_grad(lambda w, x: np.sin(x * w).sum()))(w, x)[1], SHARED),
    "inner jit": (lambda t, np: lambda w, x: t.grad(lambda w: t.jit(lambda w: np.sin(x @ w).sum())(w))(w), SHARED),
    "checkpoint": (
        lambda t, np: lambda w, x: t.grad(lambda w: t.checkpoint(lambda w, x: np.sin(x @ w).sum())(w, x))(w),
        SHARED,
    ),
    "vmap": (lambda t, np: lambda w, x: t.grad(lambda w: t.vmap(lambda r: np.sin(r @ w))(x).sum())(w), SHARED),
    "scan": (
        lambda t, np: lambda w, x: t.grad(lambda x: t.lax.scan(lambda c, r: (np.sin(c) * r @ w, c), x.sum(), x)[0])(x),
        SPLIT,
    ),
    "cond": (
        lambda t, np: (
            lambda w, x: t.grad(
                lambda w: t.lax.psum(t.lax.cond(x[0, 0] > 0, lambda v: (x @ v).sum(), lambda v: v @ x[0], w), "i")
            )(w)
        ),
        SHARED,
    ),
    "while": (lambda t, np: lambda w, x: t.lax.while_loop(lambda c: (c**2).sum() < 100.0, lambda c: 2.0 * c, x), SPLIT),
    "hessian": (lambda t, np: lambda w, x: t.hessian(lambda w: t.lax.psum(np.sin(x @ w).sum(), "i"))(w), SHARED),
    "jvp": (lambda t, np: lambda w, x: t.jvp(lambda w: t.lax.psum(np.sin(x @ w).sum(), "i"), (w,), (w,))[1], SHARED),
}


@pytest.mark.parametrize("name", ON_DEVICES)
@pytest.mark.parametrize("checked", [True, False], ids=["check_vma", "unchecked"])
def test_inside_shard_map(name: str, checked: bool) -> None:
    build, out = ON_DEVICES[name]
    names = {"psum", "pmean", "scan", "cond", "while_loop"}
    ours = SimpleNamespace(**{**vars(tg), "lax": SimpleNamespace(**{n: getattr(tg, n) for n in names})})
    mesh = jax.make_mesh((4,), ("i",), devices=jax.devices()[:4], axis_types=(jax.sharding.AxisType.Auto,))
    results = [
        jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(SHARED, SPLIT), out_specs=out, check_vma=checked))(W3, X83)
        for f in (build(ours, tnp), build(jax, jnp))
    ]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_both_ways_at_once() -> None:
    f = tg.from_jax(lambda x: jnp.sin(x) * tg.grad(lambda y: y * y * y)(x))
    assert float(jax.jit(tg.grad(f))(1.0)) == pytest.approx(float(3 * np.cos(1) + 6 * np.sin(1)), rel=1e-6)


# -- models


def _of_linen(module: Any, x: Any, **kwargs: Any) -> tuple[Callable[..., Any], Any, Any]:
    params = module.init(jax.random.key(0), x, **kwargs)
    return (lambda params, x: (module.apply(params, x, **kwargs) ** 2).mean()), params, x


def _ramp(*shape: int) -> Any:
    return jnp.sin(jnp.arange(float(np.prod(shape)))).reshape(shape)


def _linen(name: str) -> Any:
    nn = pytest.importorskip("flax.linen")

    class Cnn(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.Conv(3, (3, 3))(x))
            x = nn.max_pool(nn.GroupNorm(1)(x), (2, 2), (2, 2))
            x = nn.avg_pool(nn.Conv(4, (2, 2), feature_group_count=1, strides=2)(x), (2, 2))
            return nn.Dense(2)(x.reshape(x.shape[0], -1))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any, deterministic: bool = False) -> Any:
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x), mask=nn.make_causal_mask(x[..., 0]))
            y = nn.Dense(16)(nn.LayerNorm()(x))
            return x + nn.Dropout(0.5)(nn.Dense(8)(nn.gelu(y)), deterministic=deterministic)

    class Transformer(nn.Module):
        @nn.compact
        def __call__(self, tokens: Any, deterministic: bool = False) -> Any:
            x = nn.Embed(5, 8)(tokens)
            x = nn.remat(Block, static_argnums=(2,))()(x, deterministic)
            return nn.log_softmax(nn.Dense(5)(x))

    if name == "transformer":
        module, tokens = Transformer(), jnp.arange(8).reshape(2, 4) % 5
        params = module.init(jax.random.key(0), tokens, True)

        def loss(params: Any, tokens: Any, key: Any) -> Any:
            scores = module.apply(params, tokens, rngs={"dropout": key})
            return -jnp.take_along_axis(scores, tokens[..., None], -1).mean()

        return loss, params, tokens, jax.random.key(1, impl="rbg")
    if name == "batch norm":
        module, x = nn.BatchNorm(use_running_average=False), _ramp(6, 3)
        variables = module.init(jax.random.key(0), x)

        def with_state(params: Any, x: Any) -> Any:
            out, state = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return (out**2).sum() + state["batch_stats"]["mean"].sum()

        return with_state, variables["params"], x
    modules = {
        "dense": (nn.Dense(3), _ramp(2, 4)), "cnn": (Cnn(), _ramp(2, 8, 8, 1)),
        "layer norm": (nn.LayerNorm(), _ramp(2, 4)),
        "attention": (nn.MultiHeadDotProductAttention(2), _ramp(2, 5, 8)),
        "lstm": (nn.RNN(nn.LSTMCell(4)), _ramp(2, 5, 3)),
    }  # fmt: skip
    return _of_linen(*modules[name])


def _nnx(name: str) -> Any:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(3, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs), jnp.tanh, nnx.Linear(4, 2, rngs=rngs)
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    return (lambda params, x: (nnx.merge(graph, params, rest)(x) ** 2).mean()), params, _ramp(5, 3)


def _equinox(name: str) -> Any:
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(jax.random.key(0), 2)
    if name == "equinox gru":
        model = eqx.nn.GRUCell(3, 4, key=keys[0])

        def loss(params: Any, xs: Any) -> Any:
            cell = eqx.combine(params, static)
            return (lax.scan(lambda h, x: (cell(x, h), None), jnp.zeros(4), xs)[0] ** 2).sum()
    else:
        model = eqx.nn.Sequential(
            [
                eqx.nn.MLP(3, 4, 8, 2, activation=jax.nn.relu, key=keys[0]),
                eqx.nn.LayerNorm(4),
                eqx.nn.Lambda(jax.nn.silu),
            ]
        )

        def loss(params: Any, xs: Any) -> Any:
            return (jax.vmap(eqx.combine(params, static))(xs) ** 2).sum()

    params, static = eqx.partition(model, eqx.is_inexact_array)
    return loss, params, _ramp(5, 3)


MODELS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(["dense", "cnn", "layer norm", "batch norm", "attention", "lstm", "transformer"], _linen),
    "nnx": _nnx,
    **dict.fromkeys(["equinox mlp", "equinox gru"], _equinox),
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    fun, *args = MODELS[name](name)
    expected = jax.jit(jax.value_and_grad(fun), **FAST)(*args)
    ours = tg.value_and_grad(tg.from_jax(fun))
    undecorated = [ours] if name in ("dense", "layer norm", "batch norm", "nnx", "equinox mlp") else []
    for run in (*undecorated, tg.jit(ours, **FAST)):
        actual = run(*args)
        assert jax.tree.structure(actual) == jax.tree.structure(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), actual, expected)


def test_a_pooling_finds_its_maximum_again() -> None:
    """XLA may compute what a pooling reads once for the value and once for the gradient: rounded in the same way."""
    fun, params, x = MODELS["cnn"]("cnn")
    ours, theirs = tg.jit(tg.grad(tg.from_jax(fun)), **FAST), jax.jit(jax.grad(fun), **FAST)
    rng = np.random.default_rng(0)
    for _ in range(12):
        x = rng.normal(size=x.shape).astype(np.float32)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), ours(params, x), theirs(params, x)
        )


def test_second_derivative_of_a_model() -> None:
    fun, params, x = MODELS["lstm"]("lstm")
    direction = jax.tree.map(jnp.ones_like, params)
    dot = lambda a, b: sum(jnp.vdot(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))  # noqa: E731
    expected = jax.jit(jax.grad(lambda p: dot(jax.grad(fun)(p, x), direction)), **FAST)(params)
    ours = tg.from_jax(fun)
    actual = tg.jit(lambda p: tg.hvp(lambda p: ours(p, x), (p,), (direction,)), **FAST)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), actual, expected)


def test_a_module_itself() -> None:
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    x = jnp.arange(3.0)
    np.testing.assert_allclose(tg.from_jax(model)(x), model(x), rtol=1e-6)
    expected = jax.grad(lambda x: model(x).sum())(x)
    np.testing.assert_allclose(tg.grad(lambda x: tg.from_jax(model)(x).sum())(x), expected, rtol=1e-6)


# -- messages


def _message(kind: type[BaseException], run: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(kind) as caught:
        run()
    for part in (*parts, "test_interop.py"):
        assert part in str(caught.value), f"{part!r} is not in: {caught.value}"


def test_a_primitive_without_a_rule() -> None:
    def f(x: Any) -> Any:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x) * x

    ours = tg.from_jax(f)
    assert float(ours(0.0)) == 0.0
    parts = "pure_callback(f32[", "jax.lax.stop_gradient", "jax.custom_vjp"
    _message(NotImplementedError, lambda: tg.grad(ours)(1.0), *parts)
    remedied = jax.custom_vjp(f)
    remedied.defvjp(lambda x: (f(x), x), lambda x, ct: (ct * (jnp.sin(x) + x * jnp.cos(x)),))
    expected = np.sin(0.5) + 0.5 * np.cos(0.5)
    assert float(tg.grad(tg.from_jax(lambda x: remedied(x)))(0.5)) == pytest.approx(expected)


def test_a_function_kept_from_an_earlier_use_names_the_line_of_this_one() -> None:
    """Short, and with a body in a body."""

    def incomplete(a: Any) -> Any:
        return jax.scipy.special.betainc(a, 1.0, 0.4)

    for fun in (incomplete, lambda a: jax.lax.cond(a > 0, incomplete, jnp.sin, a)):
        f = tg.from_jax(fun)

        def first(a: Any, f: Any = f) -> Any:
            return f(a)

        def second(a: Any, f: Any = f) -> Any:
            return f(a)

        for user in (first, second, tg.jit(second)):
            for differentiate in (tg.grad, tg.hessian, lambda g: lambda x: tg.jvp(g, (x,), (1.0,))):
                with pytest.raises(
                    NotImplementedError, match=rf"^betainc at .*test_interop.py:\d+ \({user.__name__}\)"
                ):
                    differentiate(user)(2.0)


def test_not_traceable() -> None:
    branch = tg.from_jax(lambda x: x if x > 0 else -x)
    _message(TypeError, lambda: branch(1.0), "from_jax: <lambda>", "jax.lax.cond")
    _message(TypeError, lambda: tg.from_jax(3), "from_jax: fun is", "not a function")
    _message(TypeError, lambda: tg.from_jax(lambda x: {"a": "b"})(1.0), "['a']", "str 'b'", "not an array")


def test_a_closed_over_tracer() -> None:
    def outer(w: Any) -> Any:
        return tg.from_jax(lambda x: jnp.sin(x) * w)(1.0)

    _message(tg.TracerError, lambda: tg.grad(outer)(2.0), "not among its arguments", "Pass it to the function")


def test_a_batched_while_stops_where_each_element_does() -> None:
    def doubled(v: Any) -> Any:
        return lax.while_loop(lambda c: c[0].sum() < 30.0, lambda c: (c[0] * 2, c[1] + 1), (v, 0))

    batch = jnp.arange(1.0, 7.0).reshape(3, 2)
    for f, x in (
        (jax.vmap(doubled), batch),
        (jax.scipy.special.exp1, batch),
        (jax.vmap(jax.vmap(doubled)), batch[..., None]),
    ):
        for ours, theirs in zip(jax.tree.leaves(tg.from_jax(f)(x)), jax.tree.leaves(f(x)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_while_has_no_reverse() -> None:
    f = tg.from_jax(lambda x: lax.while_loop(lambda c: c < 3, lambda c: c * x, x))
    assert float(f(2.0)) == 4.0
    _message(TypeError, lambda: tg.grad(f)(2.0), "while_loop", "scan")


# -- export

_READ = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tracegrad":
            raise ImportError("tracegrad is not installed here")
sys.meta_path.insert(0, Forbidden())
import jax, numpy as np
from jax import export
for path in sys.argv[1:]:
    program = export.deserialize(bytearray(open(path, "rb").read()))
    print(np.asarray(program.call(np.ones((3, 2), np.float32), np.ones((4, 3), np.float32))).sum())
assert "tracegrad" not in sys.modules
"""


def test_export_runs_without_the_package(tmp_path: Any) -> None:
    w, x = np.ones((3, 2), np.float32), np.ones((4, 3), np.float32)
    paths = []
    for name, fun in (("value", _ours), ("gradient", tg.jit(tg.grad(_ours)))):
        program = tg.export(fun, platforms=["cpu", "cuda"])(jax.ShapeDtypeStruct(w.shape, w.dtype), x)
        assert program.platforms == ("cpu", "cuda") and "stablehlo" in program.mlir_module()
        paths.append(tmp_path / name)
        paths[-1].write_bytes(program.serialize())
    done = subprocess.run([sys.executable, "-c", _READ, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values = [float(line) for line in done.stdout.split()]
    np.testing.assert_allclose(values, [_theirs(w, x), jax.grad(_theirs)(w, x).sum()], rtol=1e-5)


def test_export_arguments() -> None:
    scaled = tg.export(lambda x, n: x * n, static_argnums=1)(np.ones(2, np.float32), 3)
    assert scaled.call(np.ones(2, np.float32)).tolist() == [3.0, 3.0]
    from jax import export

    (size,) = export.symbolic_shape("n")
    symbolic = jax.ShapeDtypeStruct((size, 2), np.float32)
    _message(NotImplementedError, lambda: tg.export(tnp.sum)(symbolic), "symbolic shape (n, 2)", "one for each size")
    _message(TypeError, lambda: tg.export(tnp.sum)("text"), "argument [0] of sum", "static_argnums")
    _message(TypeError, lambda: tg.export(3), "export: fun is", "not a function")
