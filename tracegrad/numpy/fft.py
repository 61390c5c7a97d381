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

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from ..errors import called, describe, here
from ..names import listed
from .arguments import Aval, axis_of, dtype_of, integer, literal, order_of, type_of
from .manipulation import moveaxis, roll

_SCALE = {None: (0.0, 1.0), "backward": (0.0, 1.0), "ortho": (0.5, 0.5), "forward": (1.0, 0.0)}
"""How a norm divides 1/n between the forward and the inverse transform: as exponents."""

_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def _check_norm(norm: Any) -> None:
    if norm not in _SCALE:
        raise ValueError(f'{called()}: norm={norm!r} {here()}. Use "backward", "ortho" or "forward".')


def _converted(a: Any, aval: Aval, kind: str) -> Any:
    """`a` in the dtype that a transform of this kind takes."""
    floats = aval.dtype if aval.differentiable else ops.inexact_dtype(aval.dtype)
    if kind == "rfft":
        if floats.kind == "c":
            raise TypeError(
                f"{called()} takes real values, not {describe(a)} {here()}. Use the transform without r, or .real "
                "of it."
            )
        wanted = jnp.promote_types(floats, np.float32)
    else:
        wanted = jnp.promote_types(floats, np.complex64)
    wanted = jax.dtypes.canonicalize_dtype(wanted)
    return a if aval.dtype == wanted else ops.astype(a, dtype=wanted)


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


def _resized(a: Any, sizes: dict[int, int]) -> Any:
    """`a` cut or padded with zeros at the end of axes, to these sizes."""
    config = tuple((0, sizes.get(i, n) - n, 0) for i, n in enumerate(a.shape))
    return ops.pad(a, literal(0.0), config=config) if any(hi for _, hi, _ in config) else a


def _transform(a: Any, kind: str, s: Any, axes: Any, norm: Any) -> Any:
    aval = type_of(a)
    _check_norm(norm)
    order = _axes(s, axes, aval.ndim)
    a = _converted(a, aval, kind)
    if not order:
        if kind in ("rfft", "irfft"):
            raise ValueError(f"{called()}: no axis to transform: {aval}, axes {axes} {here()}. Name at least one.")
        return ops.alias(a)
    lengths = _lengths(s, [aval.shape[i] for i in order], kind)
    sizes = dict(zip(order, lengths, strict=True))
    if kind == "irfft":
        sizes[order[-1]] = lengths[-1] // 2 + 1
    a = _resized(a, sizes)

    # XLA takes three axes at most. The half spectrum is made first and used up last.
    full = {"rfft": "fft", "irfft": "ifft"}.get(kind, kind)
    count = len(order)
    steps = [(kind if hi == count else full, max(hi - 3, 0), hi) for hi in range(count, 0, -3)]
    for step, lo, hi in steps if kind != "irfft" else reversed(steps):
        last = tuple(range(aval.ndim - (hi - lo), aval.ndim))
        in_place = order[lo:hi] == last
        a = a if in_place else moveaxis(a, order[lo:hi], last)
        a = ops.fft_op(a, kind=step, lengths=tuple(lengths[lo:hi]))
        a = a if in_place else moveaxis(a, last, order[lo:hi])

    # XLA's inverse divides by n.
    forward, inverse = _SCALE[norm]
    exponent = -forward if kind in ("fft", "rfft") else 1.0 - inverse
    return a if not exponent else ops.mul(a, literal(math.prod(lengths) ** exponent))


def _transform1(a: Any, kind: str, n: Any, axis: Any, norm: Any) -> Any:
    axis_of(axis, type_of(a).ndim)
    if n is not None and integer(n, "n") < 1:
        raise ValueError(f"{called()}: n={n} {here()}. The length must be at least 1.")
    return _transform(a, kind, None if n is None else (n,), (axis,), norm)


def fft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """`out[k] = sum over j of a[j] exp(-2 pi i j k / n)`, complex.

    Raises:
      ValueError: for an axis that is not there, a length below 1, or an unknown norm; so do all functions here.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.fft.fft(np.array([1.0, 0.0, 0.0])).real.tolist()
      [1.0, 1.0, 1.0]
    """
    return _transform1(a, "fft", n, axis, norm)


def ifft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The inverse of `fft`."""
    return _transform1(a, "ifft", n, axis, norm)


def rfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The first `n // 2 + 1` elements of the `fft` of a real array; the others are conjugates of these."""
    return _transform1(a, "rfft", n, axis, norm)


def irfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The inverse of `rfft`: a real array of length `n`, by default `2 * (size - 1)`."""
    return _transform1(a, "irfft", n, axis, norm)


def hfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The `fft`, which is real, of a signal that is its own conjugate reversed, given by its first half."""
    _check_norm(norm)
    return _transform1(ops.conj(a), "irfft", n, axis, _SWAPPED[norm])


def ihfft(a: Any, n: int | None = None, axis: int = -1, norm: str | None = None) -> Any:
    """The inverse of `hfft`: the first half of a signal that is its own conjugate reversed."""
    _check_norm(norm)
    return ops.conj(_transform1(a, "rfft", n, axis, _SWAPPED[norm]))


def fftn(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None) -> Any:
    """`fft` along several axes: all, or the last `len(s)`, by default."""
    return _transform(a, "fft", s, axes, norm)


def ifftn(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None) -> Any:
    """The inverse of `fftn`."""
    return _transform(a, "ifft", s, axes, norm)


def rfftn(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None) -> Any:
    """`rfft` along the last of several axes, `fft` along the others."""
    return _transform(a, "rfft", s, axes, norm)


def irfftn(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] | None = None, norm: str | None = None) -> Any:
    """The inverse of `rfftn`."""
    return _transform(a, "irfft", s, axes, norm)


def fft2(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = None) -> Any:
    """`fft` along two axes."""
    return _transform(a, "fft", s, axes, norm)


def ifft2(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = None) -> Any:
    """The inverse of `fft2`."""
    return _transform(a, "ifft", s, axes, norm)


def rfft2(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = None) -> Any:
    """`rfft` along the last of two axes, `fft` along the other."""
    return _transform(a, "rfft", s, axes, norm)


def irfft2(a: Any, s: Sequence[int] | None = None, axes: Sequence[int] = (-2, -1), norm: str | None = None) -> Any:
    """The inverse of `rfft2`."""
    return _transform(a, "irfft", s, axes, norm)


# -- frequencies


def _frequencies(k: Any, n: int, d: Any, dtype: Any) -> Any:
    wanted = dtype_of(float if dtype is None else dtype)
    return ops.div(ops.astype(k, dtype=wanted), ops.astype(ops.mul(d, literal(float(n))), dtype=wanted))


def _count(n: Any) -> int:
    count: int = integer(n, "n")
    if count < 1:
        raise ValueError(f"{called()}: n={n} {here()}. The length must be at least 1.")
    return count


def fftfreq(n: int, d: Any = 1.0, *, dtype: Any = None) -> Any:
    """The frequency of each element of an `fft` of length `n`, for samples `d` apart.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.fft.fftfreq(4).tolist()
      [0.0, 0.25, -0.5, -0.25]
    """
    n = _count(n)
    i = ops.iota(dtype=np.dtype(np.int32), shape=(n,), axis=0)
    k = ops.where(ops.less(i, literal((n + 1) // 2)), i, ops.sub(i, literal(n)))
    return _frequencies(k, n, d, dtype)


def rfftfreq(n: int, d: Any = 1.0, *, dtype: Any = None) -> Any:
    """The frequency of each element of an `rfft` of length `n`, for samples `d` apart."""
    n = _count(n)
    return _frequencies(ops.iota(dtype=np.dtype(np.int32), shape=(n // 2 + 1,), axis=0), n, d, dtype)


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
