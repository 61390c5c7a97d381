"""NumPy's protocols, dtypes and promotion, array methods, the number of nodes, and what goes wrong."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message, check_value

RNG = np.random.default_rng(2)
A = RNG.normal(size=(3, 4)).astype(np.float32)
B = RNG.normal(size=(4,)).astype(np.float32)

# Each is called with a traced `x` inside a recording, and with a NumPy array outside.
NUMPY: list[Any] = [
    np.tanh,
    lambda x: np.add(A, x),
    lambda x: A + x,
    lambda x: jnp.asarray(A) + x if not isinstance(x, np.ndarray) else A + x,
    lambda x: A @ x.T,
    lambda x: np.float32(2) * x,
    lambda x: np.add.reduce(x),
    lambda x: np.multiply.reduce(x, axis=1, keepdims=True),
    lambda x: np.maximum.reduce(x, 1),
    lambda x: np.add.accumulate(x, axis=1),
    lambda x: np.multiply.outer(x, B),
    lambda x: np.divmod(x, 0.7),
    lambda x: np.sum(x, axis=0),
    lambda x: np.mean(x, 1, keepdims=True),
    lambda x: np.concatenate([x, A]),
    lambda x: np.stack([x, x], -1),
    lambda x: np.where(x > 0, x, 0.0),
    lambda x: np.einsum("ij,kj->ik", x, A),
    lambda x: np.linalg.norm(x, axis=1),
    lambda x: np.fft.fft(x).real,
    lambda x: np.interp(x, [-1.0, 1.0], [0.0, 2.0]),
    lambda x: np.frexp(x),
    lambda x: np.clip(x, -0.5, 0.5),
    lambda x: np.pad(x, 1, mode="edge"),
    lambda x: np.zeros_like(x),
    lambda x: np.split(x, 2, axis=1),
    lambda x: np.linspace(x, 1.0, 3),
    lambda x: np.sort(x, axis=0),
    lambda x: np.matmul(x, B),
    lambda x: np.broadcast_to(x, np.shape(np.stack([x, x]))),
]


@pytest.mark.parametrize("case", NUMPY)
def test_numpy_functions_record(case: Any) -> None:
    expected = case(A)
    actual = tg.grad(lambda one, x: (one, case(x)), has_aux=True)(1.0, A)[1]
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


SCIPY: list[Any] = [
    lambda x: special.expit(x),
    lambda x: special.erfinv(x),
    lambda x: special.psi(x),
    lambda x: special.xlogy(x, x),
    lambda x: special.gammainc(2.0, x),
    lambda x: special.betainc(2.0, 3.0, x),
    lambda x: special.i0e(x),
    lambda x: special.jv(2, x),
]


@pytest.mark.parametrize("case", SCIPY)
def test_scipy_ufuncs_record(case: Any) -> None:
    x, step = 0.4, 1e-6
    expected = (case(x + step) - case(x - step)) / (2 * step)
    np.testing.assert_allclose(tg.grad(lambda x: case(x * 1.0))(x), expected, rtol=1e-5)
    with pytest.raises(TypeError, match=r"the ufunc kv on a traced value .* nor has tracegrad.scipy.special"):
        tg.grad(lambda x: special.kv(2, x))(x)


METHODS: list[Any] = [
    lambda x: x.sum(),
    lambda x: x.sum(0),
    lambda x: x.mean(axis=1, keepdims=True),
    lambda x: x.reshape(2, -1),
    lambda x: x.reshape((2, -1)),
    lambda x: x.reshape(-1),
    lambda x: x.reshape(4, 3, order="F"),
    lambda x: x.astype(np.float16),
    lambda x: x.transpose(),
    lambda x: x.transpose(1, 0),
    lambda x: x.transpose((1, 0)),
    lambda x: x.T,
    lambda x: x.flatten(),
    lambda x: x.ravel(),
    lambda x: x[None].squeeze(0),
    lambda x: x.swapaxes(0, 1),
    lambda x: x.argmax(axis=1),
    lambda x: x.argmin(),
    lambda x: x.clip(-0.5, 0.5),
    lambda x: x.clip(max=0.3),
    lambda x: x.dot(B),
    lambda x: x.std(),
    lambda x: x.var(0),
    lambda x: x.min(1),
    lambda x: x.max(),
    lambda x: x.prod(),
    lambda x: (x > 0).any(1),
    lambda x: (x > 9).all(),
    lambda x: x.cumsum(1),
    lambda x: x.cumprod(0),
    lambda x: x.take(np.asarray([0, 2]), axis=0),
    lambda x: x.repeat(2, axis=1),
    lambda x: x.round(1),
    lambda x: x.conj(),
    lambda x: x.diagonal(1),
    lambda x: x.trace(),
    lambda x: x.argsort(0),
    lambda x: x.copy(),
    lambda x: (x > 0).nonzero(),
    lambda x: x.mT if hasattr(x, "mT") else x.T,
    lambda x: abs(x) ** 0.5,
    lambda x: x.__round__(1) if hasattr(x, "__round__") else x.round(1),
    lambda x: 2**x,
    lambda x: x**3,
    lambda x: x // 0.3,
    lambda x: divmod(x, 0.3),
    lambda x: -x % 1,
    lambda x: x.real + x.imag,
]


def test_methods() -> None:
    def recorded(x: Any) -> Any:
        return tg.grad(lambda one, x: (one, [case(x) for case in METHODS]), has_aux=True)(1.0, x)[1]

    for i, (a, e) in enumerate(zip(recorded(A), [case(A) for case in METHODS], strict=True)):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(e), strict=True):
            np.testing.assert_allclose(np.asarray(x), y, rtol=1e-3, atol=1e-5, err_msg=f"method {i}")


def test_lists_with_traced_values() -> None:
    check_value(lambda x: tnp.asarray([x, 2 * x, 1.0]), lambda x: np.array([x, 2 * x, 1.0], np.float32), np.float32(3))
    check_value(
        lambda x: tnp.array([[x[0], 1], [x[1], x[2]]]), lambda x: np.array([[x[0], 1], [x[1], x[2]]], np.float32), B
    )


# -- dtypes, as jax.numpy has them


TYPED = [np.bool_, np.int8, np.uint8, np.int32, np.float16, jnp.bfloat16, np.float32, np.complex64]
ONE: list[Any] = [
    lambda np, x: np.sum(x),
    lambda np, x: np.prod(x),
    lambda np, x: np.mean(x),
    lambda np, x: np.var(x),
    lambda np, x: np.std(x),
    lambda np, x: np.cumsum(x),
    lambda np, x: np.cumprod(x),
    lambda np, x: np.max(x),
    lambda np, x: np.argmax(np.real(x)),
    lambda np, x: np.count_nonzero(x),
    lambda np, x: np.any(x),
    lambda np, x: np.sum(x, dtype=np.float32),
    lambda np, x: np.exp(x),
    lambda np, x: np.linalg.norm(x),
    lambda np, x: np.power(x, 2),
    lambda np, x: np.power(x, 2.0),
    lambda np, x: np.power(x, 0.5),
    lambda np, x: np.clip(np.real(x), 0, 1),
    lambda np, x: np.where(x == 0, x, 1),
    lambda np, x: x @ x,
    lambda np, x: np.concatenate([x, np.ones(2, "float32")]),
    lambda np, x: np.stack([x, np.ones(2, "int32")]),
    lambda np, x: np.full_like(x, 1),
    lambda np, x: np.tril(np.stack([x, x])),
    lambda np, x: np.pad(x, 1),
    lambda np, x: np.einsum("i,j", x, x),
    lambda np, x: np.matmul(x, np.ones(2, "int32")),
    lambda np, x: np.average(x),
    lambda np, x: np.logical_not(x),
    lambda np, x: np.isclose(x, x),
    lambda np, x: np.median(np.real(x)),
    lambda np, x: np.round(x, 1),
    lambda np, x: np.nansum(x),
    lambda np, x: np.linspace(x, 1, 3),
]


@pytest.mark.parametrize("dtype", TYPED)
def test_dtypes_are_those_of_jax_numpy(dtype: Any) -> None:
    x = np.array([0, 1]).astype(dtype)
    aval = jax.ShapeDtypeStruct(x.shape, x.dtype)
    wrong = []
    for i, case in enumerate(ONE):
        try:
            expected = jax.eval_shape(lambda x, case=case: case(jnp, x), aval)
        except (TypeError, ValueError, Warning):
            continue  # not defined for this dtype
        tape = tg.trace(lambda x, case=case: case(tnp, x))(x)
        actual = tape.outputs[0].aval
        if (actual.shape, actual.dtype) != (expected.shape, expected.dtype):
            wrong.append((i, actual, expected))
    assert not wrong


CREATED: list[Any] = [
    lambda np: np.zeros(2),
    lambda np: np.ones(2, int),
    lambda np: np.full(2, 1),
    lambda np: np.full(2, 1.0),
    lambda np: np.full((), 2.5),
    lambda np: np.arange(3),
    lambda np: np.arange(3.0),
    lambda np: np.arange(3, dtype=jnp.bfloat16),
    lambda np: np.linspace(0, 1, 3),
    lambda np: np.eye(2),
    lambda np: np.eye(2, dtype=bool),
    lambda np: np.tri(2),
    lambda np: np.asarray(1),
    lambda np: np.asarray(1.0),
    lambda np: np.asarray([1, 2]),
    lambda np: np.asarray([1, 2.5]),
    lambda np: np.asarray([True]),
    lambda np: np.asarray([1j]),
    lambda np: np.asarray([1, 2], dtype=np.float16),
    lambda np: np.asarray(3, dtype=np.int8),
    lambda np: np.indices((2, 2)),
    lambda np: np.zeros((2, 0), jnp.bfloat16),
    lambda np: np.logspace(0, 1, 3),
    lambda np: np.array([]),
]


def test_created_dtypes_are_those_of_jax_numpy() -> None:
    recorded = tg.jit(lambda: [case(tnp) for case in CREATED])()
    for i, case in enumerate(CREATED):
        expected, eager = case(jnp), case(tnp)
        assert isinstance(eager, jax.Array)
        assert (eager.shape, eager.dtype) == (expected.shape, expected.dtype), i
        assert (recorded[i].shape, recorded[i].dtype) == (expected.shape, expected.dtype), i
        np.testing.assert_allclose(np.asarray(recorded[i], np.complex64), np.asarray(expected, np.complex64), rtol=1e-6)


def test_result_types() -> None:
    assert tnp.result_type(A, 1.0) == np.float32
    assert tg.trace(lambda x: (x, tnp.zeros(2, tnp.result_type(x, np.int32))))(A).outputs[1].aval.dtype == np.float32
    assert tnp.issubdtype(tnp.bfloat16, tnp.floating)


def test_64_bits_are_said_to_be_32() -> None:
    with pytest.warns(UserWarning, match="float64 was asked for, float32 is given"):
        assert tnp.zeros(2, np.float64).dtype == np.float32
    with jax.enable_x64(True):
        assert tnp.zeros(2).dtype == np.float64
        assert tnp.sum(np.ones(2, np.int8)).dtype == np.int64


# -- nodes


Q = np.ones((2, 3, 4, 5), np.float32)
NODES: list[tuple[Any, tuple[Any, ...], list[str]]] = [
    (lambda q, k: tnp.einsum("bhqd,bhkd->bhqk", q, k), (Q, Q), ["dot_general"]),
    (lambda p, v: tnp.einsum("bhqk,bhkd->bhqd", p, v), (Q[..., :4], Q), ["dot_general"]),
    (lambda q, k: tnp.einsum("bqhd,bkhd->bhqk", q, k), (Q, Q), ["dot_general"]),
    (lambda x, y: tnp.einsum("ij,jk->ki", x, y), (A, A.T), ["dot_general"]),
    (lambda x, y: tnp.einsum("ij,ij->ij", x, y), (A, A), ["mul"]),
    (lambda x, y: tnp.einsum("bqhd,bkhd->bqhk", x, y), (Q, Q), ["dot_general", "transpose"]),
    (lambda x, y: x @ y, (Q, np.ones((5, 2), np.float32)), ["dot_general"]),
    (lambda x, y: x @ y, (Q, Q.swapaxes(2, 3)), ["dot_general"]),
    (lambda x, y: x @ y, (np.ones((3, 4), np.float32), Q), ["dot_general", "transpose"]),
    (lambda x: x.sum(), (A,), ["sum"]),
    (lambda x: x.mean(), (A,), ["sum", "div"]),
    (lambda x: x.var(0), (A,), ["var"]),
    (lambda x: x**2, (A,), ["integer_pow"]),
    (lambda x: x**0.5, (A,), ["sqrt"]),
    (lambda x: tnp.zeros_like(x), (A,), ["broadcast_in_dim"]),
]


@pytest.mark.parametrize(("fn", "args", "expected"), NODES)
def test_nodes(fn: Any, args: Any, expected: list[str]) -> None:
    assert [node.op.name for node in tg.trace(fn)(*args).nodes] == expected


def test_a_changing_number_does_not_recompile(compiles: Any) -> None:
    fn = tg.grad(lambda x, s: (x * tnp.full(4, s) + tnp.clip(x, -s, s)).sum())
    fn(B, 0.5)
    compiles()
    assert np.allclose(fn(B, 0.25), 0.25 + (np.abs(B) < 0.25))
    assert compiles() == 0


# -- what goes wrong


X = A
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda x: tnp.sum([1, "a"]), TypeError, r"sum: list \[1, 'a'\] is no nested list of numbers"),
    (lambda x: tnp.sum(x, axis=2), ValueError, "sum: axis 2 of an array of 2 axes .* Use one from -2 to 1"),
    (lambda x: tnp.sum(x, axis=(0, -2)), ValueError, "sum: axis .* names an axis twice"),
    (lambda x: tnp.sum(x, axis="0"), TypeError, "sum: axis must be an integer"),
    (lambda x: tnp.sum(x, out=A), TypeError, "sum: the argument out=.* is not supported"),
    (lambda x: tnp.max(x[:0], axis=0), ValueError, "is empty along axes"),
    (lambda x: tnp.max(x, where=x > 0), ValueError, "Pass `initial`"),
    (lambda x: tnp.reshape(x, (5, -1)), ValueError, "reshape: an array of shape .3, 4. .12 elements. does not fit"),
    (lambda x: tnp.reshape(x, (5, 2)), ValueError, "cannot reshape"),
    (lambda x: tnp.reshape(x, (2.5, 2)), TypeError, "each size of a shape must be an integer"),
    (lambda x: tnp.transpose(x, (0, 0)), ValueError, "are not a permutation"),
    (lambda x: tnp.squeeze(x, 0), ValueError, "squeeze: axis 0 of shape .* is not of size 1"),
    (lambda x: tnp.concatenate([]), ValueError, "no array to join"),
    (lambda x: tnp.concatenate([x, x[0]]), ValueError, "differ along another axis"),
    (lambda x: tnp.concatenate(1.0), TypeError, "concatenate takes a sequence of arrays"),
    (lambda x: tnp.stack([x, x[0]]), ValueError, "stack: arrays of shapes"),
    (lambda x: tnp.split(x, 3, axis=1), ValueError, "do not divide in 3 equal parts .* Use array_split"),
    (lambda x: tnp.pad(x, 1, "average"), ValueError, "pad: mode='average'.*Use one of constant"),
    (lambda x: tnp.pad(x, 1, lambda v: v), ValueError, "pad: mode=<function"),
    (lambda x: tnp.pad(x, 1, "mean", stat_length=-1), ValueError, "pad: stat_length=-1"),
    (lambda x: tnp.pad(x, ((1, 2), (3, 4), (5, 6))), ValueError, "a pair an axis"),
    (lambda x: tnp.pad(x, -1), ValueError, "is negative"),
    (lambda x: tnp.matmul(x, x), ValueError, "the contracted sizes differ|do not fit"),
    (
        lambda x: tnp.matmul(x, np.ones((2, 3, 4), np.float32)),
        ValueError,
        "matmul: shapes .3, 4. and .2, 3, 4. do not fit",
    ),
    (lambda x: tnp.matmul(x, 2.0), ValueError, "a scalar is no matrix"),
    (lambda x: tnp.einsum("ij,jk", x, x), ValueError, "an axis has size 4 in one operand and 3 in another"),
    (lambda x: tnp.einsum("ij,jk", x), ValueError, "labels for 2 operands, and 1 operands"),
    (lambda x: tnp.einsum("ijk", x), ValueError, "labels 3 axes of an operand that has 2"),
    (lambda x: tnp.einsum("ij->ii", x), ValueError, "has a label twice"),
    (lambda x: tnp.einsum("ij->k", x), ValueError, "label 'k' is in no operand"),
    (lambda x: tnp.einsum("...j->j", x), ValueError, "Add it after '->'"),
    (lambda x: tnp.linalg.norm(x, "none"), ValueError, "norm: ord='none'"),
    (lambda x: tnp.power(tnp.arange(3), -1), TypeError, "to the power -1"),
    (lambda x: tnp.asarray([[1, 2], [3]]), ValueError, "rows differ in length"),
    (lambda x: tnp.asarray(["a"]), TypeError, "no nested list of numbers"),
    (lambda x: tnp.asarray([x, x[0]]), ValueError, "differ in length|in one list"),
    (lambda x: tnp.arange(0, 3, 0), ValueError, "step is 0"),
    (lambda x: tnp.where(x > 0, x), TypeError, "Give both values or neither"),
    (lambda x: tnp.repeat(x, [1, 2], axis=0), ValueError, "Give one an element"),
    (lambda x: tnp.quantile(x, 1.5), ValueError, "is not from 0 to 1"),
    (lambda x: tnp.quantile(x, 0.5, weights=x), ValueError, "Pass method='inverted_cdf'"),
    (lambda x: tnp.cross(x, x), ValueError, "Give both 3, or both 2"),
    (lambda x: tnp.average(x, axis=0, weights=np.ones(7)), ValueError, "average: weights of shape"),
    (lambda x: tnp.add(x, tnp.ones(3)), ValueError, "do not broadcast together"),
]


@pytest.mark.parametrize(("fn", "kind", "message"), ERRORS)
def test_errors_name_the_line(fn: Any, kind: type[Exception], message: str) -> None:
    for run in (fn, tg.trace(fn)):
        check_message(functools.partial(run, A), kind, message)


RECORDED_ERRORS: list[tuple[Any, str]] = [
    (lambda x: np.add(x, x, out=np.zeros((3, 4), np.float32)), "Write `a = a \\+ x`"),
    (lambda x: np.add.at(x, 0, 1), "numpy.add.at on a traced value"),
    (lambda x: np.add(x, x, where=x > 0), "does not take where="),
    (lambda x: np.isnat(x), "tracegrad.numpy has no isnat"),
    (lambda x: np.array2string(x), "numpy.array2string on a traced value"),
    (lambda x: np.sum(x, out=np.zeros((), np.float32)), "the argument out="),
]


@pytest.mark.parametrize(("fn", "message"), RECORDED_ERRORS)
def test_what_numpy_asks_and_is_not_there(fn: Any, message: str) -> None:
    check_message(lambda: tg.trace(fn)(A), TypeError, message)


@pytest.mark.parametrize(
    "fn", [lambda x: tnp.where(x > 0), lambda x: tnp.zeros(x[0, 0].astype(int)), lambda x: tnp.arange(x[0, 0])]
)
def test_values_that_shapes_need(fn: Any) -> None:
    with pytest.raises(TypeError, match="traced value"):
        tg.jit(fn)(A)


def test_inside_jax_transformations() -> None:
    x = jnp.asarray(A)
    assert np.allclose(jax.jit(tnp.sum)(x), A.sum(), rtol=1e-5)
    assert np.allclose(jax.vmap(lambda r: tnp.einsum("i,i", r, r))(x), (A * A).sum(1), rtol=1e-5)
    assert np.allclose(
        jax.vmap(tg.grad(lambda r: tnp.linalg.norm(r)))(x), A / np.linalg.norm(A, axis=1, keepdims=True), rtol=1e-5
    )
