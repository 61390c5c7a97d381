"""Convolution on a CPU against lax.conv_general_dilated: each form it is lowered to, and which is chosen."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import tracegrad as tg
from tests.ops.test_conv import NHWC, NWC, normal
from tracegrad.ops import conv_cpu, conv_general_dilated

# The form, None for XLA's own, the shapes of input and kernel, and the rest of the arguments.
CASES: dict[str, tuple[str | None, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one feature": (None, (2, 7, 6, 1), (3, 2, 1, 5), {"padding": "SAME"}),
    "few features": (None, (2, 7, 6, 3), (3, 3, 3, 4), {"padding": [(2, 1), (0, 3)]}),
    "strides": (None, (2, 8, 9, 2), (3, 3, 2, 4), {"padding": "SAME", "window_strides": (2, 1)}),
    "dilated": (None, (2, 8, 9, 2), (3, 2, 2, 4), {"padding": "SAME", "rhs_dilation": (2, 3)}),
    "transposed": (None, (2, 4, 3, 2), (3, 3, 2, 4), {"padding": [(1, 2), (2, -1)], "lhs_dilation": (2, 3)}),
    "sequence": (None, (2, 9, 1), (4, 1, 3), {"padding": "SAME", "dimension_numbers": NWC}),
    "features first": ("_canonical", (2, 3, 7, 6), (4, 3, 3, 2), {"padding": "SAME", "dimension_numbers": None}),
    "each feature": ("_split", (2, 6, 7, 6), (3, 3, 1, 6), {"padding": "SAME", "feature_group_count": 6}),
    "each twice": (
        "_split",
        (2, 6, 7, 4),
        (3, 3, 1, 8),
        {"padding": "SAME", "feature_group_count": 4, "window_strides": (2, 2)},
    ),
    "groups": ("_split", (2, 6, 7, 8), (3, 3, 2, 8), {"padding": "SAME", "feature_group_count": 4}),
    "large groups": ("_split", (2, 6, 7, 12), (3, 3, 6, 4), {"padding": "SAME", "feature_group_count": 2}),
    "other layout": (
        "_canonical",
        (2, 6, 7, 8),
        (3, 3, 5, 8),
        {"padding": "SAME", "dimension_numbers": ("NHWC", "HWOI", "NHWC")},
    ),
}  # fmt: skip


def convolution(conv: Any, name: str) -> Any:
    options = {"window_strides": (1,) * (len(CASES[name][1]) - 2), "dimension_numbers": NHWC} | CASES[name][3]
    return functools.partial(conv, **options)


def operands(name: str, dtype: Any = np.float64) -> tuple[Any, Any]:
    _, x, kernel, _ = CASES[name]
    return normal(*x, dtype=dtype), normal(*kernel, dtype=dtype)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def both(name: str) -> tuple[Any, Any]:
    return convolution(conv_general_dilated, name), convolution(lax.conv_general_dilated, name)


def assert_same(ours: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max())))


def through(vjp: Any, conv: Any, x: Any, kernel: Any) -> Any:
    """The value and both gradients of a function that is not linear in either operand."""
    out, pull = vjp(lambda x, kernel: conv(x, kernel) ** 2, x, kernel)
    return out, pull(jnp.cos(out))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str) -> None:
    ours, theirs = both(name)
    x, kernel = operands(name)
    expected = jax.jit(functools.partial(through, jax.vjp, theirs))(x, kernel)
    assert_same(jax.jit(functools.partial(through, tg.vjp, ours))(x, kernel), expected)
    single = [a.astype(np.float32) for a in (x, kernel)]
    assert_same(through(tg.vjp, ours, *single), through(jax.vjp, theirs, *single), 3e-5)


@pytest.mark.parametrize("name", ["strides", "each twice", "groups", "large groups", "transposed"])
def test_second_derivatives_and_batches(name: str) -> None:
    ours, theirs = both(name)
    x, kernel = operands(name)

    def loss(conv: Any) -> Any:
        return lambda x, kernel: (conv(x, kernel) ** 3).sum()

    def hvp(x: Any, kernel: Any) -> Any:
        return jax.jvp(jax.grad(loss(theirs), (0, 1)), (x, kernel), (x, kernel))[1]

    assert_same(tg.jit(lambda *p: tg.hvp(loss(ours), p, p))(x, kernel), jax.jit(hvp)(x, kernel), 1e-11)
    xs, kernels = np.stack([x, 2 * x, -x]), np.stack([kernel, 1 - kernel, kernel * kernel])
    gradient = tg.jit(tg.vmap(tg.grad(loss(ours), (0, 1))))(xs, kernels)
    assert_same(gradient, jax.jit(jax.vmap(jax.grad(loss(theirs), (0, 1))))(xs, kernels), 1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = []
    original = conv_cpu.lowering

    def spy(*args: Any) -> Any:
        chosen.append(original(*args))
        return chosen[-1]

    monkeypatch.setattr(conv_cpu, "lowering", spy)
    jax.jit(lambda *xs: convolution(conv_general_dilated, name)(*xs)).trace(*operands(name))
    form = CASES[name][0]
    assert chosen[0] is (None if form is None else getattr(conv_cpu, form))


@pytest.mark.parametrize("name", ["one feature", "each feature", "large groups", "other layout"])
def test_special_values_stay_what_they_are(name: str) -> None:
    """As in a convolution for each group: XLA's of groups spreads them to other groups on a CPU."""
    x, kernel = operands(name)
    x.flat[3], x.flat[40], x.flat[-20] = np.inf, np.nan, -np.inf
    options = {"window_strides": (1, 1), "dimension_numbers": NHWC} | CASES[name][3]
    groups = options.pop("feature_group_count", 1)
    pairs = zip(np.split(x, groups, 3), np.split(kernel, groups, 2 if name == "other layout" else 3), strict=True)
    expected = np.concatenate([lax.conv_general_dilated(x, kernel, **options) for x, kernel in pairs], 3)
    found = np.asarray(convolution(conv_general_dilated, name)(x, kernel))
    for kind in (np.isnan, np.isposinf, np.isneginf):
        np.testing.assert_array_equal(kind(found), kind(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-12, atol=1e-12)


def test_other_platforms_keep_the_convolution() -> None:
    """A program exported for several has both forms; one for CUDA alone has JAX's own. On a CPU each group is one."""
    x, kernel = operands("each feature", np.float32)
    ours, theirs = (jax.jit(lambda x, k, conv=conv: conv(x, k)) for conv in both("each feature"))
    theirs_text = jax.export.export(theirs, platforms=["cuda"])(x, kernel).mlir_module()
    ours_text = jax.export.export(ours, platforms=["cuda"])(x, kernel).mlir_module()
    (line,) = [line for line in theirs_text.splitlines() if "stablehlo.convolution" in line]
    settings = line[line.index("dim_numbers") : line.index(" loc(")]
    assert settings in ours_text
    assert ours.lower(x, kernel).as_text().count("stablehlo.convolution") == 6
    exported = jax.export.deserialize(jax.export.export(ours, platforms=["cpu", "cuda"])(x, kernel).serialize())
    assert_same(exported.call(x, kernel), theirs(x, kernel), 1e-5)


def test_a_loop_has_the_layout_that_is_fast_there() -> None:
    """XLA moves the axes of a convolution by itself outside loops alone."""
    x, kernel = normal(4, 8, 8, 8, dtype=np.float32), normal(3, 3, 8, 16, dtype=np.float32)

    def loss(kernel: Any, x: Any) -> Any:
        return (conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC) ** 2).sum()

    def loop(kernel: Any, xs: Any) -> Any:
        return tg.scan(lambda total, x: (total + tg.grad(loss)(kernel, x), None), kernel, xs)[0]

    text = tg.jit(loop).lower(kernel, np.stack([x, x])).compile().as_text()
    layouts = [line.split("dim_labels=")[1].split(",")[0] for line in text.splitlines() if " convolution(" in line]
    assert layouts == ["b01f_01io->b01f"] * 2


def test_gradient_of_a_function_of_jax() -> None:
    """What is lowered by platform is still differentiated by JAX, and imported from it."""
    ours, theirs = both("few features")
    x, kernel = operands("few features")
    expected = jax.grad(lambda k: (theirs(x, k) ** 2).sum())(kernel)
    assert_same(jax.grad(lambda k: (tg.jit(ours)(x, k) ** 2).sum())(kernel), expected)


def test_many_groups_are_not_written_out_one_by_one() -> None:
    x, kernel = normal(1, 4, 4, 192, dtype=np.float32), normal(3, 3, 6, 32, dtype=np.float32)
    conv = functools.partial(
        conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC, feature_group_count=32
    )
    assert jax.jit(lambda x, k: conv(x, k)).lower(x, kernel).as_text().count("stablehlo.convolution") == 1
