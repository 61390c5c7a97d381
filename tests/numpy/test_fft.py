"""Fourier transforms against NumPy in value, and against jax.grad and central differences in derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_value

RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((3, 4, 5))
COMPLEX = REAL + 1j * RNG.standard_normal((3, 4, 5))
DEEP = RNG.standard_normal((2, 3, 2, 3, 4))

NORMS = (None, "backward", "ortho", "forward")
ONE = ({}, {"n": 4}, {"n": 7, "axis": 0}, {"axis": -2, "norm": "ortho"}, {"n": 1, "norm": "forward"})
TWO = ({}, {"s": (4, 6)}, {"axes": (2, 0), "norm": "ortho"}, {"s": (5, 3), "axes": (0, 1), "norm": "forward"})
MANY = ({}, {"axes": (1,)}, {"s": (2, 6), "axes": (-1, 0)}, {"norm": "ortho"}, {"axes": (2, 0, 1), "norm": "forward"})
KINDS: dict[str, tuple[Any, Any]] = {
    "fft": (COMPLEX, ONE),
    "ifft": (COMPLEX, ONE),
    "rfft": (REAL, ONE),
    "irfft": (COMPLEX, ONE),
    "hfft": (COMPLEX, ONE),
    "ihfft": (REAL, ONE),
    "fft2": (COMPLEX, TWO),
    "ifft2": (COMPLEX, TWO),
    "rfft2": (REAL, TWO),
    "irfft2": (COMPLEX, TWO),
    "fftn": (COMPLEX, MANY),
    "ifftn": (COMPLEX, MANY),
    "rfftn": (REAL, MANY),
    "irfftn": (COMPLEX, MANY),
}
"""For each transform, an array and sets of arguments."""


def each(module: Any, name: str, variants: Any) -> Callable[[Any], Any]:
    return lambda x: [getattr(module.fft, name)(x, **kwargs) for kwargs in variants]


@pytest.mark.parametrize("name", KINDS)
def test_value(name: str) -> None:
    x, variants = KINDS[name]
    check_value(
        each(tnp, name, variants), each(np, name, variants), x, dtype=True, only=("eager", "jit", "undecorated")
    )


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft", "fftn", "rfftn", "irfftn"])
def test_derivatives(name: str) -> None:
    """For even and odd lengths, cut and padded: half of a spectrum counts twice but for its ends."""
    x, variants = KINDS[name]
    x = x[:2, :2, :4]
    variants = variants[:4]

    def f(module: Any) -> Callable[[Any], Any]:
        # Squares: the transforms themselves are linear, and have no second derivative.
        return lambda x: [y * y for y in each(module, name, variants)(x)]

    check_grads(f(tnp), x, jax_fn=f(jnp))


def test_real_input_of_complex_transforms_has_a_real_gradient() -> None:
    f = lambda x: tnp.abs(tnp.fft.fft(x)) ** 2  # noqa: E731
    check_grads(f, REAL[0], jax_fn=lambda x: jnp.abs(jnp.fft.fft(x)) ** 2)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_more_axes_than_xla_takes_at_once(name: str) -> None:
    check_value(
        each(tnp, name, ({}, {"axes": (4, 0, 2, 1)})), each(np, name, ({}, {"axes": (4, 0, 2, 1)})), DEEP, only=("jit",)
    )


@pytest.mark.parametrize(
    "dtype, name, expected",
    [
        ("int32", "fft", "complex64"),
        ("bool", "rfft", "complex64"),
        ("float16", "fft", "complex64"),
        ("float16", "rfft", "complex64"),
        ("float32", "rfft", "complex64"),
        ("float32", "irfft", "float32"),
        ("complex64", "hfft", "float32"),
    ],
)
def test_dtypes(dtype: str, name: str, expected: str) -> None:
    out = getattr(tnp.fft, name)(np.array([1, 0, 1, 1]).astype(dtype))
    assert out.dtype == expected
    np.testing.assert_allclose(out, getattr(np.fft, name)(np.array([1.0, 0, 1, 1])), atol=1e-6)


def test_empty_batches_and_no_axes() -> None:
    assert tnp.fft.fft(np.zeros((0, 3))).shape == (0, 3)
    assert tnp.fft.irfft(np.zeros((0, 3))).shape == (0, 4)
    assert tnp.fft.fftn(np.array([1.0, 2.0]), axes=()).tolist() == [1.0, 2.0]
    assert tnp.fft.fftn(3.0).dtype == np.complex64


def test_undoing() -> None:
    x = REAL.astype(np.float32)
    for norm in NORMS:
        np.testing.assert_allclose(tnp.fft.irfftn(tnp.fft.rfftn(x, norm=norm), x.shape, norm=norm), x, atol=1e-6)
        np.testing.assert_allclose(tnp.fft.ihfft(tnp.fft.hfft(x[0, 0], norm=norm), norm=norm), x[0, 0], atol=1e-5)


@pytest.mark.parametrize("n", [4, 5])
def test_frequencies_and_shifts(n: int) -> None:
    check_value(
        lambda: [tnp.fft.fftfreq(n, 0.5), tnp.fft.rfftfreq(n)],
        lambda: [np.fft.fftfreq(n, 0.5), np.fft.rfftfreq(n)],
        only=("eager", "jit"),
    )
    check_value(
        lambda x: [tnp.fft.fftshift(x), tnp.fft.ifftshift(x, 1), tnp.fft.fftshift(x, (0, -1))],
        lambda x: [np.fft.fftshift(x), np.fft.ifftshift(x, 1), np.fft.fftshift(x, (0, -1))],
        RNG.standard_normal((n, 3)),
        only=("jit",),
    )
    assert tnp.fft.fftfreq(n, dtype=np.float16).dtype == np.float16
    slope = tg.grad(lambda d: tnp.sum(tnp.fft.fftfreq(n, d) ** 2))(2.0)
    np.testing.assert_allclose(slope, -np.sum(np.fft.fftfreq(n) ** 2) / 4, rtol=1e-6)


@pytest.mark.parametrize(
    "call, error, parts",
    [
        (lambda f, x: f.fft(x, axis=3), ValueError, ["fft: axis 3", "3 axes", "from -3 to 2"]),
        (lambda f, x: f.fftn(x, axes=(0, 5)), ValueError, ["fftn: axis 5"]),
        (lambda f, x: f.fftn(x, axes=(0, -3)), ValueError, ["fftn", "twice"]),
        (lambda f, x: f.fft(x, n=0), ValueError, ["fft: n=0", "at least 1"]),
        (lambda f, x: f.hfft(x, n=-2), ValueError, ["hfft: n=-2", "at least 1"]),
        (lambda f, x: f.fft(x, n=2.5), TypeError, ["fft: n must be an integer", "2.5"]),
        (lambda f, x: f.fft(x, axis=(0, 1)), TypeError, ["fft: axis must be an integer"]),
        (lambda f, x: f.irfft(x[..., :1]), ValueError, ["irfft", "lengths (0,)", "at least 1"]),
        (lambda f, x: f.fft(x[:0], axis=0), ValueError, ["lengths (0,)"]),
        (lambda f, x: f.fft2(x, s=(2,)), ValueError, ["s=(2,)", "axes=(-2, -1)", "differ in length"]),
        (lambda f, x: f.fft(x, norm="orth"), ValueError, ["norm='orth'", '"ortho"']),
        (lambda f, x: f.hfft(x, norm="orth"), ValueError, ["hfft: norm='orth'"]),
        (lambda f, x: f.rfft(x * 1j), TypeError, ["rfft takes real", "c64[3,4,5]", ".real"]),
        (lambda f, x: f.fft(["a"]), TypeError, ["fft", "list", "no nested list of numbers"]),
        (lambda f, x: f.fftfreq(0), ValueError, ["fftfreq: n=0"]),
        (lambda f, x: f.rfftn(x, axes=()), ValueError, ["rfftn", "no axis"]),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], parts: list[str]) -> None:
    x = tnp.asarray(REAL.astype(np.float32))
    for run in (lambda: call(tnp.fft, x), lambda: tg.jit(lambda x: call(tnp.fft, x))(x)):
        with pytest.raises(error) as info:
            run()
        for part in [*parts, "test_fft.py"]:
            assert part in str(info.value), str(info.value)
