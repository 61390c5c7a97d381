"""Values of the array namespace, eager and recorded, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp

from ..reference import check_group, check_value, in_groups


def words(text: str) -> list[str]:
    return text.split()


RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 4)).astype(np.float32)
B = RNG.normal(size=(4,)).astype(np.float32)
P = np.abs(A) + 0.5
U = np.clip(A / 4, -0.9, 0.9)
Z = A.copy()
Z[0, 1] = Z[1, 2] = Z[2, 2] = 0
N = A.copy()
N[0, 0] = N[2, :] = np.nan
C = (A + 1j * A[::-1]).astype(np.complex64)
K = RNG.integers(-5, 6, (3, 4)).astype(np.int32)
J = RNG.integers(1, 5, (4,)).astype(np.int32)
M = A > 0
T = RNG.normal(size=(2, 3, 4)).astype(np.float32)
E = np.zeros((0, 3), np.float32)
S = np.float32(0.3)

UNARY: list[tuple[str, Any]] = [
    *[
        (name, A)
        for name in words(
            "absolute negative positive sign square exp exp2 expm1 sin cos tan sinh cosh tanh arctan arcsinh "
            "floor ceil trunc rint sinc deg2rad rad2deg radians degrees isfinite isnan isinf isposinf "
            "isneginf signbit logical_not fabs real imag conj angle isreal iscomplex cbrt nan_to_num reciprocal"
        )
    ],
    *[(name, P) for name in words("sqrt log log2 log10 log1p")],
    *[(name, U) for name in words("arcsin arccos arctanh acos asin atan atanh")],
    *[(name, K) for name in words("invert bitwise_count absolute negative logical_not sign")],
    *[(name, C) for name in words("conjugate real imag angle absolute iscomplex exp")],
    *[(name, N) for name in ["nan_to_num", "isnan", "nansum"]],
    *[(name, x) for name in ("exp", "negative") for x in (E, S)],
    ("arccosh", P + 1),
    ("invert", M),
]


BINARY: list[tuple[str, Any, Any]] = [
    *[
        (name, A, B)
        for name in words(
            "add subtract multiply divide true_divide maximum minimum fmax fmin hypot arctan2 logaddexp "
            "logaddexp2 copysign floor_divide remainder mod fmod equal not_equal less less_equal greater "
            "greater_equal logical_and logical_or logical_xor isclose heaviside nextafter"
        )
    ],
    *[
        (name, K, J)
        for name in words(
            "add bitwise_and bitwise_or bitwise_xor left_shift right_shift floor_divide remainder divide maximum less"
        )
    ],
    *[(name, E, S) for name in ("add", "less")],
    ("power", P, B),
    ("float_power", P, B),
    ("multiply", C, A),
    ("ldexp", A, J),
    ("divmod", A, B),
    ("heaviside", Z, S),
    ("logical_and", M, M[0]),
]


CASES: list[tuple[str, Any]] = [
    *[(f"{name} {x.dtype}{x.shape}", lambda np, name=name, x=x: getattr(np, name)(x)) for name, x in UNARY],
    *[
        (f"{name} {x.dtype} {y.dtype}", lambda np, name=name, x=x, y=y: getattr(np, name)(x, y))
        for name, x, y in BINARY
    ],
    # power
    *[(f"power {n}", lambda np, x=P, n=n: np.power(x, n)) for n in (0, 1, 2, 3, -1, -2, 2.0, 0.5, -0.5, 1.7, 0.0)],
    ("power of ints", lambda np: np.power(K, 2)),
    ("power of 0, NaN", lambda np: np.power(np.asarray(N), 0)),
    ("power base", lambda np: np.power(2.0, B)),
    # selection
    ("clip", lambda np: np.clip(A, -0.5, 0.5)),
    ("clip low", lambda np: np.clip(A, 0.1, None)),
    ("clip arrays", lambda np: np.clip(A, B - 1, B + 1)),
    ("where", lambda np: np.where(M, A, 0.0)),
    ("where broadcast", lambda np: np.where(M[0], A, B)),
    ("where 1", lambda np: np.where(M)),
    ("nonzero", lambda np: np.nonzero(Z)),
    ("argwhere", lambda np: np.argwhere(M)),
    ("flatnonzero", lambda np: np.flatnonzero(M)),
    ("select", lambda np: np.select([M, A < -1], [A, B], 7.0)),
    ("modf", lambda np: np.modf(A * 3)),
    ("round", lambda np: np.round(A * 10)),
    ("round 2", lambda np: np.round(A, 2)),
    ("round -1", lambda np: np.round(A * 100, -1)),
    ("round ints", lambda np: np.round(K * 10 + 4, -1)),
    ("isclose inf", lambda np: np.isclose(np.asarray([1.0, np.inf, np.nan]), np.asarray([1.0, np.inf, np.nan]))),
    ("isclose nan", lambda np: np.isclose(np.asarray([np.nan, 1]), np.asarray([np.nan, 2]), equal_nan=True)),
    ("allclose", lambda np: np.asarray(np.allclose(A, A + 1e-9))),
    ("array_equal", lambda np: np.asarray(np.array_equal(A, A))),
    ("array_equal shapes", lambda np: np.asarray(np.array_equal(A, B))),
    ("nan_to_num", lambda np: np.nan_to_num(np.asarray(N), nan=3.0)),
    # reductions
    *[
        (
            f"{name} {axis} {keepdims}",
            lambda np, name=name, axis=axis, keepdims=keepdims: getattr(np, name)(T, axis=axis, keepdims=keepdims),
        )
        for name in words("sum prod max min mean var std ptp any all")
        for axis, keepdims in ((None, False), (0, False), (-1, True), ((0, 2), False), ((2, -3), True), ((), False))
        if not (axis == () and name == "ptp")
    ],
    *[
        (f"{name} scalar", lambda np, name=name: getattr(np, name)(S))
        for name in words("sum prod max mean var any all")
    ],
    *[
        (f"{name} empty", lambda np, name=name: getattr(np, name)(E, axis=0))
        for name in words("sum prod any all cumsum")
    ],
    *[
        (f"{name} axis {axis}", lambda np, name=name, axis=axis: getattr(np, name)(T, axis))
        for name in words("argmax argmin cumsum cumprod")
        for axis in (None, 0, -1)
    ],
    ("argmax keepdims", lambda np: np.argmax(A, axis=1, keepdims=True)),
    ("argmax bool", lambda np: np.argmax(M, axis=1)),
    ("argmax nan", lambda np: np.argmax(N, axis=1)),
    ("max nan", lambda np: np.max(N, axis=1)),
    ("max ints", lambda np: np.max(K, axis=1)),
    ("max bool", lambda np: np.max(M, axis=1)),
    ("sum where", lambda np: np.sum(A, axis=1, where=M)),
    ("sum initial", lambda np: np.sum(A, axis=1, initial=3.0)),
    ("sum dtype", lambda np: np.sum(K, dtype=np.float32)),
    ("sum bool", lambda np: np.sum(M, axis=0)),
    ("prod where initial", lambda np: np.prod(A, axis=0, where=M, initial=2.0)),
    ("prod ints", lambda np: np.prod(J)),
    ("max where", lambda np: np.max(A, axis=0, where=M, initial=-1.0)),
    ("min where", lambda np: np.min(K, axis=0, where=M, initial=9)),
    ("max empty initial", lambda np: np.max(E, axis=0, initial=4.0)),
    ("mean where", lambda np: np.mean(A, where=M)),
    ("mean ints", lambda np: np.mean(K, axis=0)),
    ("mean complex", lambda np: np.mean(C, axis=0)),
    ("var ddof", lambda np: np.var(A, axis=1, ddof=1)),
    ("var correction", lambda np: np.var(A, axis=1, correction=2)),
    ("var where", lambda np: np.var(A, where=M)),
    ("var complex", lambda np: np.var(C, axis=0)),
    ("var ints", lambda np: np.var(K)),
    ("std where", lambda np: np.std(A, where=M, keepdims=True)),
    ("average", lambda np: np.average(A, axis=1)),
    ("average weights", lambda np: np.average(A, axis=1, weights=P[0], returned=True)),
    ("average all", lambda np: np.average(A, weights=P, returned=True)),
    ("count_nonzero", lambda np: np.asarray(np.count_nonzero(Z, axis=1))),
    ("nansum", lambda np: np.nansum(N, axis=1)),
    ("nanprod", lambda np: np.nanprod(N, axis=1)),
    ("nanmean", lambda np: np.nanmean(N[:2], axis=1)),
    ("nanvar", lambda np: np.nanvar(N[:2], axis=1)),
    ("nanstd", lambda np: np.nanstd(N[:2], axis=1)),
    ("nanmax", lambda np: np.nanmax(N[:2], axis=1)),
    ("nanmin", lambda np: np.nanmin(N[:2], axis=0)),
    ("median", lambda np: np.median(T, axis=(0, 2))),
    ("median odd", lambda np: np.median(A, axis=0, keepdims=True)),
    ("median nan", lambda np: np.median(N, axis=1)),
    ("quantile", lambda np: np.quantile(A, [0.1, 0.5, 1.0], axis=1)),
    *[(f"quantile {m}", lambda np, m=m: np.quantile(A, 0.4, axis=1, method=m)) for m in ("lower", "higher", "nearest")],
    ("quantile midpoint", lambda np: np.quantile(A, 0.4, method="midpoint")),
    ("percentile", lambda np: np.percentile(A, 30, axis=0)),
    ("cumulative_sum", lambda np: np.cumulative_sum(A, axis=1, include_initial=True)),
    ("cumulative_prod", lambda np: np.cumulative_prod(A, axis=0, include_initial=True)),
    ("cumsum bool", lambda np: np.cumsum(M, axis=1)),
    # shapes
    ("reshape", lambda np: np.reshape(T, (4, -1))),
    ("reshape int", lambda np: np.reshape(T, -1)),
    ("reshape empty", lambda np: np.reshape(E, (3, -1))),
    ("reshape F", lambda np: np.reshape(T, (4, 6), order="F")),
    ("ravel", lambda np: np.ravel(T)),
    ("ravel F", lambda np: np.ravel(T, order="F")),
    ("transpose", lambda np: np.transpose(T)),
    ("transpose axes", lambda np: np.transpose(T, (1, -1, 0))),
    ("permute_dims", lambda np: np.permute_dims(T, (1, 2, 0))),
    ("matrix_transpose", lambda np: np.matrix_transpose(T)),
    ("moveaxis", lambda np: np.moveaxis(T, 0, -1)),
    ("moveaxis two", lambda np: np.moveaxis(T, (0, 1), (-1, 0))),
    ("swapaxes", lambda np: np.swapaxes(T, 0, -1)),
    *[(f"rollaxis {i} {j}", lambda np, i=i, j=j: np.rollaxis(T, i, j)) for i in (0, 2) for j in (0, 1, 3)],
    ("squeeze", lambda np: np.squeeze(T[None, :, :1])),
    ("squeeze axis", lambda np: np.squeeze(T[None, :, :1], axis=(0, -2))),
    ("expand_dims", lambda np: np.expand_dims(T, (0, -1))),
    ("expand_dims one", lambda np: np.expand_dims(B, -1)),
    ("broadcast_to", lambda np: np.broadcast_to(B, (2, 3, 4))),
    ("broadcast_arrays", lambda np: np.broadcast_arrays(A, B, 1.0)),
    *[
        (f"atleast_{n}d {x.ndim}", lambda np, n=n, x=x: getattr(np, f"atleast_{n}d")(x))
        for n in (1, 2, 3)
        for x in (S, B, A, T)
    ],
    ("atleast several", lambda np: np.atleast_2d(B, A)),
    *[
        (f"concatenate {axis}", lambda np, axis=axis: np.concatenate([A, A[:, :4] * 2, A], axis))
        for axis in (0, -1, None)
    ],
    ("concatenate promotes", lambda np: np.concatenate([B, J.astype(np.float32)])),
    ("concat", lambda np: np.concat([A, A], axis=1)),
    *[(f"stack {axis}", lambda np, axis=axis: np.stack([A, A + 1], axis)) for axis in (0, 1, -1)],
    ("hstack", lambda np: np.hstack([A, A])),
    ("hstack 1", lambda np: np.hstack([B, B])),
    ("vstack", lambda np: np.vstack([A, B])),
    ("dstack", lambda np: np.dstack([A, A])),
    ("column_stack", lambda np: np.column_stack([B, B, A.T])),
    ("append", lambda np: np.append(A, B)),
    ("append axis", lambda np: np.append(A, A, axis=0)),
    ("block", lambda np: np.block([[A, A], [A, A]])),
    ("split", lambda np: np.split(A, 2, axis=1)),
    ("split indices", lambda np: np.split(A, [1, 3, -1], axis=1)),
    ("array_split", lambda np: np.array_split(B, 3)),
    ("hsplit", lambda np: np.hsplit(A, 2)),
    ("vsplit", lambda np: np.vsplit(A, 3)),
    ("dsplit", lambda np: np.dsplit(T, 2)),
    ("unstack", lambda np: np.unstack(T, axis=1)),
    ("flip", lambda np: np.flip(T)),
    ("flip axes", lambda np: np.flip(T, (0, -1))),
    ("fliplr", lambda np: np.fliplr(A)),
    ("flipud", lambda np: np.flipud(A)),
    ("roll", lambda np: np.roll(A, 2)),
    ("roll axis", lambda np: np.roll(A, -1, 1)),
    ("roll axes", lambda np: np.roll(T, (1, -2), (0, -1))),
    ("roll more than size", lambda np: np.roll(A, 9, 0)),
    *[(f"rot90 {k}", lambda np, k=k: np.rot90(T, k, (0, 2))) for k in range(-1, 5)],
    ("tile", lambda np: np.tile(A, 2)),
    ("tile axes", lambda np: np.tile(A, (2, 1, 3))),
    ("tile few", lambda np: np.tile(T, (2,))),
    ("repeat", lambda np: np.repeat(A, 3)),
    ("repeat axis", lambda np: np.repeat(A, 2, axis=-2)),
    ("repeat array", lambda np: np.repeat(A, [1, 0, 3], axis=0)),
    *[(f"tril {k}", lambda np, k=k: np.tril(T, k)) for k in (-1, 0, 2)],
    *[(f"triu {k}", lambda np, k=k: np.triu(T, k)) for k in (-1, 0, 2)],
    *[
        (f"diagonal {k} {x.shape}", lambda np, k=k, x=x: np.diagonal(x, k))
        for k in (-4, -2, 0, 1, 3, 5)
        for x in (A, A.T)
    ],
    ("diagonal axes", lambda np: np.diagonal(T, 1, 2, 0)),
    *[(f"diag {k}", lambda np, k=k: np.diag(B, k)) for k in (-2, 0, 1)],
    ("diag matrix", lambda np: np.diag(A, 1)),
    ("diagflat", lambda np: np.diagflat(A)),
    ("trace", lambda np: np.trace(A)),
    ("trace axes", lambda np: np.trace(T, 1, 0, 2)),
    ("diff", lambda np: np.diff(A)),
    ("diff 2", lambda np: np.diff(A, 2, axis=0)),
    ("diff ends", lambda np: np.diff(A, prepend=0.0, append=A[:, :1])),
    ("diff bool", lambda np: np.diff(M)),
    ("trapezoid", lambda np: np.trapezoid(A, dx=0.5)),
    ("trapezoid x", lambda np: np.trapezoid(A, B)),
    # padding
    *[
        (f"pad {mode} {width}", lambda np, mode=mode, width=width: np.pad(A, width, mode))
        for mode in ("constant", "edge", "reflect", "symmetric", "wrap")
        for width in (1, ((0, 2), (3, 1)), ((7, 11), (9, 0)))
    ],
    ("pad values", lambda np: np.pad(A, ((1, 2), (3, 0)), constant_values=((1, 2), (3, 4)))),
    ("pad value", lambda np: np.pad(A, 1, constant_values=5)),
    ("pad value ints", lambda np: np.pad(K, (1, 2), constant_values=5)),
    ("pad one", lambda np: np.pad(A[:1], 2, "reflect")),
    # order
    ("sort", lambda np: np.sort(A, axis=0)),
    ("argsort", lambda np: np.argsort(A)),
    ("take", lambda np: np.take(A, np.asarray([[0, 2], [1, 1]]), axis=0)),
    ("take clip", lambda np: np.take(A, np.asarray([-7, 1, 40]), axis=0, mode="clip")),
    ("take flat", lambda np: np.take(A, np.asarray([0, 5]))),
    ("take_along_axis", lambda np: np.take_along_axis(A, np.argsort(A, axis=1), axis=1)),
    ("searchsorted", lambda np: np.searchsorted(np.sort(B), A, side="right")),
    ("digitize", lambda np: np.digitize(A, np.asarray([-1.0, 0.0, 1.0], dtype=np.float32))),
    # products
    ("vdot", lambda np: np.vdot(C, C)),
    ("outer", lambda np: np.outer(A, B)),
    ("kron", lambda np: np.kron(A, np.stack([B, B]))),
    ("kron 1", lambda np: np.kron(B, A)),
    ("cross", lambda np: np.cross(T, T[::-1], axis=1)),
    ("cross broadcast", lambda np: np.cross(A.T, A[:, 0])),
    ("vecdot", lambda np: np.vecdot(T, A)),
    ("vecdot complex", lambda np: np.vecdot(C, C[0])),
    ("inner", lambda np: np.inner(T, A)),
    ("inner scalar", lambda np: np.inner(A, S)),
    ("tensordot", lambda np: np.tensordot(T, A.T, axes=1)),
    ("tensordot axes", lambda np: np.tensordot(T, A, axes=([2, 1], [1, 0]))),
    ("tensordot 0", lambda np: np.tensordot(B, B, axes=0)),
    ("mixed dtypes", lambda np: np.matmul(A, J.astype(np.float32))),
    # creation
    ("zeros", lambda np: np.zeros((2, 3), np.float32)),
    ("ones int", lambda np: np.ones(4, np.int32)),
    ("full", lambda np: np.full((2, 4), B)),
    ("full number", lambda np: np.full(3, 2.5, np.float32)),
    ("full_like", lambda np: np.full_like(A, 2)),
    ("zeros_like", lambda np: np.zeros_like(A, dtype=np.int32)),
    ("ones_like", lambda np: np.ones_like(K)),
    ("arange", lambda np: np.arange(5)),
    ("arange step", lambda np: np.arange(7, 0, -2)),
    ("arange float", lambda np: np.arange(0.5, 3, 0.5)),
    ("arange empty", lambda np: np.arange(3, 1)),
    ("linspace", lambda np: np.linspace(-1, 2, 7)),
    ("linspace open", lambda np: np.linspace(-1, 2, 6, endpoint=False)),
    ("linspace arrays", lambda np: np.linspace(B, A, 3, axis=-1)),
    ("linspace step", lambda np: np.linspace(0.0, 2.0, 5, retstep=True)),
    ("linspace int", lambda np: np.linspace(0, 9, 4, dtype=np.int32)),
    ("linspace one", lambda np: np.linspace(3, 9, 1)),
    ("logspace", lambda np: np.logspace(0, 2, 3)),
    ("geomspace", lambda np: np.geomspace(1.0, 16.0, 5)),
    ("eye", lambda np: np.eye(3, 4, 1)),
    ("identity", lambda np: np.identity(3)),
    ("tri", lambda np: np.tri(3, 4, -1)),
    ("meshgrid", lambda np: np.meshgrid(B, B[:2], B[:3])),
    ("meshgrid ij", lambda np: np.meshgrid(B, B[:2], indexing="ij")),
    ("meshgrid sparse", lambda np: np.meshgrid(B, B[:2], sparse=True)),
    ("indices", lambda np: np.indices((2, 3))),
    ("tril_indices", lambda np: np.tril_indices(3)),
    ("asarray", lambda np: np.asarray([[1, 2], [3, 4]])),
    ("asarray nested", lambda np: np.asarray([[A[0], B], [B, A[1]]])),
    ("array ndmin", lambda np: np.array(B, ndmin=3)),
    # norms
    *[
        (f"norm {o}", lambda np, o=o: np.linalg.norm(A, o, axis=1))
        for o in (None, 0, 1, 2, 3, np.inf, -np.inf, -1, 0.5)
    ],
    *[
        (f"norm matrix {o}", lambda np, o=o: np.linalg.norm(T, o, axis=(1, 2), keepdims=True))
        for o in (None, "fro", 1, -1, np.inf, -np.inf)
    ],
    ("norm flat", lambda np: np.linalg.norm(T)),
    ("norm axes swapped", lambda np: np.linalg.norm(T, 1, axis=(2, 0))),
    ("norm complex", lambda np: np.linalg.norm(C, axis=0)),
    ("norm ints", lambda np: np.linalg.norm(K)),
    ("vector_norm", lambda np: np.linalg.vector_norm(T, axis=(0, 2), ord=3)),
    ("matrix_norm", lambda np: np.linalg.matrix_norm(T)),
    ("matrix_power", lambda np: np.linalg.matrix_power(A[:, :3], 5)),
]


@in_groups(CASES)
def test_functions(group: list[tuple[str, Any]]) -> None:
    check_group(group, np.float32(1.0), rtol=2e-4, atol=1e-5)


def test_logsumexp() -> None:
    x = np.array([[1000.0, 1000.0], [-np.inf, -np.inf], [0.0, 1.0]])
    check_value(
        lambda x: tnp.logsumexp(x, axis=1, keepdims=True),
        lambda x: np.array([[1000 + np.log(2)], [-np.inf], [np.log(1 + np.e)]]),
        x,
    )


SHAPES: list[tuple[Any, Any]] = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (6, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((5, 6, 2, 3), (5, 1, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((6, 5, 2, 3), (5, 3, 4)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((4, 1, 1), (4, 1, 3)),
]


def test_matmul() -> None:
    pairs = [(RNG.normal(size=a), RNG.normal(size=b)) for a, b in SHAPES]

    def all_products(np: Any) -> Any:
        return lambda pairs: [(np.matmul(x, y), np.dot(x, y) if y.ndim <= 2 else np.matmul(x, y)) for x, y in pairs]

    check_value(all_products(tnp), all_products(np), pairs)


EINSUM = [
    "i,i->",
    "i,i->i",
    "i,j->ij",
    "i,j->ji",
    "ij->ji",
    "ij->",
    "ij->j",
    "ii->",
    "ii->i",
    "iij->j",
    "iji->ij",
    "ij,jk->ik",
    "ij,kj->ki",
    "ij,jk",
    "ij,ji->",
    "bij,bjk->bik",
    "bij,bkj->bik",
    "bhqd,bhkd->bhqk",
    "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd",
    "...ij,jk->...ik",
    "...ij,...jk->...ik",
    "i...,i...->...",
    "bi,i->bi",
    "i,bi->bi",
    "bi,b->bi",
    "ij,ij->ij",
    "ij,ji->ij",
    "ij,jk,kl->il",
    "ij,jk,kl,lm->im",
    "i,i,i->i",
    "a,b,c->abc",
    "ij,k->ij",
    "ii,ij->j",
    "abc,cd,ad->b",
    "...,...->...",
    "ijk->",
    "ba",
    "i->i",
    "ab,bc,cd,de->",
    "ij,ij,ij->",
]


SIZES = {"a": 2, "b": 2, "c": 4, "d": 5, "e": 6, "h": 3, "i": 3, "j": 4, "k": 2, "l": 5, "m": 3, "q": 4, "x": 2, "y": 3}


def einsum_operands(subscripts: str) -> list[np.ndarray]:
    terms = subscripts.split("->")[0].replace("...", "xy").split(",")
    return [RNG.normal(size=[SIZES[c] for c in term]) for term in terms]


def test_einsum() -> None:
    operands = [einsum_operands(subscripts) for subscripts in EINSUM]

    def products(np: Any) -> Any:
        return lambda operands: [np.einsum(s, *xs) for s, xs in zip(EINSUM, operands, strict=True)]

    check_value(products(tnp), products(np), operands)


def test_einsum_broadcasts_sizes_of_one_and_takes_lists() -> None:
    x, y = RNG.normal(size=(2, 1)), RNG.normal(size=(3, 4))
    check_value(
        lambda x, y: tnp.einsum("ij,jk->ik", x, y), lambda x, y: np.einsum("ij,jk->ik", x, y[:1] * 0 + y.sum(0)), x, y
    )
    check_value(
        lambda x, y: tnp.einsum(x, [0, 1], y, [2, 1], [0, 2]),
        lambda x, y: np.einsum(x, [0, 1], y, [2, 1], [0, 2]),
        y,
        y,
    )
    check_value(lambda x: tnp.einsum(x, [..., 0]), lambda x: np.einsum(x, [..., 0]), x)


def test_fix_is_trunc():
    # NumPy 2.5 says so too, by a warning from numpy.fix.
    np.testing.assert_array_equal(tnp.fix(A), np.trunc(A))
