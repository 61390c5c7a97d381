"""`tracegrad.lax` against `jax.lax`: every name, its values, and its first and second derivatives."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_value

PARTS = "a part of a larger function of ours"
OTHER_AXES = "a collective that is not in tracegrad.parallel"
TOKENS = "orders side effects, and a tape has none"
RAGGED = "for mixture-of-experts kernels, with lowerings of its own for each accelerator"

NOT_PROVIDED: dict[str, str] = {
    "RaggedDotDimensionNumbers": RAGGED,
    "ragged_dot": RAGGED,
    "ragged_dot_general": RAGGED,
    "scaled_dot": RAGGED,
    "RandomAlgorithm": "see rng_bit_generator",
    "rng_bit_generator": "random numbers come from tracegrad.random, by key",
    "rng_uniform": "random numbers come from tracegrad.random, by key",
    "Tolerance": "the accuracy of single functions is not chosen; AccuracyMode is a name for annotations",
    "after_all": TOKENS,
    "create_token": TOKENS,
    "dce_sink": TOKENS,
    "pbroadcast": OTHER_AXES,
    "precv": OTHER_AXES,
    "psend": OTHER_AXES,
    "pswapaxes": OTHER_AXES,
    "ragged_all_to_all": OTHER_AXES,
    "composite": "names a part of a program for a compiler that replaces it",
    "custom_linear_solve": "write the solver as a custom_vjp",
    "custom_root": "write the solver as a custom_vjp",
    "fft": "tracegrad.numpy.fft",
    "index_take": "x[index] and tracegrad.numpy.take",
    "linalg": "tracegrad.numpy.linalg and tracegrad.scipy.linalg",
    "mulhi": "the upper half of a product: use wider integers",
    "platform_dependent": "jax.export and jax.jit choose a platform; a tape is the same on all",
    "random_gamma_grad": "a part of jax.random.gamma",
    "scatter_apply": "x.at[index].apply",
    "shape_as_value": "for symbolic shapes, which a tape has not",
    "stage": "for host offloading",
    "with_sharding_constraint": "jax.jit's in_shardings and out_shardings pass through tracegrad.jit",
}
"""Public names of `jax.lax` that are not here, and why."""

X = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) / 7.0 - 1.2
V = np.array([0.3, -1.2, 2.4, 0.7, -0.1])
I = np.array([3, -5, 7, 12], np.int32)  # noqa: E741
J = np.array([2, 3, -4, 5], np.int32)
B = np.array([True, False, True, False])


def names(module: Any) -> list[str]:
    return [n for n in dir(module) if not n.startswith("_") and not n.endswith("_p")]


def test_every_name_is_provided_or_has_a_reason() -> None:
    missing = [n for n in names(jax.lax) if n not in tg.lax.__all__ and n not in NOT_PROVIDED]
    assert not missing
    assert not [n for n in NOT_PROVIDED if n in tg.lax.__all__]
    assert all(hasattr(tg.lax, n) for n in tg.lax.__all__)
    assert all(len(reason) > 10 for reason in NOT_PROVIDED.values())


OF_A_NEWER_JAX = {
    "all_gather": {"to"},
    "reduce_max": {"out_sharding"},
    "reduce_min": {"out_sharding"},
    "reduce_prod": {"out_sharding"},
    "top_k": {"is_stable"},
}
"""Parameters that `jax.lax` gained, or has for the other functions of a kind."""


def test_arguments_have_the_names_and_the_order_of_jax_lax() -> None:
    wrong, ops, functions = [], 0, 0
    kind = inspect.Parameter
    for name in set(names(jax.lax)) & set(tg.lax.__all__):
        ours, theirs = getattr(tg.lax, name), getattr(jax.lax, name)
        if ours is theirs:
            continue
        expected = inspect.signature(theirs).parameters.values()
        if isinstance(ours, tg.Op):
            # An op takes operands by their position, and nothing else.
            ops += 1
            operands = [
                p
                for p in inspect.signature(ours.lower).parameters.values()
                if p.kind not in (kind.KEYWORD_ONLY, kind.VAR_KEYWORD)
            ]
            if len(operands) != len(expected) or any(p.default is not p.empty for p in expected):
                wrong.append(f"{name}: an op of {len(operands)} operands, in jax.lax {list(map(str, expected))}")
            continue
        functions += 1
        actual = inspect.signature(ours).parameters.values()
        for kinds in ((kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD, kind.VAR_POSITIONAL), (kind.KEYWORD_ONLY,)):
            a, b = ([p.name for p in ps if p.kind in kinds] for ps in (actual, expected))
            more = OF_A_NEWER_JAX.get(name, set())
            if [p for p in a if p not in more] != [p for p in b if p not in more]:
                wrong.append(f"{name}: {a}, in jax.lax {b}")
    assert not wrong, "\n".join(wrong)
    assert ops > 40 and functions > 80


# -- elementwise

ONE = "abs acos acosh asin asinh atan atanh cbrt ceil cos cosh digamma erf erf_inv erfc exp exp2 expm1 floor is_finite"
ONE += " lgamma log log1p logistic neg reciprocal round rsqrt sign sin sinh sqrt square tan tanh"
TWO = "add atan2 div eq ge gt le lt max min mul ne nextafter pow rem sub"
SHIFTS = "shift_left shift_right_arithmetic shift_right_logical"
ON_INTEGERS = "add bitwise_and bitwise_or bitwise_xor div eq ge gt le lt max min mul ne rem sub"
ONE_INTEGER = "abs bitwise_not clz neg population_count sign square"
UNIT = np.array([0.2, 0.5, 0.9], np.float32)


def elementwise(lax: Any, x: Any, y: Any, i: Any, j: Any) -> dict[str, Any]:
    shifted = {"acosh": x + 1}
    out = {name: getattr(lax, name)(shifted.get(name, x)) for name in ONE.split()}
    out |= {name: getattr(lax, name)(x, y) for name in TWO.split()}
    out |= {f"{name} of integers": getattr(lax, name)(i, j) for name in ON_INTEGERS.split()}
    out |= {name: getattr(lax, name)(i, abs(j)) for name in SHIFTS.split()}
    out |= {f"{name} of integers": getattr(lax, name)(i) for name in ONE_INTEGER.split()}
    out["integer_pow"] = lax.integer_pow(x, -2)
    out["to even"] = lax.round(x * 5 - 2, lax.RoundingMethod.TO_NEAREST_EVEN)
    out["away from zero"] = lax.round(x * 5 - 2)
    out["complex"] = lax.complex(x, y)
    for name in ("conj", "real", "imag"):
        out[name] = getattr(lax, name)(out["complex"])
    out["reduce_precision"] = lax.reduce_precision(x, 5, 3)
    out["clamp"] = lax.clamp(np.float32(0.3), x, np.float32(0.6))
    out["select"] = lax.select(x > y, x, y)
    out["select_n"] = lax.select_n(x > y, x, y)
    out["select_n of three"] = lax.select_n(np.array([0, 2, 1], np.int32), x, y, -x)
    out["polygamma"] = lax.polygamma(np.ones_like(UNIT), x)
    return out


def test_elementwise_values() -> None:
    check_value(
        partial(elementwise, tg.lax), jax.jit(partial(elementwise, jax.lax)), UNIT, UNIT[::-1].copy() + 0.3, I, J,
        rtol=1e-4, dtype=True, only=("jit",),
    )  # fmt: skip


def differentiable(lax: Any, x: Any) -> list[Any]:
    z = lax.complex(x, x * 2)
    # Nothing is a multiple of the divisor: there the remainder jumps.
    return [
        lax.integer_pow(x, 3), lax.clamp(-0.5, x, 0.9), lax.select(x > 0, x * x, x), lax.rem(x, 0.37 + 0 * x),
        lax.select_n(np.array([0, 1, 2, 1, 0], np.int32), x, x * x, 3 * x), lax.real(lax.conj(z) * z),
        lax.round(x), lax.pow(x * x + 1, x), lax.div(x, x * x + 1),
    ]  # fmt: skip


def test_elementwise_derivatives() -> None:
    check_grads(partial(differentiable, tg.lax), V, jax_fn=partial(differentiable, jax.lax))


# -- groups of functions: what each gives, and the derivatives of all of a group, in one program

Group = tuple[Callable[..., Any], tuple[Any, ...]]


def shapes(lax: Any, x: Any) -> list[Any]:
    return [
        lax.broadcast(x, (2,)), lax.broadcast_in_dim(x, (2, 5, 3, 4), (0, 2, 3)), lax.broadcast_to_rank(x, 5),
        lax.broadcast_like(x, np.zeros((5, 2, 3, 4))), lax.reshape(x, (4, 6)), lax.reshape(x, (4, 6), (2, 0, 1)),
        lax.transpose(x, (2, 0, 1)), lax.squeeze(x[:1], (0,)), lax.expand_dims(x, (0, 2)), lax.collapse(x, 1),
        lax.collapse(x, 0, 2), lax.rev(x, (0, 2)), lax.concatenate([x, x * x], 1), lax.stack([x, x * x], 1),
        *lax.unstack(x, 1), lax.tile(x, (1, 2, 1)), *lax.split(x, (1, 3), 2), lax.optimization_barrier(x),
        lax.optimization_barrier({"a": x, "b": (x * x,)}), lax.convert_element_type(x, int),
        lax.convert_element_type(x, complex), lax.full_like(x, 2.5), lax.zeros_like_array(x),
        lax.iota(np.float32, 5), lax.broadcasted_iota(np.int32, (2, 3), 1), lax.full((2, 2), x[0, 0, 0]),
        lax.empty((2,), np.float32),
    ]  # fmt: skip


def slices(lax: Any, x: Any, u: Any, p: Any, i: Any) -> list[Any]:
    return [
        lax.pad(x, p, ((1, 2, 0), (0, -1, 2), (-1, -2, 1))), lax.slice(x, (0, 1, 0), (2, 3, 4), (1, 1, 3)),
        lax.slice(x, (1, 1, 2), (2, 2, 4)), lax.slice_in_dim(x, 1, -1, 2, axis=-1), lax.slice_in_dim(x, None, 1),
        lax.index_in_dim(x, -1, 1), lax.index_in_dim(x, 1, 2, keepdims=False),
        lax.dynamic_slice(x, (i[0], np.int32(2), i[1]), (1, 2, 2)), lax.dynamic_slice(x, i, (1, 1, 3)),
        lax.dynamic_slice_in_dim(x, i[2], 2, 1), lax.dynamic_index_in_dim(x, i[1], 2),
        lax.dynamic_index_in_dim(x, -1, 2, keepdims=False), lax.dynamic_update_slice(x, u, (i[0], np.int32(1), i[2])),
        lax.dynamic_slice_in_dim(x, i[1], 2, 1, allow_negative_indices=False),
        lax.dynamic_update_slice_in_dim(x, x[:, :2] * 2, i[0], 1),
        lax.dynamic_update_index_in_dim(x, x[:, :, 0] * 2, i[1], 2),
    ]  # fmt: skip


SCANS = [
    ("cumsum", 0, False), ("cumprod", 2, True), ("cummax", 0, False), ("cummin", 2, True), ("cumlogsumexp", 0, True),
    ("cumlogsumexp", 2, False),
]  # fmt: skip


def scans(lax: Any, x: Any) -> list[Any]:
    return [getattr(lax, name)(x, axis=axis, reverse=reverse) for name, axis, reverse in SCANS]


def order(lax: Any, x: Any, y: Any, k: Any) -> list[Any]:
    return [
        lax.sort(x), *lax.sort((k, x, y), dimension=0, num_keys=2), *lax.sort([x, y], dimension=1, is_stable=False),
        *lax.sort_key_val(y, x), *lax.top_k(x, 2), *lax.top_k(x, 2, axis=0), *lax.approx_max_k(x, 2),
        *lax.approx_min_k(x, 1, reduction_dimension=0), lax.argmax(x, 1, np.int32), lax.argmin(x, 0, np.int32),
    ]  # fmt: skip


def reductions(lax: Any, x: Any) -> list[Any]:
    def wide(a: Any, b: Any) -> Any:
        return a + b + a * b

    return [
        lax.reduce_sum(x, (0, 2)), lax.reduce_prod(x, (1,)), lax.reduce_max(x, (0, 1)), lax.reduce_min(x, (2,)),
        lax.reduce(x, 0.0, jax.lax.add, (1,)), lax.reduce(x, -np.inf, jax.lax.max, (0, 1, 2)),
        lax.reduce(x, np.inf, jax.lax.min, ()), lax.reduce(x, 2.0, jax.lax.add, (1,)),
        lax.reduce(x, 1.0, jax.lax.mul, (0, 2)), lax.reduce(x, 0.0, wide, (1, 2)),
    ]  # fmt: skip


def products(lax: Any, x: Any, a: Any, b: Any) -> list[Any]:
    return [
        lax.dot(a, b), lax.dot(a[0], b), lax.dot(a[0], a[1]),
        lax.dot_general(x, x, (((2,), (2,)), ((0,), (0,)))), lax.dot_general(x, a, (((1,), (1,)), ((0,), (0,)))),
        lax.dot(x, x, dimension_numbers=(((1, 2), (1, 2)), ((), ()))), lax.batch_matmul(x, lax.transpose(x, (0, 2, 1))),
        lax.dot_general(a, b, (([1], [0]), ([], [])), preferred_element_type=a.dtype),
    ]  # fmt: skip


WINDOWS = [(0.0, jax.lax.add), (-np.inf, jax.lax.max), (np.inf, jax.lax.min)]


def windows(lax: Any, x: Any) -> list[Any]:
    return [
        out
        for first, combine in WINDOWS
        for f in [partial(lax.reduce_window, x, first, combine)]
        for out in (
            f((1, 2, 3), (1, 1, 1), "VALID"), f((1, 3, 2), (1, 2, 1), "SAME"), f((2, 2, 2), (2, 1, 2), "SAME_LOWER"),
            f((2, 3, 4)),
        )
    ]  # fmt: skip


def dilated_windows(lax: Any, x: Any) -> list[Any]:
    def both(a: Any, b: Any) -> Any:
        return a + b - a * b

    return [
        out
        for first, combine in [*WINDOWS, (1.0, jax.lax.mul), (1.5, jax.lax.add), (0.0, both)]
        for f in [partial(lax.reduce_window, x, first, combine)]
        for out in (
            f((1, 2, 2), (1, 2, 1), ((0, 0), (0, 0), (1, 1)), (1, 2, 1), (1, 1, 2)),
            f((1, 2, 2), None, ((0, 0), (1, 0), (2, 1)), None, (1, 2, 3)),
        )
    ]  # fmt: skip


def convolutions(lax: Any, x: Any, k: Any, y: Any, q: Any, g: Any, loc: Any) -> list[Any]:
    """x: NCW, k: OIW, y: NWHC-like in 2-d, q: HWIO, g: a kernel for two groups, loc: one for each place."""
    return [
        lax.conv(x, k, (2,), "SAME"), lax.conv_with_general_padding(x, k, (1,), ((2, 1),), (2,), (2,)),
        lax.conv_general_dilated(x, k, (1,), ((1, 2),), dimension_numbers=("NCH", "OIH", "HNC")),
        lax.conv_general_dilated(y, q, (1, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        lax.conv_general_dilated(
            y, q, (1, 1), "VALID",
            dimension_numbers=lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
        ),
        lax.conv_general_dilated(x, g, (1,), "VALID", feature_group_count=2),
        lax.conv_general_dilated(x, k, (1,), ((0, 1),), (2,), batch_group_count=2),
        *[
            lax.conv_transpose(y, q, (2, 3), padding, transpose_kernel=flip, use_consistent_padding=same)
            for padding, flip, same in (
                ("SAME", False, False), (((1, 0), (2, 1)), False, False),
                (((1, 0), (0, 1)), False, True),
            )
        ],
        lax.conv_transpose(y, lax.transpose(q, (0, 1, 3, 2)), (2, 2), "SAME", transpose_kernel=True),
        lax.conv_transpose(y, q, (1, 1), "VALID", rhs_dilation=(2, 1)),
        lax.conv_general_dilated_patches(x, (3,), (1,), "SAME"),
        lax.conv_general_dilated_patches(y, (2, 2), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")),
        lax.conv_general_dilated_local(x, loc, (1,), "VALID", (2,)),
    ]  # fmt: skip


ROWS = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
BLOCKS = jax.lax.GatherDimensionNumbers(offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0, 1))
BATCHED = jax.lax.GatherDimensionNumbers((1,), (), (1,), (0,), (0,))


def _scattering(numbers: Any) -> Any:
    return jax.lax.ScatterDimensionNumbers(*numbers)


AT = np.array([[2], [0], [9], [2]], np.int32)
CORNERS = np.array([[0, 1], [1, 0], [2, 3], [0, 0]], np.int32)


def gathers(lax: Any, m: Any, rows: Any, blocks: Any, column: Any) -> list[Any]:
    """m: (4, 5), rows: (4, 5), blocks: (4, 2, 2), column: (4, 2)."""
    fill = {"mode": "fill", "fill_value": 0}
    start = np.array([[1], [2], [0], [3]], np.int32)
    out = [
        lax.gather(m, AT, ROWS, (1, 5), mode="clip"), lax.gather(m, AT, ROWS, (1, 5), **fill),
        lax.gather(m, AT[:2], ROWS, (1, 5)), lax.gather(m, CORNERS, BLOCKS, (2, 2), **fill),
        lax.gather(m, CORNERS, BLOCKS, (3, 2), mode=lax.GatherScatterMode.CLIP),
        lax.gather(m, start, BATCHED, (1, 2), mode="promise_in_bounds"),
    ]  # fmt: skip
    for name in ("scatter", "scatter_add", "scatter_sub", "scatter_mul", "scatter_min", "scatter_max"):
        f = getattr(lax, name)
        out += [
            f(m, start, column, _scattering(BATCHED), unique_indices=True), f(m, AT, rows, _scattering(ROWS)),
            f(m, AT, rows, _scattering(ROWS), mode="clip"), f(m, CORNERS, blocks, _scattering(BLOCKS)),
        ]  # fmt: skip
    return out


_rng = np.random.default_rng(1)


def _array(*shape: int) -> np.ndarray:
    """Elements no two of which are near each other, so that no maximum changes between differences."""
    n = int(np.prod(shape))
    return (_rng.permutation(n).reshape(shape) - n / 2 + 0.25) / (0.45 * n)


GROUPS: dict[str, Group] = {
    "shapes": (shapes, (X,)),
    "slices": (slices, (X, _array(1, 2, 2), np.float64(0.4), np.array([-1, 1, -2], np.int32))),
    "scans": (scans, (X,)),
    "order": (order, (X, _array(2, 3, 4), _rng.integers(0, 2, (2, 3, 4)).astype(np.int32))),
    "reductions": (reductions, (X,)),
    "products": (products, (X, _array(2, 3), _array(3, 4))),
    "windows": (windows, (X,)),
    "dilated windows": (dilated_windows, (X,)),
    "convolutions": (
        convolutions,
        (_array(2, 4, 5), _array(2, 4, 2), _array(1, 3, 4, 2), _array(2, 2, 2, 3), _array(4, 2, 2), _array(3, 8, 4)),
    ),
    "gathers": (gathers, (_array(4, 5), _array(4, 5) + 0.02, _array(4, 2, 2) + 0.01, _array(4, 2) + 0.03)),
}


@pytest.mark.parametrize("name", GROUPS)
def test_values(name: str) -> None:
    fn, args = GROUPS[name]
    # Eager calls compile each op alone: a sample of them will do.
    only = ("eager", "jit") if name == "slices" else ("jit",)
    check_value(partial(fn, tg.lax), jax.jit(partial(fn, _Theirs())), *args, dtype=True, only=only)


LINEAR = ("convolutions", "products", "windows")
"""Groups whose second derivatives are those of ops that have tests of their own."""


@pytest.mark.parametrize("name", GROUPS)
def test_derivatives(name: str) -> None:
    fn, args = GROUPS[name]
    # JAX has no derivative for products scattered to one element twice, nor for the maximum of spread-out windows.
    known = None if name in ("gathers", "dilated windows") else partial(fn, _Theirs())
    check_grads(partial(fn, tg.lax), *args, jax_fn=known, order=1 if name in LINEAR else 2)


class _Theirs:
    """`jax.lax`, with a function that had this name in earlier versions."""

    def __getattr__(self, name: str) -> Any:
        return jnp.zeros_like if name == "zeros_like_array" else getattr(jax.lax, name)


# -- what the groups do not show


def test_reductions_of_several_arrays_and_of_bits() -> None:
    def largest(a: Any, b: Any) -> Any:
        first = a[0] >= b[0]
        return tnp.where(first, a[0], b[0]), tnp.where(first, a[1], b[1])

    x = np.array([[3.0, 9.0, 4.0], [7.0, 1.0, 2.0]], np.float32)
    where = np.broadcast_to(np.arange(3, dtype=np.int32), (2, 3))
    for run in (lambda f: f(x, where), lambda f: tg.jit(f)(x, where)):
        top, at = run(lambda x, w: tg.lax.reduce((x, w), (-np.inf, -1), largest, (1,)))
        assert (top.tolist(), at.tolist()) == ([9.0, 7.0], [1, 0])
        tops, _ = run(lambda x, w: tg.lax.reduce_window((x, w), (-np.inf, -1), largest, (1, 2)))
        assert tops.tolist() == [[9.0, 9.0], [7.0, 2.0]]
    bits = np.array([[12, 10, 6], [1, 3, 5]], np.int32)
    masks = bits > 4
    for name in ("reduce_and", "reduce_or", "reduce_xor"):
        for operand in (bits, masks):
            ours, theirs = getattr(tg.lax, name)(operand, (1,)), getattr(jax.lax, name)(operand, (1,))
            assert ours.tolist() == theirs.tolist() and ours.dtype == theirs.dtype
    assert tg.lax.reduce(bits, 0, jax.lax.add, (0, 1)).item() == 37
    assert tg.lax.reduce(np.zeros((0, 2), np.float32), 3.0, tg.lax.max, (0,)).tolist() == [3.0, 3.0]
    low = tg.lax.reduce_window(bits.astype(np.uint8), np.uint8(255), tg.lax.min, (2, 2))
    assert (low.tolist(), low.dtype) == ([[1, 3]], np.uint8)


def test_large_windows_are_not_unrolled() -> None:
    x = _array(1, 90)

    def f(lax: Any, x: Any) -> list[Any]:
        return [
            lax.reduce_window(x, first, combine, (1, 80), (1, 3), ((0, 0), (0, 5))) for first, combine in WINDOWS[:1]
        ] + [lax.reduce_window(x, 0.0, jax.lax.add, (1, 70), (1, 1), "SAME", window_dilation=(1, 2))]

    check_value(partial(f, tg.lax), jax.jit(partial(f, jax.lax)), x, only=("jit",))
    check_grads(partial(f, tg.lax), x, jax_fn=partial(f, jax.lax), order=1)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_ties_of_running_extrema_share_equally(name: str) -> None:
    sign = 1.0 if name == "cummax" else -1.0
    x = sign * np.array([1.0, 3.0, 2.0, 3.0, 3.0, 5.0, 5.0], np.float32)
    ct = np.array([1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0], np.float32)
    grads = tg.grad(lambda x: (getattr(tg.lax, name)(x) * ct).sum())(x)
    # 3 is the extremum of five places: alone in two, one of two in one, one of three in one.
    np.testing.assert_allclose(grads, [1.0, 2.0 + 0.5 + 1.0, 0.0, 0.5 + 1.0, 1.0, 1.5, 0.5])


def test_running_logsumexp_of_nothing_but_minus_infinity() -> None:
    x = np.array([-np.inf, -np.inf, -800.0, 1.0], np.float32)
    grad = tg.grad(lambda x: tnp.where(tnp.isfinite(x), tg.lax.cumlogsumexp(x), 0.0).sum())
    assert grad(x).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_bits_of_numbers() -> None:
    x = np.array([1.5, -2.0], np.float32)
    for operand, dtype in ((x, np.int32), (x, np.uint8), (np.arange(8, dtype=np.uint8).reshape(2, 4), np.float32)):
        ours, theirs = tg.lax.bitcast_convert_type(operand, dtype), jax.lax.bitcast_convert_type(operand, dtype)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_rounded_precision_rounds_the_cotangent_too() -> None:
    x = np.float32(1.0 + 2**-9)
    grad = tg.grad(lambda x: tg.lax.reduce_precision(x, 8, 7) * np.float32(1 + 2**-9))(x)
    assert float(grad) == 1.0


def test_control_flow_is_here_too() -> None:
    def f(x: Any) -> Any:
        total, _ = tg.lax.scan(lambda c, a: (c * a, None), 1.0, x)
        return tg.lax.cond(total > 0, lambda t: t, lambda t: -t, total)

    assert tg.grad(f)(np.array([2.0, -3.0], np.float32)).tolist() == [3.0, -2.0]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda L: L.pad(X, 0.0, [(0, 0, 0)]), ValueError, ("pad", "padding_config", "f32[2,3,4]", "each axis")),
        (lambda L: L.pad(X, 0.0, [(0, 0, -1)] * 3), ValueError, ("pad", "interior")),
        (lambda L: L.slice(X, (0, 0, 0), (2, 3, 9)), ValueError, ("slice", "(2, 3, 9)", "(2, 3, 4)")),
        (lambda L: L.slice(X, (0,), (1,)), ValueError, ("slice", "f32[2,3,4]")),
        (lambda L: L.index_in_dim(X, 7, 1), IndexError, ("index 7", "axis 1", "(2, 3, 4)")),
        (lambda L: L.dynamic_slice(X, (0, 0), (1, 1)), ValueError, ("dynamic_slice", "2 starts")),
        (lambda L: L.dynamic_slice(X, np.int32(1), (1, 1)), ValueError, ("dynamic_slice", "i32[]")),
        (lambda L: L.select_n(B, I, I, I), ValueError, ("select_n", "3 cases", "bool")),
        (lambda L: L.select_n(X, X, X), TypeError, ("select_n", "f32[2,3,4]")),
        (lambda L: L.dot(X, X), ValueError, ("dot", "f32[2,3,4]", "dimension_numbers")),
        (lambda L: L.dot_general(X, X, (((0,), (1,)), ((), ()))), ValueError, ("contracted", "(2, 3, 4)")),
        (lambda L: L.dot_general(X, X, (((0,), ()), ((), ()))), ValueError, ("dot", "contracted", "as many")),
        (lambda L: L.batch_matmul(X, X), ValueError, ("contracted", "(2, 3, 4)")),
        (lambda L: L.conv_transpose(X, X, (1,), "FULL"), ValueError, ("conv_transpose", "FULL", "SAME")),
        (lambda L: L.reduce(X, (0.0, 0.0), L.add, (0,)), ValueError, ("reduce", "init_values", "pytree")),
        (lambda L: L.reduce(X, 0.0, lambda a, b: (a, b), (0,)), TypeError, ("reduce", "must return what it takes")),
        (lambda L: L.reduce(X, 0.0, L.add, (3,)), ValueError, ("reduce", "axis 3")),
        (lambda L: L.reduce_window(X, 0.0, L.add, (2,)), ValueError, ("window_dimensions", "3 spatial axes")),
        (lambda L: L.reduce_window(X, 0.0, L.add, (3, 3, 3)), ValueError, ("window", "(3, 3, 3)", "(2, 3, 4)")),
        (lambda L: L.reduce_window(X, 1.0, L.mul, (3, 3, 3)), ValueError, ("window", "(3, 3, 3)", "(2, 3, 4)")),
        (lambda L: L.cumsum(X, axis=5), ValueError, ("cumsum", "axis 5")),
        (lambda L: L.sort((X, X[0])), ValueError, ("sort", "(2, 3, 4)", "(3, 4)")),
        (lambda L: L.sort((X, X), num_keys=3), ValueError, ("sort", "first 3 of 2")),
        (lambda L: L.split(X, (1, 1), 1), ValueError, ("split", "(1, 1)", "axis 1")),
        (lambda L: L.broadcast_in_dim(X, (2, 3, 5), (0, 1, 2)), ValueError, ("(2, 3, 4)", "(2, 3, 5)")),
        (lambda L: L.gather(X, I, ROWS, (1, 5)), (ValueError, TypeError), ("gather",)),
        (lambda L: L.gather(X, I, ROWS, (1, 5), mode="one_hot"), ValueError, ("mode", "one_hot", "clip")),
        (lambda L: L.scatter_add(X, I, X, _scattering(ROWS)), (ValueError, TypeError), ("scatter",)),
        (lambda L: L.collapse(X, 2, 1), ValueError, ("collapse", "(2, 3, 4)")),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_and_where(call: Any, error: Any, words: tuple[str, ...]) -> None:
    for run in (lambda: call(tg.lax), lambda: tg.jit(lambda: call(tg.lax))()):
        with pytest.raises(error) as caught:
            run()
        for word in (*words, "test_lax.py"):
            assert word in str(caught.value)


# -- keywords


WITH_ACCURACY = "cbrt cos exp exp2 expm1 log log1p logistic rsqrt sin sqrt tan tanh"


@pytest.mark.parametrize("name", WITH_ACCURACY.split())
def test_accuracy(name: str) -> None:
    best, x = jax.lax.AccuracyMode.HIGHEST, np.array([0.3, 0.9], np.float32)
    ours, theirs = (partial(getattr(m, name), accuracy=best) for m in (tg.lax, jax.lax))
    check_value(ours, theirs, x)
    check_grads(ours, x, jax_fn=theirs)
    assert getattr(tg.lax, name)(1, accuracy=best).dtype == np.float32


def test_log2_of_an_accuracy() -> None:
    x = np.array([0.3, 0.9])
    check_grads(lambda x: tg.lax.log2(x, accuracy=jax.lax.AccuracyMode.HIGHEST), x, jax_fn=jnp.log2)


def test_mul_of_an_out_dtype() -> None:
    x, y = V.astype(np.float16), V[::-1].astype(np.float16) * 300
    ours, theirs = (lambda x, y, m=m: m.mul(x, y, out_dtype=np.float32) for m in (tg.lax, jax.lax))
    check_value(ours, theirs, x, y, dtype=True)
    for i in (0, 1):
        got = tg.grad(lambda x, y: ours(x, y).sum(), i)(x, y)
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got, (y, x)[i])
    assert tg.lax.mul(2, 3, out_dtype=np.int32).dtype == np.int32


@pytest.mark.parametrize("x", [np.float32(1.5), np.array([1.5, -2.0], np.float32), 1.5, 1j, np.complex64(1 + 2j)])
def test_conj_is_complex(x: Any) -> None:
    ours, theirs = tg.lax.conj(x), jax.lax.conj(x)
    assert (ours.dtype, ours.weak_type) == (theirs.dtype, theirs.weak_type)
    np.testing.assert_array_equal(ours, theirs)
    part = lambda lax: lambda x: (lax.conj(x) ** 2 * (2 + 3j)).real.sum()  # noqa: E731
    gradient = tg.grad(part(tg.lax))(x)
    np.testing.assert_allclose(gradient, jax.grad(part(jax.lax))(x), rtol=1e-6)
    assert gradient.dtype == jax.grad(part(jax.lax))(x).dtype


def test_the_only_operand_of_a_branch_by_name() -> None:
    assert float(tg.lax.cond(True, tg.lax.sin, tg.lax.cos, operand=0.0)) == 0.0
    assert float(tg.grad(lambda x: tg.lax.switch(1, [tg.lax.sin, tg.lax.cos], operand=x))(0.0)) == 0.0
    assert tg.lax.cond(True, lambda x: 1.0, lambda x: 2.0, operand=None) == 1.0
    with pytest.raises(TypeError, match="operand="):
        tg.lax.cond(True, tg.lax.sin, tg.lax.cos, 1.0, operand=0.0)


def test_options_of_a_mesh_are_refused_by_name() -> None:
    mesh = jax.sharding.SingleDeviceSharding(jax.devices()[1])
    for call in (
        lambda: tg.lax.broadcast(V, (2,), out_sharding=mesh),
        lambda: tg.lax.reshape(V, (5, 1), out_sharding=mesh),
        lambda: tg.lax.reduce_sum(V, (0,), out_sharding=mesh),
        lambda: tg.lax.dot(V, V, out_sharding=mesh),
    ):
        with pytest.raises(NotImplementedError, match=r"^(broadcast|reshape|reduce_sum|dot): out_sharding=.*test_lax"):
            call()
    assert tg.lax.full((2,), 1.0, sharding=mesh).devices() == {jax.devices()[1]}
    with pytest.raises(ValueError, match=r"full_like: sharding=.*while a function is recorded"):
        tg.jit(lambda x: tg.lax.full_like(x, 0.0, sharding=mesh))(V)
    with pytest.raises(NotImplementedError, match="pmean: axis_index_groups"):
        tg.pmap(lambda x: tg.lax.pmean(x, "i", axis_index_groups=[[0, 1]]), axis_name="i")(np.ones((2, 1)))
