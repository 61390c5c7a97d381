"""Convolution and pooling against jax.lax, NumPy loops and differences."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import tracegrad as tg
from tests.reference import check_grads, check_value
from tracegrad import nn
from tracegrad.ops import conv_general_dilated


def normal(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


NWC, NHWC, NDHWC = ("NWC", "WIO", "NWC"), ("NHWC", "HWIO", "NHWC"), ("NDHWC", "DHWIO", "NDHWC")
TWO: dict[str, Any] = {"dimension_numbers": NHWC}
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 7, 3), (3, 3, 4), {"window_strides": (2,), "padding": "SAME", "dimension_numbers": NWC}),
    ((2, 3, 7, 8), (4, 3, 3, 2), {"window_strides": (1, 2), "padding": [(1, 0), (2, 3)], "rhs_dilation": (2, 1)}),
    ((2, 3, 5, 6), (4, 3, 3, 2), {"window_strides": (2, 1), "padding": [(1, 2), (0, -1)], "lhs_dilation": (2, 3)}),
    ((2, 5, 5, 6), (3, 3, 3, 4), {"window_strides": (1, 1), "padding": "VALID", "feature_group_count": 2, **TWO}),
    ((2, 5, 5, 3), (3, 3, 1, 6), {"window_strides": (2, 2), "padding": "SAME", "feature_group_count": 3, **TWO}),
    ((4, 5, 5, 3), (3, 3, 3, 4), {"window_strides": (1, 1), "padding": "SAME_LOWER", "batch_group_count": 2, **TWO}),
    ((1, 4, 5, 3, 2), (2, 2, 2, 2, 3), {"window_strides": (1, 2, 1), "padding": "SAME", "dimension_numbers": NDHWC}),
    ((2, 4, 4, 3), (1, 1, 3, 2), {"window_strides": (1, 1), "padding": "VALID", **TWO}),
    ((3, 4), (5, 4), {"window_strides": (), "padding": "VALID"}),
]


def test_conv_general_dilated() -> None:
    operands = [(normal(*x), normal(*kernel)) for x, kernel, _ in CONVOLUTIONS]

    def every(conv: Any) -> Any:
        return lambda operands: [conv(*xs, **c[2]) for xs, c in zip(operands, CONVOLUTIONS, strict=True)]

    check_value(every(conv_general_dilated), every(lax.conv_general_dilated), operands, dtype=True)
    check_grads(every(conv_general_dilated), operands, jax_fn=every(lax.conv_general_dilated))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.complex64])
def test_conv_dtypes(dtype: Any) -> None:
    x, kernel = normal(1, 5, 2).astype(dtype), normal(3, 2, 2).astype(dtype)
    out = nn.conv(x, kernel)
    assert out.dtype == dtype
    grad = tg.grad(lambda k: abs(nn.conv(x, k)).sum().astype(np.float32))(kernel)
    assert grad.dtype == dtype and grad.shape == kernel.shape


def test_conv_promotes_and_accumulates() -> None:
    x, kernel = normal(1, 5, 2, dtype=np.float32), normal(3, 2, 2).astype(jnp.bfloat16)
    assert nn.conv(x, kernel).dtype == np.float32
    assert tg.grad(lambda k: nn.conv(x, k).sum())(kernel).dtype == jnp.bfloat16
    half = x.astype(jnp.bfloat16)
    wide = conv_general_dilated(half, kernel, (1,), "SAME", dimension_numbers=NWC, preferred_element_type=np.float32)
    assert wide.dtype == np.float32


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("args", "stride", "padding", "dilation", "groups"),
    [
        ({}, 1, "SAME", 1, 1),
        ({"stride": 2, "padding": "valid", "dilation": 2}, 2, "VALID", 2, 1),
        ({"padding": 1, "groups": 2}, 1, [(1, 1)], 1, 2),
        ({"padding": [(0, 2)]}, 1, [(0, 2)], 1, 1),
    ],
)
def test_nn_conv(rank: int, args: Any, stride: int, padding: Any, dilation: int, groups: int) -> None:
    args = {k: v * rank if isinstance(v, list) else v for k, v in args.items()}
    x, kernel = normal(2, *(5, 6, 7)[:rank], 4), normal(*(3, 2, 2)[:rank], 4 // groups, 2)
    numbers = (NWC, NHWC, NDHWC)[rank - 1]
    check_value(
        lambda x, kernel: nn.conv(x, kernel, **args),
        lambda x, kernel: lax.conv_general_dilated(
            x,
            kernel,
            (stride,) * rank,
            padding * rank if isinstance(padding, list) else padding,
            None,
            (dilation,) * rank,
            numbers,
            groups,
        ),
        x,
        kernel,
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nn.conv(normal(1, 5, 5, 3), normal(3, 3, 4, 2)), ["3 features", "4 a group", "3 != 4 * 1"]),
        (lambda: nn.conv(normal(1, 5, 5, 4), normal(3, 3, 2, 3), groups=2), ["feature_group_count=2", "3 output"]),
        (lambda: nn.conv(normal(5, 4), normal(3, 3, 2, 3)), ["f32[5,4]", "number of spatial axes", "test_conv.py"]),
        (lambda: nn.conv(normal(1, 5, 5, 4), normal(3, 3, 4, 3), padding="FULL"), ["'FULL'", "SAME", "test_conv.py"]),
        (lambda: nn.conv(normal(1, 5, 5, 4), normal(3, 3, 4, 3), stride=(1, 1, 1)), ["stride=(1, 1, 1)", "2 spatial"]),
        (lambda: nn.max_pool(normal(5, 4)), ["max_pool", "(N, ..., C)", "x[None]", "test_conv.py"]),
        (lambda: nn.max_pool(normal(1, 5, 4), 6), ["window", "does not fit", "(1, 5, 4)", "test_conv.py"]),
        (lambda: nn.avg_pool(normal(1, 5, 4), 0), ["window=0", "at least 1"]),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        call()
    for word in words:
        assert word in str(info.value)


# -- pooling

POOLS: list[tuple[tuple[int, ...], Any, Any, Any]] = [
    ((2, 6, 3), 2, None, "VALID"),
    ((2, 7, 3), 3, 2, "VALID"),
    ((2, 7, 3), 3, 1, "SAME"),
    ((2, 6, 8, 3), 2, None, "VALID"),
    ((2, 7, 5, 3), 2, None, "SAME"),
    ((2, 7, 5, 3), (3, 2), (2, 1), [(1, 2), (0, 1)]),
    ((2, 7, 5, 1), 2, 3, "VALID"),
    ((2, 4, 5, 3, 2), 2, None, "VALID"),
    ((1, 4, 5, 3, 2), (2, 3, 1), (2, 1, 1), [1, (0, 1), 0]),
    ((1, 70, 1), 66, 2, "VALID"),
    ((1, 140, 1), 66, None, "SAME"),
]
"""Shape, window, stride and padding; the last windows are too long to be unrolled."""


def windows(x: np.ndarray, window: Any, stride: Any, padding: Any, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """The elements of each window along a last axis, and how many of them are no padding."""
    rank = x.ndim - 2
    window = (window,) * rank if isinstance(window, int) else window
    stride = window if stride is None else (stride,) * rank if isinstance(stride, int) else stride
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:-1], window, stride, padding)
    elif isinstance(padding, int):
        padding = [(padding, padding)] * rank
    padding = [(p, p) if isinstance(p, int) else p for p in padding]
    pads = [(0, 0), *padding, (0, 0)]
    xp, real = np.pad(x, pads, constant_values=fill), np.pad(np.ones_like(x), pads)
    counts = [(n - k) // s + 1 for n, k, s in zip(xp.shape[1:-1], window, stride, strict=True)]

    def cut(a: np.ndarray) -> np.ndarray:
        offsets = itertools.product(*map(range, window))
        index = [
            tuple(slice(o, o + (m - 1) * s + 1, s) for o, m, s in zip(off, counts, stride, strict=True))
            for off in offsets
        ]
        return np.stack([a[(slice(None), *i)] for i in index], -1)

    return cut(xp), cut(real)


def test_pooling() -> None:
    def pools(xs: Any) -> Any:
        return [
            (nn.max_pool(x, *args), nn.avg_pool(x, *args), nn.avg_pool(x, *args, count_include_pad=False))
            for x, (_, *args) in zip(xs, POOLS, strict=True)
        ]

    def reference(xs: Any) -> Any:
        results = []
        for x, (_, *args) in zip(xs, POOLS, strict=True):
            highest = windows(x, *args, -np.inf)[0].max(-1)
            parts, real = windows(x, *args, 0)
            results.append((highest, parts.mean(-1), parts.sum(-1) / real.sum(-1)))
        return results

    xs = [normal(*shape) for shape, *_ in POOLS]
    check_value(pools, reference, xs, dtype=True)
    check_grads(lambda xs: [out**2 for outs in pools(xs) for out in outs], xs)


def test_ties_of_a_window_share_equally() -> None:
    x = np.ones((1, 4, 1), np.float32)
    assert tg.grad(lambda x: nn.max_pool(x, 2).sum())(x)[0, :, 0].tolist() == [0.5] * 4
    assert tg.grad(lambda x: nn.max_pool(x, 3, 1).sum())(x)[0, :, 0].tolist() == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3, 1 / 3]
    )


def test_gradient_is_that_of_jax_without_ties() -> None:
    x = normal(2, 8, 8, 3)
    for k, s in ((2, 2), (3, 2), (3, 1)):
        reference = lambda x: (lax.reduce_window(x, -jnp.inf, lax.max, (1, k, k, 1), (1, s, s, 1), "SAME") ** 2).sum()  # noqa: B023, E731
        ours = tg.grad(lambda x: (nn.max_pool(x, k, s, "SAME") ** 2).sum())(x.astype(np.float32))  # noqa: B023
        np.testing.assert_allclose(ours, jax.grad(reference)(jnp.asarray(x, np.float32)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int32, np.bool_, jnp.bfloat16, np.float16])
def test_pooling_dtypes(dtype: Any) -> None:
    x = (normal(1, 5, 2) > 0).astype(dtype)
    out = nn.max_pool(x, 2, 2, "SAME")
    assert out.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(out, np.float32), windows(np.asarray(x, np.float32), 2, 2, "SAME", -np.inf)[0].max(-1)
    )


def test_half_precision_mean_is_taken_in_single() -> None:
    x = np.full((1, 3000, 1), 1.0, jnp.bfloat16)
    assert float(nn.avg_pool(x, 3000)[0, 0, 0]) == 1.0
    assert tg.grad(lambda x: nn.avg_pool(x, 3).sum().astype(np.float32))(x).dtype == jnp.bfloat16


def test_the_whole_image() -> None:
    x = normal(2, 14, 14, 3)
    check_grads(lambda x: nn.max_pool(x, 14), x, jax_fn=lambda x: x.max((1, 2), keepdims=True))


def curved(x: Any) -> Any:
    """A function of `x` whose derivatives at 0 are not 0."""
    return (x + x * x).sum()


EMPTY: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 2, 0), (3, 2, 3), {"padding": [(3, 2)]}),
    ((1, 2, 0), (3, 2, 1), {"padding": "VALID"}),
    ((1, 2, 0), (3, 2, 3), {"padding": "SAME"}),
    ((1, 2, 2), (3, 2, 3), {"padding": "VALID"}),
    ((1, 2, 4), (3, 2, 1), {"padding": [(-2, -2)]}),
    ((1, 2, 4), (3, 2, 0), {"padding": "VALID"}),
    ((1, 2, 4), (3, 2, 0), {"padding": "VALID", "rhs_dilation": (2,)}),
    ((0, 2, 4), (3, 2, 3), {"padding": "SAME"}),
    ((2, 0, 4), (3, 0, 3), {"padding": "SAME"}),
    ((2, 2, 4), (0, 2, 3), {"padding": "SAME"}),
    ((1, 2, 0, 5), (3, 2, 2, 3), {"window_strides": (2, 1), "padding": [(2, 1), (1, 1)]}),
    ((1, 2, 0, 5), (3, 2, 1, 3), {"window_strides": (1, 1), "padding": "SAME"}),
    ((1, 2, 0), (3, 2, 3), {"window_strides": (2,), "padding": [(3, 2)], "lhs_dilation": (2,)}),
    ((1, 2, 0), (3, 2, 3), {"padding": [(3, 4)], "rhs_dilation": (2,)}),
    ((1, 4, 0), (6, 2, 3), {"padding": [(3, 4)], "feature_group_count": 2}),
    ((2, 0, 3), (6, 0, 3), {"padding": [(3, 4)], "feature_group_count": 2}),
    ((2, 4, 0), (6, 4, 3), {"padding": [(3, 4)], "batch_group_count": 2}),
    ((0, 4, 3), (6, 4, 3), {"padding": [(3, 4)], "batch_group_count": 2}),
]


def test_a_convolution_of_nothing_is_zero_and_so_are_its_derivatives() -> None:
    operands = [[normal(*shape, dtype=np.float32) for shape in case[:2]] for case in EMPTY]

    def each(conv: Any, operands: Any, cases: Any) -> list[Any]:
        return [conv(*xs, **{"window_strides": (1,), **c[2]}) for xs, c in zip(operands, cases, strict=True)]

    # JAX refuses a kernel without elements along a spatial axis.
    taken = [i for i, (_, kernel, _) in enumerate(EMPTY) if 0 not in kernel[2:]]
    theirs = each(lax.conv_general_dilated, [operands[i] for i in taken], [EMPTY[i] for i in taken])
    ours = each(conv_general_dilated, operands, EMPTY)
    for i, value in zip(taken, theirs, strict=True):
        np.testing.assert_array_equal(ours[i], value)

    def loss(operands: Any) -> Any:
        return sum(curved(out) for out in each(conv_general_dilated, operands, EMPTY))

    first = tg.grad(loss)
    second = tg.grad(lambda operands: sum(curved(g) for pair in first(operands) for g in pair))
    for derivative in (first, tg.jit(first), second, tg.jit(second)):
        for pair, xs in zip(derivative(operands), operands, strict=True):
            for got, x in zip(pair, xs, strict=True):
                np.testing.assert_array_equal(got, np.zeros(x.shape))


WINDOWS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((0,), (3,), {"padding": ((2, 2),)}),
    ((0,), (1,), {}),
    ((0, 4), (1, 2), {"window_strides": (1, 2)}),
    ((0, 4), (2, 2), {"window_strides": (1, 2), "padding": "SAME"}),
    ((4, 0), (2, 1), {}),
    ((0,), (3,), {"padding": ((2, 2),), "base_dilation": (2,)}),
    ((0,), (2,), {"padding": ((2, 2),), "window_dilation": (2,)}),
    ((3, 0, 2), (1, 2, 1), {"padding": ((0, 0), (2, 1), (0, 0))}),
    ((0, 9, 9), (1, 9, 9), {}),
]


@pytest.mark.parametrize("kind", ["add", "max", "min", "mul"])
def test_windows_of_nothing(kind: str) -> None:
    first = {"add": 0.0, "max": -np.inf, "min": np.inf, "mul": 1.0}[kind]
    operands = [normal(*shape, dtype=np.float32) for shape, _, _ in WINDOWS]

    def each(module: Any, operands: Any) -> list[Any]:
        return [
            module.reduce_window(
                x, first, getattr(module, kind), window,
                **{"window_strides": (1,) * len(shape), "padding": "VALID", **options},
            )
            for x, (shape, window, options) in zip(operands, WINDOWS, strict=True)
        ]  # fmt: skip

    for a, b in zip(each(tg.lax, operands), each(lax, operands), strict=True):
        np.testing.assert_array_equal(a, b)
    slope = tg.grad(lambda operands: sum(curved(v) for v in each(tg.lax, operands)))
    second = tg.grad(lambda operands: sum(curved(g) for g in slope(operands)))
    for derivative in (slope, tg.jit(slope), second, tg.jit(second)):
        for got, x in zip(derivative(operands), operands, strict=True):
            np.testing.assert_array_equal(got, np.zeros(x.shape))


@pytest.mark.parametrize("pool", [nn.max_pool, nn.avg_pool])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("shape", [(1, 0, 2), (0, 4, 2), (1, 4, 0), (1, 0, 4, 2)])
def test_pools_of_nothing(pool: Any, padding: str, shape: tuple[int, ...]) -> None:
    x = normal(*shape, dtype=np.float32)
    assert 0 in pool(x, 2, 2, padding).shape
    loss = lambda x: curved(pool(x, 2, 2, padding))  # noqa: E731
    second = tg.grad(lambda x: curved(tg.grad(loss)(x)))
    for derivative in (tg.grad(loss), second, tg.jit(second)):
        assert derivative(x).shape == shape
