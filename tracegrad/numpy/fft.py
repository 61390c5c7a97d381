"""Discrete Fourier transforms with the names, the arguments and the dtypes of `jax.numpy.fft`.

Half-precision floats are transformed as float32. An array is cut or padded with zeros at its end to the length `n`, or
the lengths `s` (-1: as it is). `norm` says which direction is scaled: "backward" (also `None`) the inverse, by 1/n,
"forward" the other, "ortho" both, by 1/sqrt(n).

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> energy = lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2)
  >>> tg.grad(energy)(np.array([1.0, 2.0])).tolist()  # by Parseval, 2 n x
  [4.0, 8.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow, written
from ..errors import called, describe, here
from ..names import listed
from .arguments import axis_of, integer, order_of, type_of
from .manipulation import roll

_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The norm under which the inverse of a transform is scaled as the transform is under this one."""


def _check_norm(norm: Any) -> None:
    if norm not in _SWAPPED:
        raise ValueError(f'{called()}: norm={norm!r} {here()}. Use "backward", "ortho" or "forward".')


def _converted(a: Any, kind: str) -> Any:
    """`a` in the dtype that a transform of this kind takes."""
    a = jnp.asarray(a)
    floats = ops.inexact_dtype(a.dtype)
    if kind == "rfft" and floats.kind == "c":
        raise TypeError(
            f"{called()} takes real values, not {describe(a)} {here()}. Use the transform without r, or .real of it."
        )
    return a.astype(
        jax.dtypes.canonicalize_dtype(jnp.promote_types(floats, np.float32 if kind == "rfft" else np.complex64))
    )


def _axes(s: Any, axes: Any, ndim: int) -> tuple[int, ...]:
    """The axes to transform, counted from the front, in the order given."""
    count = ndim if s is None else len(s)
    found = order_of(range(-count, 0) if axes is None else axes, ndim)
    if len(set(found)) != len(found):
        raise ValueError(f"{called()}: axes {tuple(axes)} name an axis twice {here()}. Name each once.")
    if count != len(found) and s is not None:
        raise ValueError(
            f"{called()}: s={tuple(s)} and axes={tuple(axes)} differ in length {here()}. Give a size an axis."
        )
    return found


def _lengths(s: Any, sizes: list[int], kind: str) -> list[int]:
    """The length of the transform along each axis."""
    if s is None:
        lengths = [*sizes[:-1], 2 * (sizes[-1] - 1)] if kind == "irfft" else sizes
    else:
        given = [integer(n, "a length") for n in s]
        lengths = [size if n == -1 else n for n, size in zip(given, sizes, strict=True)]
    if any(n < 1 for n in lengths):
        raise ValueError(
            f"{called()}: transforms of lengths {tuple(lengths)} along axes of sizes {tuple(sizes)} {here()}. Each "
            "length must be at least 1."
        )
    return lengths


def _transform(a: Any, kind: str, s: Any, axes: Any, norm: Any) -> Any:
    _check_norm(norm)
    order = _axes(s, axes, jnp.ndim(a))
    a = _converted(a, kind)
    if not order:
        if kind in ("rfft", "irfft"):
            raise ValueError(f"{called()}: no axis to transform: {describe(a)} {here()}. Name at least one.")
        return a
    lengths = _lengths(s, [a.shape[i] for i in order], kind)
    return getattr(jnp.fft, f"{kind}n")(a, lengths, order, norm)


def _count(n: Any) -> int:
    count = integer(n, "n")
    if count < 1:
        raise ValueError(f"{called()}: n={n} {here()}. The length must be at least 1.")
    return count


def _transform1(a: Any, kind: str, n: Any, axis: Any, norm: Any) -> Any:
    axis_of(axis, jnp.ndim(a))
    return _transform(a, kind, None if n is None else (_count(n),), (axis,), norm)


def _along_one(kind: str) -> Callable[..., Any]:
    def transform(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
        return _transform1(a, kind, n, axis, norm)

    transform.__name__ = kind
    return transform


def _along_several(kind: str, by_default: Sequence[int] | None = None) -> Callable[..., Any]:
    def transform(
        a: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = by_default, norm: str | None = None
    ) -> Any:
        return _transform(a, kind, s, axes, norm)

    transform.__name__ = kind + ("n" if by_default is None else "2")
    return transform


_ONE, _SEVERAL, _TWO = ("n", "axis"), ("s", "axes"), (-2, -1)

fft = borrow(
    _along_one("fft"),
    """`out[k] = sum over j of a[j] exp(-2 pi i j k / n)`, complex.

    Raises:
      ValueError: for an axis that is not there, a length below 1, or an unknown norm; so do all functions here.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.fft.fft(np.array([1.0, 0.0, 0.0])).real.tolist()
      [1.0, 1.0, 1.0]
    """,
    *_ONE,
)
ifft = borrow(_along_one("ifft"), "The inverse of `fft`.", *_ONE)
rfft = borrow(
    _along_one("rfft"),
    "The first `n // 2 + 1` elements of the `fft` of a real array; the others are conjugates of these.",
    *_ONE,
)
irfft = borrow(
    _along_one("irfft"), "The inverse of `rfft`: a real array of length `n`, by default `2 * (size - 1)`.", *_ONE
)
fftn = borrow(_along_several("fft"), "`fft` along several axes: all, or the last `len(s)`, by default.", *_SEVERAL)
ifftn = borrow(_along_several("ifft"), "The inverse of `fftn`.", *_SEVERAL)
rfftn = borrow(_along_several("rfft"), "`rfft` along the last of several axes, `fft` along the others.", *_SEVERAL)
irfftn = borrow(_along_several("irfft"), "The inverse of `rfftn`.", *_SEVERAL)
fft2 = borrow(_along_several("fft", _TWO), "`fft` along two axes.", *_SEVERAL)
ifft2 = borrow(_along_several("ifft", _TWO), "The inverse of `fft2`.", *_SEVERAL)
rfft2 = borrow(_along_several("rfft", _TWO), "`rfft` along the last of two axes, `fft` along the other.", *_SEVERAL)
irfft2 = borrow(_along_several("irfft", _TWO), "The inverse of `rfft2`.", *_SEVERAL)


@written("n", "axis")
def hfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The `fft`, which is real, of a signal that is its own conjugate reversed, given by its first half."""
    _check_norm(norm)
    return _transform1(jnp.conj(a), "irfft", n, axis, _SWAPPED[norm])


@written("n", "axis")
def ihfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The inverse of `hfft`: the first half of a signal that is its own conjugate reversed."""
    _check_norm(norm)
    return jnp.conj(_transform1(a, "rfft", n, axis, _SWAPPED[norm]))


# -- frequencies


@written("n")
def fftfreq(n: int, d: Any = 1.0, *, dtype: Any = None) -> Any:
    """The frequency of each element of an `fft` of length `n`, for samples `d` apart.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.fft.fftfreq(4).tolist()
      [0.0, 0.25, -0.5, -0.25]
    """
    return jnp.fft.fftfreq(_count(n), d, dtype=dtype)


@written("n")
def rfftfreq(n: int, d: Any = 1.0, *, dtype: Any = None) -> Any:
    """The frequency of each element of an `rfft` of length `n`, for samples `d` apart."""
    return jnp.fft.rfftfreq(_count(n), d, dtype=dtype)


def _shifted(x: Any, axes: Any, sign: int) -> Any:
    shape = type_of(x).shape
    given = range(len(shape)) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    found = order_of(given, len(shape))
    return roll(x, tuple(sign * (shape[i] // 2) for i in found), found)


def fftshift(x: Any, axes: Any = None) -> Any:
    """The elements of a spectrum with frequency 0 moved to the middle of the axes (all by default)."""
    return _shifted(x, axes, 1)


def ifftshift(x: Any, axes: Any = None) -> Any:
    """The inverse of `fftshift`."""
    return _shifted(x, axes, -1)


__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft",
    "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
