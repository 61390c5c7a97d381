"""Indexing against NumPy, its derivatives against JAX's."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_grads, check_value, modes, x64
from tracegrad import ops

X = np.random.default_rng(0).normal(size=(3, 4, 5))
A = np.array
MASK = np.random.default_rng(1).uniform(size=(3, 4, 5)) > 0.5
ROWS = A([True, False, True])

# Index expressions for an array of shape (3, 4, 5).
INDICES: list[Any] = [
    # basic
    0, -1, np.int64(2), (1, 2), (1, 2, 3), (-1, -2, -3), (), ..., None, (..., 0), (0, ...), (0, ..., -1),
    slice(None), slice(1, None), slice(None, -1), slice(None, None, 2), slice(None, None, -1), slice(2, None, -2),
    slice(5, 1), slice(-100, 100), (slice(None), slice(1, 4, 2)), (slice(None), 1, slice(None, None, -2)),
    (None, 0), (0, None, slice(1, 3)), (..., None), (slice(None), None, ..., None), (slice(2, 0, -1), ..., slice(0, 0)),
    (0, slice(3, None, -3), slice(1, None, 3)), (slice(np.int64(1), np.int32(3)), A(1)),
    # arrays of integers
    [0, 2], [[0, 1], [2, 0]], A([-1, -3]), A([], np.int64), [], A(1), (A([0, 2]),), ([0, 1], [2, 3]),
    ([[0], [1]], [2, 3]), (A([0, 1]), A([2, 3]), A([4, -5])), A([0, 1], np.uint8), (0, [1, 2]), ([1, 2], 0),
    (0, [1], 2), (slice(None), [0, 2]), (slice(None), [0, 2], [1, 1]), ([0, 2], slice(None), [1, 1]),
    ([0, 2], slice(1, 3)), ([0, 2], ..., [1, 1]), (..., [[1, 3]]), (0, slice(None), [1, 3]), (slice(None), 0, [1, 3]),
    (slice(None), [1, 3], 0), (None, [1, 2]), ([1, 2], None), ([1, 2], None, [0, 1]), (slice(None), None, [1, 2]),
    (slice(None), [0, 1], None, 2),
    (slice(None, None, -1), [0, 2], slice(None, None, 2)), (0, [1, 2], None, [3, 4]),
    (slice(None), [0, 1], ..., [1, 1]),
    ([0, 1], slice(None), ..., 1), (A([[0, 1, 2]]), slice(2), A([[1], [2]])), (slice(1, 1), [0, 2]),
    # booleans
    True, False, np.True_, A(True), (True, 1), (1, True), ([0, 2], True), (slice(None), True), (False, [0]),
    MASK, ROWS, [True, False, True], (slice(None), A([True, False, False, True])), (ROWS, 1), (ROWS, [0, 3]),
    MASK[:, :, 0], (0, MASK[0]), (slice(None), MASK[0]), (ROWS, slice(None), [1, 3]), (..., MASK[0, 0]),
    (None, ROWS, None), np.zeros((3, 4), bool), MASK & False,
]  # fmt: skip


def _plain(index: Any) -> Any:
    """An expression that `jax.numpy` takes too: no lists, no NumPy booleans."""
    if isinstance(index, tuple):
        return tuple(map(_plain, index))
    if isinstance(index, list):
        return np.asarray(index, None if index else np.int32)
    return bool(index) if isinstance(index, np.bool_) else index


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """All expressions in each mode, in one program."""
    with x64():
        everything = modes(lambda x: tuple(ops.getitem(x, i) for i in INDICES))
        return {mode: run(X) for mode, run in everything.items() if mode != "closed over"}


# In one process, which computes `values` once.
@pytest.mark.xdist_group("values of indices")
@pytest.mark.parametrize("k", range(len(INDICES)), ids=[re.sub(r"\s+", "", repr(i)) for i in INDICES])
def test_value(values: dict[str, Any], k: int) -> None:
    for mode, results in values.items():
        np.testing.assert_array_equal(results[k], X[INDICES[k]], err_msg=mode)


def test_an_index_may_be_traced() -> None:
    cases = [(i if isinstance(i, tuple) else (i,)) for i in map(_plain, INDICES)]
    cases = [c for c in cases if any(isinstance(e, np.ndarray | np.integer) for e in c)]
    arrays = [[e for e in c if isinstance(e, np.ndarray | np.integer)] for c in cases]

    def fn(x: Any, arrays: Any) -> Any:
        out = []
        for c, values in zip(cases, arrays, strict=True):
            rest = iter(values)
            out.append(x[tuple(next(rest) if isinstance(e, np.ndarray | np.integer) else e for e in c)])
        return out

    undecorated = tg.grad(lambda one, x, arrays: (one, fn(x, arrays)), has_aux=True)(1.0, X, arrays)[1]
    for c, found in zip(cases, undecorated, strict=True):
        np.testing.assert_array_equal(found, X.astype(np.float32)[c], err_msg=str(c))
    masks = [any(a.dtype == bool for a in values) for values in arrays]
    cases = [c for c, mask in zip(cases, masks, strict=True) if not mask]
    arrays = [a for a, mask in zip(arrays, masks, strict=True) if not mask]
    for c, found in zip(cases, tg.jit(fn)(X, arrays), strict=True):
        np.testing.assert_array_equal(found, X.astype(np.float32)[c], err_msg=str(c))


def test_derivatives_of_every_expression() -> None:
    indices = [_plain(i) for i in INDICES]
    rng = np.random.default_rng(2)
    v = rng.normal(size=X.shape)

    def derivatives(grad: Any) -> Any:
        def run(x: Any) -> Any:
            result = []
            for k, i in enumerate(indices):

                def along(x: Any, i: Any = i) -> Any:
                    first = grad(lambda x: (x[i] ** 3).sum())(x)
                    return (first * v).sum(), first

                result.append(grad(along, has_aux=True)(x) if k % 4 == 0 else along(x))
            return result

        return run

    with x64():
        ours, theirs = tg.jit(derivatives(tg.grad))(X), jax.jit(derivatives(jax.grad))(X)
        for i, a, b in zip(indices, ours, theirs, strict=True):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-12, err_msg=str(i))


def test_a_basic_index_is_at_most_two_nodes() -> None:
    names = lambda fn: [node.op.name for node in tg.trace(fn)(X).nodes]  # noqa: E731
    assert names(lambda x: x[...]) == []
    assert names(lambda x: x[1:]) == ["slice"]
    assert names(lambda x: x[::-1]) == ["rev"]
    assert names(lambda x: x[:, None]) == ["reshape"]
    assert names(lambda x: x[0]) == names(lambda x: x[0, None, 1:2, ..., 3]) == ["slice", "reshape"]
    assert names(lambda x: x[[0, 1]]) == ["gather"]


def test_a_mask_computed_from_data() -> None:
    f = tg.value_and_grad(lambda x: (x[x > 0] ** 2).sum())
    value, gradient = f(X)
    np.testing.assert_allclose(value, (X[X > 0] ** 2).sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, np.where(X > 0, 2 * X, 0), rtol=1e-5)
    np.testing.assert_allclose(tg.grad(lambda x: x[x.sum() > 1e9].sum())(X), np.zeros_like(X))


def test_an_index_from_data_does_not_compile_anew(compiles: Any) -> None:
    f = tg.grad(lambda x, i: (x[i] ** 2).sum(), argnums=0)
    data = jnp.asarray(X)
    for i in (np.int64(0), np.int32(1)):  # both are int32 in 32-bit mode
        closed = tg.grad(lambda x, i=i: (x[i] * x[A([0, int(i)])]).sum())
        f(data, np.asarray(i, np.int32)), closed(data)
        if not i:
            compiles()
    assert compiles() == 0


def test_an_unknown_index_out_of_bounds_is_clamped() -> None:
    x = np.arange(5.0, dtype=np.float32)
    f = tg.jit(lambda x, i: x[i])
    np.testing.assert_array_equal(f(x, A([7, -9, -1])), [4, 0, 4])
    assert f(x, 7) == 4 and f(x, -9) == 0
    gradient = tg.jit(tg.grad(lambda x, i: x[i].sum()))
    np.testing.assert_array_equal(gradient(x, A([7, -9, -1])), [1, 0, 0, 0, 2])
    np.testing.assert_array_equal(gradient(x, 7), [0, 0, 0, 0, 1])


def test_an_index_of_a_small_type() -> None:
    x = np.arange(300.0, dtype=np.float32)
    for i in (A([-1, 100], np.int8), A([200], np.uint8)):
        assert tg.jit(lambda x, i=i: x[i])(x).tolist() == tg.jit(lambda x, i: x[i])(x, i).tolist() == x[i].tolist()


def test_inside_vmap_and_inside_jax() -> None:
    i = A([[0, 2], [1, 1], [3, 0]])
    expected = np.stack([row[j] for row, j in zip(X, i, strict=True)])
    np.testing.assert_allclose(tg.vmap(lambda x, i: x[i])(X, i), expected, rtol=1e-6)
    np.testing.assert_allclose(tg.vmap(lambda x, i: x[i])(X, i[:, 0]), X[A([0, 1, 2]), i[:, 0]], rtol=1e-6)
    gradient = tg.vmap(tg.grad(lambda x, i: (x[i] ** 2).sum()))(X, i)
    reference = jax.vmap(jax.grad(lambda x, i: (x[i] ** 2).sum()))(X, i)
    np.testing.assert_allclose(gradient, reference, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda x, i: ops.getitem(x, i))(X, 2), X[2], rtol=1e-6)
    expected = np.zeros_like(X)
    expected[0, 1] = 1
    np.testing.assert_allclose(jax.jit(tg.grad(lambda x: x[0, 1].sum()))(X), expected)


BAD: list[tuple[Any, type[Exception], str]] = [
    (3, IndexError, r"index 3 is out of bounds for axis 0 of size 3, in an array of shape \(3, 4, 5\), at .*test_ind"),
    ((0, -5), IndexError, "index -5 is out of bounds for axis 1 of size 4.*Indices go from -4 to 3"),
    (np.int64(7), IndexError, "index 7 is out of bounds"),
    ([0, 9], IndexError, "index 9 is out of bounds for axis 0"),
    ((slice(None), A([-6])), IndexError, "index -6 is out of bounds for axis 1"),
    ((0, 0, 0, 0), IndexError, r"4 indices for an array of shape \(3, 4, 5\), which has 3 axes"),
    ((..., 0, ...), IndexError, "more than one"),
    (([0, 1], [0, 1, 2]), IndexError, r"shapes \(2,\), \(3,\) do not broadcast"),
    (A([True, False]), IndexError, r"shape \(2,\) does not fit .*axis 0 has size 3, the index 2"),
    ([[0], [1, 2]], IndexError, "rows differ in length"),
    (1.5, TypeError, "an index is f32.*at .*test_indexing.*Indices are integers"),
    (A([0.0, 1.0]), TypeError, r"an index has type f32\[2\].*convert it with .astype\(int\)"),
    ("a", TypeError, "an index is str 'a'"),
    (slice(0, 1.5), TypeError, "the bounds of a slice"),
    (slice(0, 3, 0), ValueError, "step 0"),
]  # fmt: skip


@pytest.mark.parametrize(("index", "error", "message"), BAD, ids=[repr(b[0]) for b in BAD])
def test_bad_index(index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        tg.grad(lambda x: x[index].sum())(X)
    with pytest.raises(error, match=f"(?s){message}"):
        ops.getitem(X, index)


def test_what_jit_does_not_know() -> None:
    with pytest.raises(TypeError, match=r"boolean one.*depends on data.*where"):
        tg.jit(lambda x: x[x > 0].sum())(X)
    with pytest.raises(TypeError, match=r"traced bound.*dynamic_slice"):
        tg.jit(lambda x, i: x[i : i + 2].sum())(X, 0)
    with pytest.raises(TypeError, match=r"at\[index\]\.set"):
        tg.jit(lambda x: x.__setitem__(0, 1.0))(X)
    with pytest.raises(TypeError, match="indices have dtype float32"):
        tg.jit(lambda x, i: ops.gather(x, i, spec=ops.Spec((0,))))(X, np.ones(2, np.float32))
    with pytest.raises(IndexError, match="no element"):
        tg.jit(lambda x, i: x[i])(np.zeros((0, 3)), 0)


# -- updated copies

PLACES: list[Any] = [
    0, -1, (1, 2), (slice(1, None), 0), slice(None, None, 2), (slice(None, None, -1), slice(3, 0, -2)), (..., None, 1),
    slice(1, 1), ..., (slice(2), slice(1, 3), slice(2, 4)), A([0, 2]), (A([0, 2]), slice(1, 3), A([1, 3])), A(1),
    (0, A([1, 3])), (slice(None, None, 2), A([0, 3])), (slice(None, None, -1), A([[0], [3]]), slice(1, 4)), MASK, ROWS,
    (slice(None), A([True, False, False, True])), True, (None, 1), A([], np.int32),
]  # fmt: skip
METHODS = ["set", "add", "subtract", "multiply", "divide", "power", "min", "max"]


def _numpy_update(method: str) -> Any:
    binary = {
        "set": lambda old, u: np.broadcast_to(u, old.shape), "add": np.add, "subtract": np.subtract,
        "multiply": np.multiply, "divide": np.divide, "power": np.power, "min": np.minimum, "max": np.maximum,
    }[method]  # fmt: skip

    def update(x: Any, index: Any, u: Any) -> Any:
        x = np.array(x)
        x[index] = binary(x[index], u)
        return x

    return update


def _updates(index: Any, x: Any) -> Any:
    """Full and scalar updates."""
    return [np.random.default_rng(3).uniform(0.5, 2, x[index].shape), 1.5]


@pytest.mark.parametrize("method", METHODS)
def test_at(method: str) -> None:
    """Values, first and second derivatives with respect to the array and the updates."""
    k = METHODS.index(method)
    places = PLACES if method == "set" else PLACES[k::6]  # what is a place is the same code for all
    x = np.random.default_rng(4).uniform(0.5, 2, X.shape)
    us = [_updates(i, x) for i in places]
    reference = _numpy_update(method)

    def at_all(x: Any, us: Any) -> Any:
        return [getattr(ops.at(x)[i], method)(u) for i, pair in zip(places, us, strict=True) for u in pair]

    check_value(
        at_all,
        lambda x, us: [reference(x, i, u) for i, pair in zip(places, us, strict=True) for u in pair],
        x,
        us,
        only=("undecorated",),
    )
    # JAX differentiates products only where it is told that no index occurs twice.
    options = {"unique_indices": True} if method in ("multiply", "divide", "power") else {}

    def derivatives(grad: Any, options: Any) -> Any:
        def run(x: Any, us: Any) -> Any:
            result = []
            for k, (i, pair) in enumerate(zip(places, us, strict=True)):

                def along(x: Any, u: Any, i: Any = i) -> Any:
                    gx, gu = grad(lambda x, u: (getattr(x.at[i], method)(u, **options) ** 2 * x).sum(), (0, 1))(x, u)
                    return (gx * x**2).sum() + (gu * 3.0).sum(), (gx, gu)

                twice = grad(along, (0, 1), has_aux=True) if k % 3 == 0 else along
                result.append(twice(x, pair[k % 2]))
            return result

        return run

    with x64():
        ours = tg.jit(derivatives(tg.grad, {}))(x, us)
        theirs = jax.jit(derivatives(jax.grad, options))(x, us)
        for i, a, b in zip(places, ours, theirs, strict=True):
            for g, h in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
                np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-12, err_msg=str(i))


TWICE = A([1, 0, 1, 3, 1])


@pytest.mark.parametrize("method", ["set", "add", "subtract", "multiply", "divide", "min", "max"])
def test_at_with_an_index_twice(method: str) -> None:
    x, u = np.random.default_rng(5).uniform(0.5, 2, (2, 4, 3))[0], np.random.default_rng(6).uniform(0.5, 2, (5, 3))
    jax_fn = {"multiply": _product, "divide": lambda x, u, i: x / _product(jnp.ones_like(x), u, i)}.get(
        method, lambda x, u, i: getattr(x.at[i], method)(u)
    )
    fn = lambda x, u: getattr(ops.at(x)[TWICE], method)(u)  # noqa: E731
    check_grads(fn, x, u, jax_fn=lambda x, u: jax_fn(x, u, TWICE))
    traced = tg.jit(lambda x, u, i: getattr(x.at[i], method)(u))(x, u, TWICE)
    np.testing.assert_allclose(traced, jax_fn(jnp.asarray(x), u, TWICE), rtol=1e-5)


def _product(x: Any, u: Any, indices: Any) -> Any:
    for k, i in enumerate(indices):
        x = x * jnp.where(jnp.arange(x.shape[0])[:, None] == i, u[k], 1.0)
    return x


def test_products_with_zeros() -> None:
    x, u = np.ones(3), A([0.0, 2.0, 3.0, 0.0, 5.0, 0.0])
    indices = A([0, 0, 1, 2, 2, 2])
    gradient = tg.grad(lambda u: (x.copy() * tg.numpy.ones(3)).at[indices].multiply(u).sum())(u)
    np.testing.assert_array_equal(gradient, [2, 0, 1, 0, 0, 0])


def test_ties_share_equally() -> None:
    x, u = np.ones(3, np.float32), np.ones(3, np.float32)
    for i, gx, gu in [(A([0, 0, 1]), [1 / 3, 1 / 2, 1], [1 / 3, 1 / 3, 1 / 2]), (slice(None), [0.5] * 3, [0.5] * 3)]:
        for method in ("min", "max"):
            f = lambda x, u, i=i, m=method: getattr(x.at[i], m)(u).sum()  # noqa: E731
            a, b = tg.jit(tg.grad(f, (0, 1)))(x, u)
            np.testing.assert_allclose(a, gx, rtol=1e-6)
            np.testing.assert_allclose(b, gu, rtol=1e-6)


def test_at_out_of_bounds() -> None:
    x, u = np.arange(4.0, dtype=np.float32), np.ones(2, np.float32)
    modes = (None, "drop", "clip", "fill", jax.lax.GatherScatterMode.CLIP)

    def updated(x: Any, u: Any, i: Any) -> Any:
        return [getattr(x.at[i], m)(u * 9, mode=mode) for m in ("set", "add", "max") for mode in modes]

    for i in (A([5, 1]), A([-7, 0]), A(9)):
        u_ = u if i.ndim else u[0]
        for ours, theirs in zip(tg.jit(updated)(x, u_, i), jax.jit(updated)(x, u_, i), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        gx, gu = tg.jit(tg.grad(lambda x, u, i: (x.at[i].set(u) ** 2).sum(), (0, 1)))(x, u_, i)
        hx, hu = jax.grad(lambda x, u, i=i: (x.at[i].set(u) ** 2).sum(), (0, 1))(jnp.asarray(x), u_)
        np.testing.assert_array_equal(gx, hx)
        np.testing.assert_array_equal(gu, hu)
    # an index of known value is checked, unless a mode says what it means
    assert tg.jit(lambda x: x.at[9].set(1.0, mode="drop"))(x).tolist() == x.tolist()
    assert tg.jit(lambda x: x.at[9].get(mode="clip"))(x) == 3
    assert np.isnan(tg.jit(lambda x: x.at[A([9, 1])].get(mode="fill"))(x)).tolist() == [True, False]
    assert tg.jit(lambda x: x.at[A([9, 1])].get(mode="fill", fill_value=-1))(x).tolist() == [-1, 1]
    with pytest.raises(IndexError, match="index 9 is out of bounds"):
        tg.jit(lambda x: x.at[9].set(1.0))(x)


def test_at_with_a_mask_from_data() -> None:
    x = X.astype(np.float32)
    f = tg.jit(lambda x: x.at[x > 0].multiply(2.0).at[x[:, 0, 0] > 0].add(np.ones(5, np.float32)))
    expected = np.where(x > 0, 2 * x, x) + (x[:, 0, 0] > 0)[:, None, None]
    np.testing.assert_allclose(f(x), expected, rtol=1e-6)


def test_at_keeps_the_dtype() -> None:
    def dtype(x: Any, u: Any) -> Any:
        return tg.jit(lambda x, u: x.at[0].add(u))(x, u).dtype

    assert dtype(jnp.ones(3, jnp.bfloat16), np.float32(1)) == jnp.bfloat16
    assert dtype(np.ones(3, np.complex64), 1.0) == np.complex64
    assert dtype(np.ones(3, np.int8), 1) == np.int8
    assert tg.jit(lambda x: x.at[A([0, 0])].add(True))(np.zeros(2, bool)).tolist() == [True, False]
    assert tg.jit(lambda x: x.at[1:].set([5, 6]))(np.zeros(3, np.int32)).tolist() == [0, 5, 6]
    assert tg.jit(lambda x: x.at[A([1, 1])].apply(lambda v: v + 1))(np.zeros(2)).tolist() == [0, 1]


AT_BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda x: x.at[0].set(np.ones(3)), ValueError, r"shape \(3,\) do not broadcast to \(4, 5\).*test_indexing"),
    (lambda x: x.at[0].set(1j), TypeError, "values of dtype complex64 were put into an array of dtype float32"),
    (lambda x: x.astype(int).at[0].set(1.5), TypeError, "dtype float32 were put into an array of dtype int32"),
    (lambda x: x.at[0].set(1.0, mode="nearest"), ValueError, "unknown mode 'nearest'.*clip, fill, drop"),
    (lambda x: x.at[0].set(1.0, made="clip"), TypeError, "unknown option 'made'"),
    (lambda x: x.at[3].add(1.0), IndexError, "index 3 is out of bounds"),
    (lambda x: x.at[0.5].add(1.0), TypeError, "an index is f32"),
]


@pytest.mark.parametrize(("fn", "error", "message"), AT_BAD)
def test_bad_update(fn: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tg.jit(fn)(X.astype(np.float32))


# -- take, take_along_axis, pick

AXIS_CASES: list[tuple[Any, Any, Any]] = [
    (lambda x, i: ops.take(x, i), lambda x, i: np.take(x, i), A([[0, -1], [59, 7]])),
    (lambda x, i: ops.take(x, i, axis=0), lambda x, i: np.take(x, i, axis=0), A([0, 2, 2, -1])),
    (lambda x, i: ops.take(x, i, axis=-1), lambda x, i: np.take(x, i, axis=-1), A([[0, 4]])),
    (lambda x, i: ops.take(x, i, axis=1), lambda x, i: np.take(x, i, axis=1), A(2)),
    (lambda x, i: ops.take(x, i, 1, "wrap"), lambda x, i: np.take(x, i, 1, mode="wrap"), A([5, -6, 3])),
    (lambda x, i: ops.take(x, i, 1, "clip"), lambda x, i: np.take(x, i, 1, mode="clip"), A([5, 3])),
    (
        lambda x, i: ops.take_along_axis(x, i, 1),
        lambda x, i: np.take_along_axis(x, i, 1),
        A([[[0]], [[3]], [[-1]]]) + np.zeros((3, 2, 5), int),
    ),
    (lambda x, i: ops.take_along_axis(x, i), lambda x, i: np.take_along_axis(x, i, -1), A([[[0, 4, 4]]])),
    (lambda x, i: ops.take_along_axis(x, i, 0), lambda x, i: np.take_along_axis(x, i, 0), np.argsort(X, 0)),
    (lambda x, i: ops.take_along_axis(x, i, None), lambda x, i: np.take_along_axis(x, i, None), A([3, 59, 0])),
    (lambda x, i: ops.pick(x, i), lambda x, i: np.take_along_axis(x, i[..., None], -1)[..., 0], MASK.sum(-1) % 5),
    (lambda x, i: ops.pick(x, i, axis=1), lambda x, i: np.take_along_axis(x, i[:, None], 1)[:, 0], MASK.sum(1) % 4),
    (
        lambda x, i: ops.pick(x, i, 0),
        lambda x, i: np.take_along_axis(x, (i + np.zeros((4, 5), int))[None], 0)[0],
        A([0, 1, 2, -1, 0]),
    ),
    (lambda x, i: ops.pick(x[0, 0], i), lambda x, i: x[0, 0, i], A(3)),
]


@pytest.mark.parametrize(("fn", "ref", "indices"), AXIS_CASES)
def test_along_an_axis(fn: Any, ref: Any, indices: Any) -> None:
    check_value(fn, ref, X, indices)
    count = int(np.prod(ref(X, indices).shape))
    flat = ref(np.arange(X.size).reshape(X.shape), indices).ravel()
    assert len(flat) == count
    check_grads(lambda x: fn(x, indices) ** 3, X, jax_fn=lambda x: x.ravel()[flat].reshape(ref(X, indices).shape) ** 3)


def test_a_lookup_is_one_node_each_way() -> None:
    table, words = np.ones((7, 3), np.float32), A([1, 2, 2])
    forward = tg.trace(lambda t, i: ops.take(t, i, axis=0))(table, words)
    assert [n.op.name for n in forward.nodes] == ["gather"]
    both = tg.trace(tg.grad(lambda t, i: ops.take(t, i, axis=0).sum()))(table, words)
    assert [n.op.name for n in both.nodes].count("scatter") == 1


def test_along_an_axis_out_of_bounds() -> None:
    x = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    for fn in (ops.pick, lambda x, i: ops.take_along_axis(x, i[:, None], 1)[:, 0]):
        value, gradient = tg.jit(tg.value_and_grad(lambda x, i, fn=fn: fn(x, i)[1]))(x, A([3, -4]))
        assert np.isnan(value) and not np.any(gradient)
    assert np.isnan(tg.jit(lambda x, i: ops.take(x, i, axis=1))(x, A([3]))).all()
    assert tg.jit(lambda x, i: ops.take(x, i, 1, "fill", fill_value=0))(x, A([3])).tolist() == [[0], [0]]


ALONG_BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda x: ops.take(x, [3], axis=0), IndexError, "index 3 is out of bounds for axis 0 of size 3"),
    (lambda x: ops.take(x, [1.0], axis=0), TypeError, r"take: the indices are f32\[1\].*astype\(int\)"),
    (lambda x: ops.take(x, [1], axis=3), ValueError, "take: axis 3 of an array of 3 axes"),
    (lambda x: ops.take(x, [1], axis=0, mode="raise"), ValueError, "unknown mode 'raise'"),
    (lambda x: ops.take_along_axis(x, np.zeros(3, int)), ValueError, "as many axes"),
    (lambda x: ops.take_along_axis(x, np.zeros((2, 4, 1), int)), ValueError, "do not broadcast along"),
    (lambda x: ops.pick(x, np.zeros(3, int)), ValueError, r"pick: an index of shape \(3,\) does not fit"),
    (lambda x: ops.pick(x, 5), IndexError, "index 5 is out of bounds for axis 2"),
]


@pytest.mark.parametrize(("fn", "error", "message"), ALONG_BAD)
def test_bad_arguments(fn: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fn(X)
    with pytest.raises(error, match=message):
        tg.jit(fn)(X)
