"""Every op of the package that has a derivative is differentiated in a test, twice, against JAX and differences.

The elementwise ops and the special functions have tables of their own, which are complete by themselves; here are all
the others. An op that is added without a case fails `test_every_op_has_a_case`.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import tests.ops.test_elementwise as elementwise
import tracegrad
import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, x64
from tracegrad import ops, parallel
from tracegrad.op import Op
from tracegrad.ops import bessel, special
from tracegrad.tape import Tape

HOST = np
RNG = np.random.default_rng(0)
V = RNG.normal(size=4)
M = RNG.normal(size=(3, 4))
SQUARE = RNG.normal(size=(3, 3)) + 3 * np.eye(3)
POSITIVE = SQUARE @ SQUARE.T
BATCH = np.stack([SQUARE, SQUARE.T + 1.0])
COMPLEX = RNG.normal(size=(3, 3)) + 1j * RNG.normal(size=(3, 3)) + 3 * np.eye(3)
Z = RNG.normal(size=5) + 1j * RNG.normal(size=5)
IMAGE = RNG.normal(size=(2, 5, 6, 4))
KERNEL = RNG.normal(size=(3, 2, 2, 6))


class Case(NamedTuple):
    """A function, the same over JAX where JAX has it, arguments, and the order of derivative there is."""

    ours: Callable[..., Any]
    args: tuple[Any, ...]
    theirs: Callable[..., Any] | None = None
    order: int = 2


def both(build: Callable[[Any, Any, Any], Callable[..., Any]], *args: Any, order: int = 2) -> Case:
    """A formula over an array namespace, a `lax` namespace and a namespace of activations."""
    return Case(build(tnp, tg.lax, tg.nn), args, build(jnp, jax.lax, jax.nn), order)


def pool(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    window: Any = {"window_dimensions": (1, 2, 2, 1), "window_strides": (1, 2, 1, 1), "padding": "SAME"}
    return lambda x: (
        lax.reduce_window(x, -math.inf, lax.max, **window), lax.reduce_window(x, 0.0, lax.add, **window),
    )  # fmt: skip


def convolution(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    return lambda x, k: lax.conv_general_dilated(
        x, k, (2, 1), [(1, 0), (0, 2)], (1, 2), (2, 1), ("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


def windows(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    read = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0, 1))
    write = jax.lax.ScatterDimensionNumbers((1,), (0,), (0, 1))
    at = jnp.array([[0, 1], [2, 0]])
    return lambda x, u: (lax.gather(x, at, read, (1, 3)), lax.scatter_add(x, at, u, write))


def updates(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    rows = [0, 2]

    def f(x: Any, u: Any) -> Any:
        x = np.asarray(x)
        at = np.asarray(rows)
        all_kinds = x[at, 1:], x.at[at].set(u), x.at[at].add(u), x.at[at].multiply(u, unique_indices=True)
        return all_kinds if x.dtype.kind == "c" else (*all_kinds, x.at[at].max(u), x.at[at].min(u))

    return f


def no_windows(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    nowhere = HOST.zeros(0, int)
    return lambda x: (np.asarray(x)[nowhere], np.asarray(x).at[nowhere].add(1.0), np.take(x, nowhere, axis=1))


def moving(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    def f(x: Any) -> Any:
        a, b = np.split(x, 2, axis=1)
        joined = np.concatenate([b, a[:, ::-1]], axis=1)
        padded = np.pad(x.T, ((1, 0), (0, 2)))[::2]
        held = lax.optimization_barrier((x, x * x))
        return joined, padded, np.broadcast_to(x, (2, *x.shape)), np.reshape(x, (-1, 2)), held

    return f


def starts(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    return lambda x, u: (lax.dynamic_slice(x, (1, 0), (2, 3)), lax.dynamic_update_slice(x, u, (0, 1)))


def reductions(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    return lambda x: (
        np.max(x, 0), np.min(x, 1), np.prod(x, 1), np.sum(x), np.var(x, 0), np.std(x, 1), nn.logsumexp(x, 1),
    )  # fmt: skip


def arithmetic(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    """What is defined for complex numbers too, and for sums over no element."""
    return lambda x: (np.sum(x, 0), np.mean(x, 1), np.prod(x, 0), np.cumsum(x, 1), np.cumprod(x, 0), np.var(x, 1))


def scalars(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    def f(x: Any) -> Any:
        x = np.asarray(x)
        wide = np.broadcast_to(x, (2, 3)) * np.reshape(x, (1, 1))
        return np.sum(x), np.max(x), np.prod(x), wide, np.stack([x, x * x]), np.where(x > 0, x, 0), np.clip(x, 0, 5)

    return f


def cumulative(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    return lambda x: (
        np.cumsum(x, 1), np.cumprod(x, 1), lax.cummax(x, 1), lax.cummin(x, 0, reverse=True), lax.cumlogsumexp(x, 1),
    )  # fmt: skip


def sorting(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    return lambda x: (np.sort(x, 1), lax.top_k(x, 2)[0], lax.approx_max_k(x, 2)[0])


def spectral(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    def f(s: Any, a: Any) -> Any:
        values, vectors = np.linalg.eigh((s + np.swapaxes(np.conj(s), -1, -2)) / 2)
        u, sigma, vh = np.linalg.svd(a, full_matrices=False)
        return values, np.abs(vectors) ** 2, np.abs(u) ** 2, sigma, np.abs(vh) ** 2

    return f


def factors(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    def f(s: Any, a: Any) -> Any:
        q, r = np.linalg.qr(a)
        p = s @ np.swapaxes(np.conj(s), -1, -2)
        return (
            np.linalg.cholesky(p),
            q @ r[:, :1],
            np.abs(r),
            np.linalg.solve(a, s),
            np.linalg.det(a),
            np.linalg.pinv(a),
        )

    return f


def batches(np: Any, lax: Any, nn: Any) -> Callable[..., Any]:
    def f(a: Any) -> Any:
        p = a @ np.swapaxes(a, -1, -2)
        q, r = np.linalg.qr(a)
        u, s, vh = np.linalg.svd(a)
        values, vectors = np.linalg.eigh(p)
        solved = np.linalg.solve(a, a), np.linalg.inv(a), np.linalg.det(a), *np.linalg.slogdet(a)
        return np.linalg.cholesky(p), q, r, u, s, vh, values, vectors, *solved

    return f


def triangular(solve: Any, lu: Any, expm: Any) -> Callable[..., Any]:
    return lambda a, b: (solve(a, b, lower=True), lu(a)[0], expm(0.3 * a))


def scipy_case(*args: Any) -> Case:
    theirs = (jax.scipy.linalg.solve_triangular, lambda a: jax.lax.linalg.lu(a), jax.scipy.linalg.expm)
    ours = (tg.scipy.linalg.solve_triangular, lambda a: ops.lu_op(a), tg.scipy.linalg.expm)
    return Case(triangular(*ours), args, triangular(*theirs))


def bodies(x: Any) -> Any:
    block = tg.jit(lambda x: tnp.sin(x) * x)
    double = tg.custom_vjp(lambda x: x * x)
    double.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * x * ct,))
    looped, _ = tg.scan(lambda c, v: (c * tnp.cos(v), None), x[0], x)
    chosen = tg.cond(x[0] > 5.0, tnp.sin, tnp.cos, x)
    return block(x), tg.vmap(block)(x), tg.checkpoint(block)(x), double(x), looped, chosen, tg.tap("x", x)


def imported(x: Any) -> Any:
    @jax.custom_jvp
    def f(x: Any) -> Any:
        return jnp.sin(x)

    f.defjvp(lambda p, t: (jnp.sin(p[0]), t[0] * jnp.cos(p[0])))

    @jax.custom_vjp
    def g(x: Any) -> Any:
        return x * x

    g.defvjp(lambda x: (x * x, x), lambda x, ct: (2.0 * x * ct,))

    def solved(x: Any) -> Any:
        a = jnp.diag(x * x + 1.0)
        return jax.lax.custom_linear_solve(lambda y: a @ y, x, lambda mv, b: jnp.linalg.solve(a, b), symmetric=True)

    def h(x: Any) -> Any:
        return f(x), g(x), solved(x), checkpoint_name(x * x, "named")

    return h(x) if not isinstance(x, tg.Tracer) else tg.from_jax(h)(x)


def over_devices(x: Any) -> Any:
    ring = [(i, (i + 1) % len(V)) for i in range(len(V))]

    def device(x: Any) -> Any:
        given = parallel.all_gather(x, "i")
        return (
            tnp.sin(x) * tg.psum(x * x, "i"),
            parallel.psum_scatter(given * given, "i"),
            parallel.all_to_all(given * x, "i", 0, 0),
            parallel.ppermute(x, "i", ring),
            parallel.pmax(x * x, "i"),
            parallel.pmin(x, "i"),
        )

    return tg.pmap(device, "i")(x)


def over_a_mesh(x: Any) -> Any:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[: len(V)]), ("i",))
    rows, whole = jax.sharding.PartitionSpec("i"), jax.sharding.PartitionSpec()

    def device(x: Any) -> Any:
        return parallel.all_gather(tnp.sin(x), "i", tiled=True, to="invarying")

    mapped = parallel.shard_map(device, mesh=mesh, in_specs=rows, out_specs=whole)
    return mapped(x) * parallel.with_sharding_constraint(x * x, jax.sharding.NamedSharding(mesh, rows))


def jax_over_devices(x: Any) -> Any:
    extremes = [jnp.broadcast_to(v, x.shape) for v in (jnp.max(x * x), jnp.min(x))]
    return jnp.sin(x) * jnp.sum(x * x), len(V) * x * x, jnp.outer(x, x), jnp.roll(x, 1), *extremes


def samples(low: Any, high: Any) -> Any:
    key = tg.random.key(0)
    return (
        tg.random.uniform(key, (3,), minval=low, maxval=high),
        tg.random.truncated_normal(key, low, high, (3,)),
        tg.random.permutation(key, tnp.stack([low, high, low * high])),
    )


def losses(logits: Any) -> Any:
    labels = np.array([1, 0, 3])
    dense = tnp.asarray(np.eye(4)[labels] * 0.8 + 0.05)
    return (
        tg.nn.losses.binary_cross_entropy(logits, dense, from_logits=True),
        tg.nn.losses.sparse_categorical_cross_entropy(logits, labels, from_logits=True),
        tg.nn.losses.categorical_cross_entropy(logits, dense, from_logits=True),
    )


def jax_losses(logits: Any) -> Any:
    labels = np.array([1, 0, 3])
    dense = np.eye(4)[labels] * 0.8 + 0.05
    log = jax.nn.log_softmax(logits)
    binary = -jnp.mean(dense * jax.nn.log_sigmoid(logits) + (1 - dense) * jax.nn.log_sigmoid(-logits))
    return binary, -jnp.mean(jnp.take_along_axis(log, labels[:, None], 1)), -jnp.mean(jnp.sum(dense * log, 1))


CASES: dict[str, Case] = {
    "bodies": Case(bodies, (V,)),
    "imported from JAX": Case(imported, (V,), imported),
    "devices": Case(over_devices, (V,), jax_over_devices),
    "mesh": Case(over_a_mesh, (V,), lambda x: jnp.sin(x) * x * x),
    "samples": Case(samples, (-0.5, 1.2)),
    "losses": Case(losses, (M,), jax_losses),
    "convolution": both(convolution, IMAGE, KERNEL),
    "pooling": both(pool, IMAGE[:1]),
    "fft": both(
        lambda np, lax, nn: lambda z, x: (np.fft.fft(z), np.fft.rfft(x), np.fft.irfft(z), np.fft.ifft2(M * x)), Z, V
    ),
    "windows": both(windows, M, M[:2, :3]),
    "updates": both(updates, M, M[::2] * 1.5),
    "updates, complex": both(updates, COMPLEX, COMPLEX[::2] * 1.5j),
    "no windows": both(no_windows, M),
    "dot_general": both(
        lambda np, lax, nn: lambda x, y: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))), BATCH, BATCH[:, :, :2]
    ),
    "moving": both(moving, M),
    "moving, complex": both(moving, COMPLEX[:, :2]),
    "moving, empty": both(moving, np.zeros((0, 4))),
    "arithmetic, complex": both(arithmetic, COMPLEX),
    "arithmetic, empty": both(arithmetic, np.zeros((0, 4))),
    "scalars": both(scalars, np.float64(0.7)),
    "dot_general, complex": both(lambda np, lax, nn: lambda x, y: x @ y, COMPLEX, COMPLEX[:, :2]),
    "dot_general, empty": both(lambda np, lax, nn: lambda x, y: x @ y, M[:, :0], M[:0]),
    "convolution, empty": both(convolution, IMAGE[:0], KERNEL),
    "pooling, empty": both(pool, IMAGE[:0]),
    "starts": both(starts, M, M[:2, :3]),
    "reductions": both(reductions, M),
    "reductions, empty": both(
        lambda np, lax, nn: lambda x: (np.max(x, 1), np.min(x, 1), np.std(x, 1), nn.logsumexp(x, 1)), M[:0]
    ),
    "cumulative": both(cumulative, M),
    "cumulative, empty": both(cumulative, np.zeros((0, 4))),
    "softmax": both(lambda np, lax, nn: lambda x: (nn.softmax(x, 0), nn.log_softmax(x, 1)), M),
    "softmax, empty": both(lambda np, lax, nn: lambda x: (nn.softmax(x, 1), nn.log_softmax(x, 1)), M[:0]),
    "activations": both(
        lambda np, lax, nn: lambda x: (nn.gelu(x), nn.gelu(x, approximate=False), nn.silu(x), nn.softplus(x)), M
    ),
    "linear_recurrence": Case(lambda a, b: ops.linear_recurrence(a, b, axis=1), (M, M[::-1].copy())),
    "sorting": both(sorting, M),
    "sorting, empty": both(lambda np, lax, nn: lambda x: (np.sort(x, 1), lax.top_k(x, 2)[0]), M[:0]),
    "fft, empty": both(lambda np, lax, nn: lambda x: (np.fft.fft(x), np.fft.rfft(x), np.fft.irfft(x)), M[:0]),
    "no matrices": both(batches, BATCH[:0]),
    "no steps": Case(
        lambda c, x: tg.scan(lambda c, x: (c * x, c), c, x),
        (1.5, V[:0]),
        lambda c, x: jax.lax.scan(lambda c, x: (c * x, c), c, x),
    ),
    "spectral": both(spectral, POSITIVE, SQUARE),
    "eigenvalues": both(lambda np, lax, nn: lambda s: np.linalg.eigvalsh(s + np.swapaxes(s, -1, -2)), BATCH),
    "eigenvalues, complex": both(lambda np, lax, nn: np.linalg.eigvalsh, COMPLEX + COMPLEX.conj().T),
    "spectral, complex": both(spectral, COMPLEX + COMPLEX.conj().T, COMPLEX, order=1),
    "factors": both(factors, SQUARE, SQUARE + 1.0),
    "factors, complex": both(factors, COMPLEX, COMPLEX.T, order=1),
    "triangular, lu, expm": scipy_case(SQUARE, M),
    "eig": Case(
        lambda a: tnp.abs(tnp.linalg.eig(a)[0]) ** 2, (SQUARE,), lambda a: jnp.abs(jnp.linalg.eigvals(a)) ** 2, 1
    ),
    "cofactor": Case(lambda a: ops.cofactor_op(a), (SQUARE,), lambda a: jnp.linalg.det(a) * jnp.linalg.inv(a).T),
    "expm_frechet": Case(lambda a, e: tg.scipy.linalg.expm_frechet(a, e), (SQUARE / 9, SQUARE / 3), order=1),
    "sqrtm": Case(lambda a: tg.scipy.linalg.sqrtm(a).real, (POSITIVE,)),
    "sylvester": Case(lambda a, b, c: tg.scipy.linalg.solve_sylvester(a, b, c), (SQUARE, SQUARE.T, M[:, :3])),
    "polar": Case(lambda a: tg.scipy.linalg.polar(a), (SQUARE,)),
    "bessel_jn": Case(lambda x: tg.scipy.special.bessel_jn(x, v=2), (np.abs(V),)),
    "bessel": Case(
        lambda x: [f(k, x) for f in (bessel.jn, bessel.yn, bessel.iv, bessel.ive) for k in (0, 2)], (np.abs(V),)
    ),
    "solve_banded": Case(
        lambda ab, b: tg.scipy.linalg.solve_banded((1, 1), ab, b), (M[:, :3] + np.eye(3)[1][:, None] * 3, SQUARE)
    ),
    "fresnel, sici": Case(lambda x: (tg.scipy.special.fresnel(x), tg.scipy.special.sici(x)), (np.abs(V),)),
    "hyp2f1": Case(lambda x: special.hyp2f1(0.5, 1.5, 2.5, x), (np.array([0.1, 0.4]),), order=1),
}

WITHOUT = {
    "while": "has no reverse derivative: tests/test_control.py checks its message",
    "schur": "its rule says that it has no derivative: tests/scipy/test_linalg.py checks its message",
    "inverse_hessian": "its rule says that it has no derivative: tests/scipy/test_optimize.py checks its message",
    "hessenberg": "its rule says that it has no derivative: tests/scipy/test_linalg.py checks its message",
    "jax": "its rule says that the primitive of JAX has no rule: tests/test_interop.py checks its message",
    "gradient": "what the rules of other ops have appended, as one node: tests/test_remembered.py",
    "graph": "runs bodies over graphs: tests/test_graph_map.py differentiates them",
    "memory_budget": "runs a body, as a call does: tests/passes/test_budget.py differentiates one",
    "jax_effect": "prints and the like, through which cotangents pass: tests/test_interop.py",
    "jax_linear": "stands for linear primitives of JAX: tests/test_interop.py differentiates one",
    "weak": "changes a flag of a type: tests/test_interop.py differentiates through it",
    "random_gamma": "implicit derivative of samples: tests/test_interop.py",
    "random_gamma_grad": "the derivative of random_gamma; its rule says that it has none itself",
}


def registry() -> dict[str, Op]:
    """The ops of the package that have a derivative, by name."""
    found: dict[int, Op] = {}
    for info in pkgutil.walk_packages(tracegrad.__path__, "tracegrad."):
        if info.name.startswith("tracegrad.examples"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Op) and value.vjp is not None:
                found[id(value)] = value
    return {op.name: op for op in found.values()}


def names(tape: Tape) -> Iterator[str]:
    for node in tape.nodes:
        yield node.op.name
        for value in node.params.values():
            for body in value if isinstance(value, tuple) else (value,):
                if isinstance(body, Tape):
                    yield from names(body)


def test_every_op_has_a_case() -> None:
    tabled = {op.name for op in elementwise.OPS.values()}
    tabled |= {op.name for module in (bessel, special) for op in vars(module).values() if isinstance(op, Op)}
    with x64():
        for case in CASES.values():
            first = tg.grad(lambda args, f=case.ours: _total(f(*args)))
            second = tg.grad(lambda args, g=first: _total(g(args)))
            tabled |= set(names(tg.trace(first if case.order == 1 else second)(case.args)))
    missing = set(registry()) - tabled - set(WITHOUT)
    assert not missing, f"these ops have a derivative and no case: {sorted(missing)}"
    assert not set(WITHOUT) - set(registry())


def _total(outputs: Any) -> Any:
    return sum((tnp.sum(tnp.real(x * x)) for x in jax.tree.leaves(outputs)), 0.0)


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    case = CASES[name]
    check_grads(case.ours, *case.args, jax_fn=case.theirs, order=case.order)
