"""Values of what the namespace has beyond elementwise functions, reductions and shapes, eager and recorded."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import TracerError

from ..reference import check_group, check_message, check_value, in_groups, x64

HOST = np
RNG = np.random.default_rng(5)
A = RNG.normal(size=(3, 4))
B = RNG.normal(size=5)
T = RNG.normal(size=(2, 3, 4))
W = RNG.uniform(0.5, 2.0, 5)
N = A.copy()
N[0, 1] = N[2] = np.nan
COUNTS = np.array([[0.0, 2.0, 1.0, 3.0], [1.0, 1.0, 4.0, 0.0], [2.0, 0.0, 0.0, 1.0]])
K = np.array([3, 1, 3, 0, 2, 1, 1])
L = np.array([5, 3, 2, 2])
R = np.array([[1, 2], [0, 5], [1, 2], [0, 1]])
C = RNG.normal(size=4) + 1j * RNG.normal(size=4)
U = np.array([3, 200, 7], np.uint8)
X = np.sort(RNG.normal(size=6))
D = np.array([0.0, np.nan, 1.0, np.nan, 0.0])


Case = tuple[str, Any]

# What depends on no values but the ones that it computes.
CASES: list[Case] = [
    # elementwise
    ("gcd", lambda np: np.gcd(np.asarray([12, -18, 0]), np.asarray([8, 12, 5]))),
    ("lcm", lambda np: np.lcm(np.asarray([12, -18, 0]), np.asarray([8, 12, 5]))),
    ("ldexp", lambda np: np.ldexp(A, np.asarray([[3], [-4], [1000]]))),
    ("ldexp far", lambda np: np.ldexp(np.asarray([2.0**-1000, 1.5]), np.asarray([1030, -1030]))),
    ("frexp", lambda np: np.frexp(np.asarray([0.0, 1.0, -3.5, 1e300, np.inf]))),
    ("spacing", lambda np: np.spacing(np.asarray([1.0, -3.0, 1e10]))),
    ("array_equiv", lambda np: [np.asarray(np.array_equiv(B, B[None])), np.asarray(np.array_equiv(A, B))]),
    ("packbits", lambda np: np.packbits(np.asarray([1, 0, 1, 1, 0, 0, 0, 1, 1, 5]))),
    ("packbits axis", lambda np: np.packbits(T > 0, axis=1, bitorder="little")),
    ("unpackbits", lambda np: np.unpackbits(U)),
    ("unpackbits count", lambda np: [np.unpackbits(U, count=n, bitorder="little") for n in (10, -3, 30)]),
    ("unpackbits axis", lambda np: np.unpackbits(U[:, None], axis=1)),
    ("i0", lambda np: np.i0(np.abs(A))),
    ("unwrap", lambda np: np.unwrap(np.asarray([0.0, 4.0, 8.0, 3.5, -3.0]))),
    ("unwrap period", lambda np: np.unwrap(np.asarray([0, 3, 1, 3, 0]), period=4)),
    ("unwrap discont", lambda np: np.unwrap(T * 5, discont=4.0, axis=1)),
    # order
    ("lexsort", lambda np: np.lexsort((R[:, 1], R[:, 0]))),
    ("lexsort axis", lambda np: np.lexsort(np.asarray(np.stack([R, R[::-1]])), axis=0)),
    ("sort_complex", lambda np: np.sort_complex(C)),
    ("partition", lambda np: np.partition(A, 2)[:, 2]),
    ("argpartition", lambda np: np.take_along_axis(A, np.argpartition(A, 1, axis=0), axis=0)[1]),
    ("searchsorted sorter", lambda np: np.searchsorted(B, A, sorter=np.argsort(B))),
    ("digitize down", lambda np: np.digitize(A, X[::-1])),
    ("digitize down right", lambda np: np.digitize(X, X[::-1], right=True)),
    # choice and writing
    ("choose clip", lambda np: np.choose(np.asarray([0, 5, -1]), [B[:3], 7.0], mode="clip")),
    ("choose wrap", lambda np: np.choose(np.asarray([0, 5, -1]), [B[:3], 7.0], mode="wrap")),
    ("piecewise", lambda np: np.piecewise(np.asarray(B), [B < 0, B > 0.5], [lambda x: -x, 3.0, lambda x: x * x])),
    ("piecewise default", lambda np: np.piecewise(np.asarray(B), [B < 0], [np.exp])),
    ("insert", lambda np: np.insert(A, 1, B[:4], axis=0)),
    ("insert column", lambda np: np.insert(A, -1, B[:3], axis=1)),
    ("insert several", lambda np: np.insert(A, [0, 3, 3], A[:1, :1] * 0 + 7, axis=0)),
    ("insert flat", lambda np: np.insert(A, [12, 2], [8.0, 9.0])),
    ("insert slice", lambda np: np.insert(B, slice(0, 4, 2), 1.0)),
    ("insert block", lambda np: np.insert(A, [2], np.asarray(np.ones((3, 2))), axis=1)),
    ("delete", lambda np: np.delete(A, 1, axis=0)),
    ("delete several", lambda np: np.delete(A, [0, -1, 0], axis=1)),
    ("delete slice", lambda np: np.delete(B, slice(1, None, 2))),
    ("delete mask", lambda np: np.delete(B, np.asarray(B) > 0) if np is not tnp else tnp.delete(B, B > 0)),
    ("trim_zeros", lambda np: np.trim_zeros(L * 0 + [0, 3, 0, 0])),
    ("trim_zeros front", lambda np: np.trim_zeros(L * 0 + [0, 3, 0, 0], "f")),
    ("resize", lambda np: [np.resize(A, s) for s in ((2, 3), (5, 4), 3, (0, 2))]),
    ("compress", lambda np: np.compress([True, False, True], A, axis=0)),
    ("compress flat", lambda np: np.compress([True, False, True], A)),
    ("extract", lambda np: np.extract(A > 0, A)),
    ("repeat one", lambda np: np.repeat(A, [2], axis=1)),
    # sets: closed over, their values are known
    ("isin", lambda np: [np.isin(R, L), np.isin(R, L, invert=True)]),
    # indices
    ("ix_", lambda np: np.ix_([1, 0], [True, False, True])),
    ("diag_indices", lambda np: np.diag_indices(3, 3)),
    ("diag_indices_from", lambda np: np.diag_indices_from(A[:, :3])),
    ("tril_indices_from", lambda np: np.tril_indices_from(A, 1)),
    ("triu_indices_from", lambda np: np.triu_indices_from(A, -1)),
    ("unravel_index", lambda np: np.unravel_index(np.asarray([5, 11, 0]), (3, 4))),
    ("ravel_multi_index", lambda np: np.ravel_multi_index(([1, 2], [3, 0]), (3, 4))),
    *[
        (f"ravel_multi_index {m} {o}", lambda np, m=m, o=o: np.ravel_multi_index(([-1, 2], [3, 9]), (3, 4), m, o))
        for m, o in (("wrap", "C"), ("clip", "F"))
    ],
    ("mask_indices", lambda np: np.mask_indices(3, HOST.triu, 1)),
    ("mgrid", lambda np: np.mgrid[0:3, 1:2:0.5]),
    ("mgrid imaginary", lambda np: np.mgrid[0:3:4j]),
    ("ogrid", lambda np: np.ogrid[0:3, -1:2]),
    ("r_", lambda np: np.r_[1.0, B, 0:3, 0:1:3j]),
    ("r_ axis", lambda np: np.r_["1,2,0", B, B]),
    ("r_ rows", lambda np: np.r_["0,2", B, B]),
    ("r_ matrices", lambda np: np.r_["-1", A, A]),
    ("c_", lambda np: np.c_[B, B * 2]),
    ("c_ matrices", lambda np: np.c_[A, A]),
    ("vander", lambda np: [np.vander(B), np.vander(B, 3, increasing=True), np.vander(B, 1), np.vander(K, 2)]),
    # statistics
    ("cov", lambda np: np.cov(A)),
    ("cov two", lambda np: np.cov(B, W, ddof=0)),
    ("cov columns", lambda np: np.cov(A, rowvar=False, bias=True)),
    ("cov weights", lambda np: np.cov(A, fweights=np.asarray([1, 2, 1, 3]), aweights=W[:4])),
    ("cov aweights", lambda np: np.cov(A, aweights=W[:4], ddof=0)),
    ("cov one", lambda np: np.cov(B)),
    ("cov complex", lambda np: np.cov(np.stack([C, C[::-1] * 1j]))),
    ("corrcoef", lambda np: np.corrcoef(A)),
    ("corrcoef complex", lambda np: np.corrcoef(np.stack([C, C[::-1] * 1j]))),
    *[
        (f"{f} {m} {i}", lambda np, f=f, m=m, x=x, y=y: getattr(np, f)(x, y, m))
        for f in ("convolve", "correlate")
        for m in ("full", "same", "valid")
        for i, (x, y) in enumerate([(B, W[:3]), (W[:2], B), (C, B[:2])])
    ],
    ("bincount", lambda np: np.bincount(K)),
    ("bincount weights", lambda np: np.bincount(K[:5], W, minlength=6)),
    ("histogram", lambda np: [x * 1.0 for x in np.histogram(A)]),
    ("histogram edges", lambda np: [x * 1.0 for x in np.histogram(A, np.asarray([-1.0, 0.0, 0.5, 2.0]))]),
    ("histogram range", lambda np: np.histogram(B, 4, (-1.0, 1.0), weights=W, density=True)),
    ("histogram_bin_edges", lambda np: np.histogram_bin_edges(A, 3)),
    ("histogram one value", lambda np: np.histogram_bin_edges(B * 0 + 2, 3)),
    ("histogram2d", lambda np: [x * 1.0 for x in np.histogram2d(B, W, 3)]),
    ("histogram2d weights", lambda np: np.histogram2d(B, W, [2, 3], [(-1, 1), (0, 2)], density=True, weights=W)),
    ("histogramdd", lambda np: [x * 1.0 for x in jax.tree.leaves(tuple(np.histogramdd(T.reshape(8, 3), (2, 3, 2))))]),
    ("interp", lambda np: np.interp(A, X, B[[0, 1, 2, 3, 4, 0]])),
    ("interp ends", lambda np: np.interp(A * 3, X, np.asarray(X) ** 2, left=-1.0, right=7.0)),
    ("interp period", lambda np: np.interp(A * 9, np.asarray([3.0, 0.5, 1.5]), B[:3], period=4.0)),
    ("interp one", lambda np: np.interp(A, np.asarray([0.5]), np.asarray([2.0]))),
    ("interp ints", lambda np: np.interp(np.asarray([1, 2]), np.asarray([0, 4]), np.asarray([0, 8]))),
    ("gradient", lambda np: np.gradient(A)),
    ("gradient one", lambda np: np.gradient(B, 0.5)),
    ("gradient axes", lambda np: np.gradient(A, 2.0, np.asarray(X[:3]), axis=(1, 0))),
    ("gradient edges", lambda np: np.gradient(A, edge_order=2, axis=1)),
    ("gradient places", lambda np: np.gradient(B, X[:5], edge_order=2)),
    ("gradient two", lambda np: np.gradient(B[:2])),
    ("ediff1d", lambda np: np.ediff1d(A, to_end=[1.0, 2.0], to_begin=0.0)),
    # without NaN
    *[
        (f"{f} {a} {k}", lambda np, f=f, a=a, k=k: getattr(np, f)(N[:2], axis=a, keepdims=k))
        for f in ("nanmedian", "nanargmax", "nanargmin", "nanmax", "nansum")
        for a, k in ((None, False), (0, True), (1, False))
    ],
    *[(f, lambda np, f=f: getattr(np, f)(N, axis=1)) for f in ("nancumsum", "nancumprod")],
    *[
        (f"nanquantile {m}", lambda np, m=m: np.nanquantile(N[:2], [0.2, 0.7], axis=1, method=m, keepdims=True))
        for m in ("linear", "lower", "higher", "midpoint", "nearest")
    ],
    ("nanpercentile", lambda np: np.nanpercentile(N, 30)),
    ("nansum where", lambda np: np.nansum(N, where=A > 0, initial=2.0)),
    ("nanmean where", lambda np: np.nanmean(N, where=A > 0)),
    ("nanvar ddof", lambda np: np.nanvar(N[:2], axis=1, ddof=1)),
    ("nanmax initial", lambda np: np.nanmax(N, axis=1, initial=0.0)),
    ("var mean", lambda np: np.var(A, axis=1, mean=np.asarray(A.mean(axis=1, keepdims=True)))),
    ("std mean", lambda np: np.std(A, mean=np.asarray([[0.1]]), where=A > 0)),
    ("quantile traced", lambda np: np.quantile(A, np.asarray([0.25, 0.5]), axis=0)),
    ("quantile traced nan", lambda np: np.quantile(N, np.asarray(0.4), axis=1, keepdims=True)),
    *[
        (f"inverted_cdf {i}", lambda np, f=f, a=a, k=k: getattr(np, f)(a, [0.0, 0.3, 1.0], method="inverted_cdf", **k))
        for i, (f, a, k) in enumerate(
            [
                ("quantile", A, {}),
                ("quantile", N, {"axis": 1, "keepdims": True}),
                ("quantile", A, {"axis": 1, "weights": COUNTS}),
                ("quantile", A, {"axis": (1, 0), "weights": COUNTS.T}),
                ("quantile", A, {"axis": 1, "weights": COUNTS[1]}),
                ("nanquantile", N[:2], {"axis": 1, "weights": COUNTS[:2]}),
                ("nanpercentile", N, {"weights": COUNTS}),
            ]
        )
    ],
    *[
        (f"pad {m} {k} {w}", lambda np, m=m, k=k, w=w, x=x: np.pad(x, w, m, **k))
        for m, k in [
            ("linear_ramp", {}), ("linear_ramp", {"end_values": (1, -3)}), ("maximum", {}),
            ("minimum", {"stat_length": 2}), ("mean", {"stat_length": (1, 3)}), ("median", {}),
        ]
        for w, x in [((2, 1), A), (((0, 1), (2, 0)), L.reshape(2, 2))]
    ],
    ("average axes", lambda np: np.average(A, axis=(1, 0), weights=COUNTS.T)),
    # polynomials
    ("polyadd", lambda np: np.polyadd(B, W[:2])),
    ("polysub", lambda np: np.polysub(B[:1], W)),
    ("polymul", lambda np: np.polymul(B, W[:2])),
    ("polydiv", lambda np: np.polydiv(np.asarray([3.0, 5.0, 2.0, 1.0]), np.asarray([2.0, 1.0]))[0]),
    ("polyval", lambda np: np.polyval(B, A)),
    *[(f"polyder {m}", lambda np, m=m: np.polyder(B, m)) for m in (0, 1, 3)],
    *[(f"polyint {m}", lambda np, m=m: np.polyint(B, m, k=list(range(1, m + 1)) or None)) for m in (0, 1, 3)],
    ("poly", lambda np: np.poly(B)),
    # products
    ("matvec", lambda np: np.matvec(T, A[:2])),
    ("vecmat", lambda np: np.vecmat(B[:3], T)),
    ("vecmat complex", lambda np: np.vecmat(C, np.asarray(np.ones((4, 2))))),
    # windows
    *[(w, lambda np, w=w: [getattr(np, w)(n) for n in (1, 6)]) for w in ("bartlett", "blackman", "hamming", "hanning")],
    ("kaiser", lambda np: np.kaiser(7, 3.5)),
    # functions of functions
    ("apply_along_axis", lambda np: np.apply_along_axis(lambda v: v[::-1] * v.sum(), 1, T)),
    ("apply_along_axis matrix", lambda np: np.apply_along_axis(lambda v: np.outer(v, v), 0, A)),
    ("apply_over_axes", lambda np: np.apply_over_axes(np.sum, T, (0, -1))),
    ("fromfunction", lambda np: np.fromfunction(lambda i, j: 3 * i + j, (2, 3), dtype=np.float32)),
    ("from_dlpack", lambda np: np.from_dlpack(B)),
    ("frombuffer", lambda np: np.frombuffer(B.tobytes(), np.float64, 3, 8)),
    ("fromstring", lambda np: np.fromstring("1,2,3.5", np.float64, sep=",")),
    ("astype", lambda np: np.astype(np.asarray(B), np.float32)),
    ("prod keeps type", lambda np: np.asarray(np.minimum(np.asarray(K), 1).sum())),
]  # fmt: skip


@in_groups(CASES)
def test_functions(group: list[Case]) -> None:
    check_group(group, np.float64(1.0), rtol=1e-6, atol=1e-7, only=("closed over", "jit"))


# -- shapes that depend on values: undecorated they are read, under @jit `size` is given

SIZED: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("unique", lambda np, x, **o: np.unique(x, **o), (K,)),
    ("unique floats", lambda np, x, **o: np.unique(x, True, True, True, **o), (D,)),
    ("unique all", lambda np, x, **o: np.unique(x, True, True, True, **o), (R,)),
    ("unique rows", lambda np, x, **o: np.unique(x, True, True, True, 0, **o), (R,)),
    ("unique columns", lambda np, x, **o: np.unique(x, axis=1, **o), (np.hstack([R, R]),)),
    ("unique_all", lambda np, x, **o: tuple(np.unique_all(x, **o)), (D,)),
    ("unique_counts", lambda np, x, **o: tuple(np.unique_counts(x, **o)), (K,)),
    ("unique_inverse", lambda np, x, **o: tuple(np.unique_inverse(x, **o)), (R,)),
    ("unique_values", lambda np, x, **o: np.sort(np.unique_values(x, **o)), (K,)),
    ("union1d", lambda np, x, y, **o: np.union1d(x, y, **o), (K, L)),
    ("intersect1d", lambda np, x, y, **o: np.intersect1d(x, y, **o), (K, L)),
    ("intersect1d indices", lambda np, x, y, **o: np.intersect1d(x, y, return_indices=True, **o), (K, L)),
    ("setdiff1d", lambda np, x, y, **o: np.setdiff1d(x, y, **o), (K, L)),
    ("setxor1d", lambda np, x, y, **o: np.setxor1d(x, y, **o), (K, L)),
    ("nonzero", lambda np, x, **o: np.nonzero(x, **o), (R,)),
    ("where", lambda np, x, **o: np.where(x, **o), (R > 1,)),
    ("flatnonzero", lambda np, x, **o: np.flatnonzero(x, **o), (R,)),
    ("argwhere", lambda np, x, **o: np.argwhere(x, **o), (R,)),
    ("compress", lambda np, c, x, **o: np.compress(c, x, axis=0, **o), (K[:3] > 2, A)),
    ("extract", lambda np, c, x, **o: np.extract(c, x, **o), (A > 0, A)),
]


def all_sized(np: Any, **options: Any) -> Any:
    return lambda args: {name: fn(np, *x, **options) for (name, fn, _), x in zip(SIZED, args, strict=True)}


def same(actual: Any, expected: Any) -> None:
    found, _ = jax.tree_util.tree_flatten_with_path(actual)
    for (path, a), e in zip(found, jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, e, err_msg=jax.tree_util.keystr(path))


def test_sizes_that_values_decide() -> None:
    args = [x for _, _, x in SIZED]
    with x64():
        expected = all_sized(np)(args)
        same(tg.grad(lambda one, args: (one, all_sized(tnp)(args)), has_aux=True)(1.0, args)[1], expected)
        for name, fn, x in SIZED[:3]:
            same(fn(tnp, *x), expected[name])


@pytest.mark.parametrize("size", [2, 3])
def test_sizes_that_are_given(size: int) -> None:
    # Cut, and filled up, as jax.numpy does it.
    args = [x for _, _, x in SIZED]
    with x64():
        ours, theirs = tg.jit(all_sized(tnp, size=size))(args), jax.jit(all_sized(jnp, size=size))(args)
        same(ours, theirs)
        assert [x.dtype for x in jax.tree.leaves(ours)] == [x.dtype for x in jax.tree.leaves(theirs)]


@pytest.mark.parametrize(("name", "fn", "args"), SIZED, ids=[case[0] for case in SIZED])
def test_sizes_that_are_missing(name: str, fn: Any, args: Any) -> None:
    with pytest.raises(TypeError, match=r"test_functions\.py(.|\n)*Pass size="):
        tg.trace(lambda args: fn(tnp, *args))(args)


def test_fill_values() -> None:
    def filled(np: Any) -> Any:
        return lambda x, y: [
            np.unique(x, size=6, fill_value=-1),
            np.unique(y, True, True, True, 0, size=6),
            np.intersect1d(x, y, return_indices=True, size=5),
            np.setxor1d(x, y, size=8),
            np.nonzero(y, size=7, fill_value=(-1, -2)),
            np.union1d(x, y, size=9, fill_value=9),
            np.intersect1d(x, y, size=4, fill_value=9),
            np.setdiff1d(x, y, size=4, fill_value=9),
            np.setxor1d(x, y, size=6, fill_value=9),
            np.compress(x[:4] > 1, y, size=3, fill_value=7, axis=0),
            np.bincount(x, length=3),
            np.repeat(y, x[:4], axis=0, total_repeat_length=9),
            np.repeat(y, x[:4], axis=0, total_repeat_length=3),
            np.delete(y, x[3], axis=0, assume_unique_indices=True),
            np.delete(y, x[:2], axis=0, assume_unique_indices=True),
            np.insert(y, x[1], 7, axis=0),
            np.insert(y, x[1:3], y[:2], axis=0),
            np.roll(y, x[1]),
            np.roll(y, (x[0], -x[4]), (0, 1)),
            np.choose(x, [1, 2, 3, 4], mode="clip"),
        ]

    ours, theirs = tg.jit(filled(tnp))(K, R), jax.jit(filled(jnp))(K, R)
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, e)


def test_copies_that_differ() -> None:
    values = np.asarray([7.0, 8.0])

    def written(x: Any) -> Any:
        return [
            tnp.place(x, A > 0, values, inplace=False),
            tnp.put(x, [1, -1, 40], values, inplace=False),
            tnp.put(x, [1, 40], values, "wrap", inplace=False),
            tnp.put(x, [-3, 40], values, "clip", inplace=False),
            tnp.put_along_axis(x, np.asarray([[1], [0], [3]]), 5.0, 1, inplace=False),
            tnp.fill_diagonal(x, values, inplace=False),
            tnp.fill_diagonal(x.T, 5.0, inplace=False),
            tnp.fill_diagonal(tnp.concatenate([x.T, x.T]), 5.0, True, inplace=False),
            tnp.fill_diagonal(tnp.zeros((2, 2, 2)), 1.0, inplace=False),
        ]

    def expected(x: Any) -> Any:
        out = [x.copy() for _ in range(5)] + [x.copy(), x.T.copy(), np.concatenate([x.T, x.T]), np.zeros((2, 2, 2))]
        np.place(out[0], A > 0, values)
        np.put(out[1], [1, -1], values)
        np.put(out[2], [1, 40], values, "wrap")
        np.put(out[3], [-3, 40], values, "clip")
        np.put_along_axis(out[4], np.asarray([[1], [0], [3]]), 5.0, 1)
        np.fill_diagonal(out[5], np.resize(values, 3))
        np.fill_diagonal(out[6], 5.0)
        np.fill_diagonal(out[7], 5.0, True)
        np.fill_diagonal(out[8], 1.0)
        return out

    check_value(written, expected, A)


def test_polynomials_through_eigenvalues() -> None:
    x = np.linspace(-1, 1, 8)
    y = np.stack([x**2 - x, np.sin(3 * x)], 1)
    with x64():
        np.testing.assert_allclose(np.sort_complex(tnp.roots(B)), np.sort_complex(np.roots(B)), rtol=1e-9)
        zeros = np.array([0.0, 0.0, 2.0, -3.0, 0.0])
        np.testing.assert_allclose(np.sort_complex(tnp.roots(zeros)), np.sort_complex(np.roots(zeros)), rtol=1e-9)
        np.testing.assert_allclose(tnp.poly(A[:, :3]).real, np.poly(A[:, :3]), rtol=1e-9)
        assert tnp.roots(np.zeros(3)).shape == (0,)
        for w in (None, np.arange(1.0, 9.0)):
            np.testing.assert_allclose(tnp.polyfit(x, y, 3, w=w), np.polyfit(x, y, 3, w=w), atol=1e-10)
            ours, theirs = tnp.polyfit(x, y[:, 1], 2, w=w, cov=True), np.polyfit(x, y[:, 1], 2, w=w, cov=True)
            for a, e in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(a, e, atol=1e-10)
        ours, theirs = tnp.polyfit(x, y[:, 1], 2, full=True), np.polyfit(x, y[:, 1], 2, full=True)
        for a, e in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, e, atol=1e-10)
        quotient, rest = tnp.polydiv(np.array([1.0, 5.0, 6.0, 3.0]), np.array([1.0, 2.0]), trim_leading_zeros=True)
        np.testing.assert_allclose(quotient, [1.0, 3.0, 0.0], atol=1e-12)
        np.testing.assert_allclose(rest, [3.0])


def test_vectorize() -> None:
    def norm(x: Any, n: Any, scale: float = 1.0) -> Any:
        return (abs(x) ** n).sum() * scale, x / n

    ours = tnp.vectorize(norm, signature="(n),()->(),(n)", excluded={"scale"})
    theirs = np.vectorize(norm, signature="(n),()->(),(n)", excluded={"scale"})
    check_value(lambda x, n: ours(x, n, scale=2.0), lambda x, n: theirs(x, n, scale=2.0), T, np.array([[1.0], [2.0]]))
    check_value(lambda x, n: ours(x, n), lambda x, n: theirs(x, n), A[0], np.float64(2.0))
    branchless = tnp.vectorize(lambda x, y, k: tnp.where(x > y, x * k, y), excluded={2})
    check_value(lambda x, y: branchless(x, y, 3.0), lambda x, y: np.where(x > y, x * 3.0, y), A, A[:, :1])


def test_arrays_are_known_as_such() -> None:
    assert isinstance(tnp.zeros(2), tnp.ndarray)
    assert not isinstance(np.zeros(2), tnp.ndarray)
    kinds: list[bool] = []
    tg.grad(lambda x: (kinds.extend([isinstance(x, tnp.ndarray), tnp.isscalar(x), tnp.iterable(x)]), x)[1])(1.0)
    assert kinds == [True, True, False]
    with pytest.raises(TypeError, match="makes no arrays"):
        tnp.ndarray((2,))


def test_devices() -> None:
    device = jax.devices()[1]
    for x in (tnp.zeros(2, device=device), tnp.asarray(A, device=device), tnp.arange(3, device=device)):
        assert x.devices() == {device}
    with pytest.raises(ValueError, match="while a function is recorded"):
        tg.jit(lambda: tnp.eye(2, device=device))()


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: tnp.unique(np.zeros(0), size=2), ValueError, "unique: size=2 of no elements .* Pass fill_value"),
    (lambda: tnp.nonzero(R, size=2, fill_value=(1,)), ValueError, "1 fill values for 2 axes"),
    (lambda: tnp.choose(np.array([0, 7]), [1, 2]), ValueError, "choose: numbers from 0 to 7 for 2 choices"),
    (lambda: tnp.choose(B, [1, 2]), TypeError, "choose: the numbers are"),
    (lambda: tnp.choose(K, [1, 2], mode="x"), ValueError, "choose: mode='x'"),
    (lambda: tnp.select([A > 0], []), ValueError, "select: 1 conditions and 0 choices"),
    (lambda: tnp.piecewise(B, [B > 0], []), ValueError, "piecewise: 1 conditions and 0 functions"),
    (lambda: tnp.compress(A > 0, A), ValueError, "compress: the condition is"),
    (lambda: tnp.place(A, A > 0, B), ValueError, "unless inplace=False"),
    (lambda: tnp.place(A, B > 0, B, inplace=False), ValueError, "Give the mask the shape of the array"),
    (lambda: tnp.put(A, 0, 0, "raise", inplace=False), ValueError, "put: mode='raise'"),
    (lambda: tnp.put_along_axis(A, K, 0, 0, inplace=False), ValueError, "as many axes as the array has"),
    (lambda: tnp.fill_diagonal(T, 0, inplace=False), ValueError, "fill_diagonal: an array of shape"),
    (lambda: tnp.insert(A, 9, 0, axis=0), IndexError, "insert: index .* is out of bounds for 3 elements"),
    (lambda: tnp.insert(A, 1.5, 0, axis=0), TypeError, "insert: the indices are"),
    (lambda: tnp.delete(A, 5, axis=0), IndexError, "out of bounds"),
    (lambda: tnp.trim_zeros(B, "x"), ValueError, "trim_zeros: trim='x'"),
    (lambda: tnp.lexsort([A, B]), ValueError, "lexsort: keys of shapes"),
    (lambda: tnp.partition(A, 7), ValueError, "partition: kth .*7"),
    (lambda: tnp.searchsorted(X, A, method="x"), ValueError, "searchsorted: method='x'"),
    (lambda: tnp.digitize(A, A), ValueError, "digitize: the edges are"),
    (lambda: tnp.isin(A, B, method="x"), ValueError, "isin: method='x'"),
    (lambda: tnp.ix_(A), ValueError, "ix_: argument 0 is"),
    (lambda: tnp.unravel_index(B, (3,)), TypeError, "unravel_index: the indices are"),
    (lambda: tnp.ravel_multi_index((5, 0), (3, 4)), ValueError, "indices from 5 to 5 for an axis of size 3"),
    (lambda: tnp.diag_indices_from(A), ValueError, "diag_indices_from: shape"),
    (lambda: tnp.tril_indices_from(B), ValueError, "Give a matrix"),
    (lambda: tnp.cov(T), ValueError, "cov: .* at most two axes"),
    (lambda: tnp.cov(A, fweights=B), ValueError, "cov: fweights=.* for 4 observations"),
    (lambda: tnp.convolve(A, B), ValueError, "convolve: .* Give a vector"),
    (lambda: tnp.convolve(B, B, "x"), ValueError, "convolve: mode='x'"),
    (lambda: tnp.correlate(B, B[:0]), ValueError, "Neither may be empty"),
    (lambda: tnp.bincount(B), TypeError, "bincount: .* astype"),
    (lambda: tnp.bincount(K, B), ValueError, "bincount: weights"),
    (lambda: tnp.histogram(A, "auto"), NotImplementedError, "histogram: bins='auto'"),
    (lambda: tnp.histogram(A, 0), ValueError, "histogram: bins=0"),
    (lambda: tnp.histogram(A, 3, weights=B), ValueError, "histogram: weights"),
    (lambda: tnp.histogramdd(B), ValueError, "a row a point"),
    (lambda: tnp.interp(A, X, B), ValueError, "interp: points"),
    (lambda: tnp.interp(A, X, X, left="x"), ValueError, "interp: left='x'"),
    (lambda: tnp.gradient(B, edge_order=3), ValueError, "gradient: edge_order=3"),
    (lambda: tnp.gradient(B[:1]), ValueError, "gradient: 1 values along axis 0"),
    (lambda: tnp.gradient(A, 1.0, 2.0, 3.0), ValueError, "gradient: 3 spacings for 2 axes"),
    (lambda: tnp.polyval(A, 1.0), ValueError, "polyval: coefficients"),
    (lambda: tnp.polyder(B, -1), ValueError, "polyder: m=-1"),
    (lambda: tnp.polyint(B, 2, k=[1, 2, 3]), ValueError, "polyint: 3 constants for 2"),
    (lambda: tnp.polyfit(B, A, 1), ValueError, "polyfit: places"),
    (lambda: tnp.poly(A), ValueError, "poly: .* square matrix"),
    (lambda: tnp.hanning(-1), ValueError, "hanning: M=-1"),
    (lambda: tnp.matvec(B, B), ValueError, "matvec: .* Give matrices and vectors"),
    (lambda: tnp.ldexp(A, B[:4]), TypeError, "ldexp: .* exponents are integers"),
    (lambda: tnp.frexp(C), TypeError, "frexp: .* Give real numbers"),
    (lambda: tnp.packbits(B), TypeError, "packbits: .* Give integers or booleans"),
    (lambda: tnp.unpackbits(K), TypeError, "unpackbits: .* astype"),
    (lambda: tnp.unpackbits(U, bitorder="x"), ValueError, "unpackbits: bitorder='x'"),
    (lambda: tnp.resize(A, (-1, 2)), ValueError, "resize: shape"),
    (lambda: tnp.repeat(A, B[:3], axis=0), ValueError, "repeat: 3 elements along axis 0"),
    (lambda: tnp.vectorize(lambda x: x, signature="n->n"), ValueError, "vectorize: signature='n->n'"),
    (lambda: tnp.vectorize(lambda x: x, signature="(n)->(n)")(A, B), TypeError, "vectorize: 2 arguments"),
    (lambda: tnp.vectorize(lambda x: x, signature="(n)->()")(A), ValueError, "vectorize: a result"),
    (lambda: tnp.vectorize(lambda x, y: x, signature="(n),(n)->(n)")(A, B), ValueError, "axis 'n' has sizes 4 and 5"),
    (lambda: tnp.vectorize(lambda x, y: x)(A, B), ValueError, "do not broadcast"),
    (lambda: tnp.from_dlpack([1.0]), TypeError, "has no __dlpack__"),
]


@pytest.mark.parametrize(("fn", "kind", "message"), ERRORS)
def test_errors_name_the_line(fn: Any, kind: type[Exception], message: str) -> None:
    for run in (fn, lambda: tg.trace(fn)()):
        check_message(run, kind, message)


def test_real_if_close() -> None:
    near, far = np.array([2.1, 5.2 + 1e-7j]), np.array([2.1, 5.2 + 1e-2j])
    for x in (near, far, near.real, np.arange(3)):
        ours, theirs = tnp.real_if_close(x, 1000), np.real_if_close(x, 1e9)
        assert ours.dtype.kind == theirs.dtype.kind
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert tnp.real_if_close(far, tol=0.5).dtype.kind == "f"
    assert float(tg.grad(lambda x: np.real_if_close(x * (1 + 1e-9j)) ** 2)(3.0)) == 6.0
    with pytest.raises(TracerError, match=r"^real_if_close: .* Write real\(x\)"):
        tg.jit(tnp.real_if_close)(1j)


def test_names_of_older_programs() -> None:
    x = np.ones((2, 3), np.float32)
    assert tnp.row_stack([x, x]).shape == (4, 3)
    for name in ("asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite"):
        assert tg.capture(getattr(tnp, name))(x)[0].tolist() == x.tolist()
        assert getattr(tnp, name)([1.0, 2.0]).tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"^asarray_chkfinite: .*NaN or infinite at .*test_functions"):
        tnp.asarray_chkfinite([1.0, np.nan])
    assert [(i, float(v)) for i, v in tnp.ndenumerate(x[:1])] == [(i, float(v)) for i, v in np.ndenumerate(x[:1])]
    assert float(tg.grad(lambda x: sum(v * sum(i) for i, v in tnp.ndenumerate(x)))(x)[1, 2]) == 3.0
    for name in ["half", "byte", "short", "intc", "longlong", "ubyte", "ushort", "uintc", "ulonglong"]:
        assert np.dtype(getattr(tnp, name)) == np.dtype(getattr(np, name))
    assert tnp.common_type(x, np.arange(3)) is np.float32
