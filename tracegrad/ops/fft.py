"""The discrete Fourier transform along the last axes."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, make_aval
from .elementwise import conj, div, equal, mul, remainder, where
from .shape import iota


def _fft_shape(x: Aval, *, kind: str, lengths: tuple[int, ...]) -> Aval:
    *outer, last = lengths
    half = last // 2 + 1
    wanted = (*outer, half) if kind == "irfft" else lengths
    if len(lengths) > 3 or x.shape[-len(lengths) :] != wanted:
        raise ValueError(f"{kind} of lengths {lengths} along the last axes needs sizes {wanted}, not shape {x.shape}")
    if x.dtype.kind != ("f" if kind == "rfft" else "c") or x.dtype.itemsize < 4:
        wants = "float32 or float64" if kind == "rfft" else "complex64 or complex128"
        raise TypeError(f"{kind} takes {wants}, not {x.dtype}: convert with .astype")
    end = half if kind == "rfft" else last
    dtype = np.finfo(x.dtype).dtype if kind == "irfft" else jnp.promote_types(x.dtype, np.complex64)
    return make_aval((*x.shape[: x.ndim - 1], end), dtype)


def _fft_vjp(ct: Any, out: Any, x: Any, *, kind: str, lengths: tuple[int, ...]) -> Any:
    """The transpose. The matrix of `fft` and that of `ifft` are symmetric: these are their own.

    A frequency k of a half spectrum stands for -k too, so it weighs 2, unless these are one and the same:
    `irfft(y)[n] = sum over k of weight[k] Re(y[k] exp(2 pi i k n / N)) / N`, of which both other rules follow.
    """
    if kind in ("fft", "ifft"):
        return fft_op(ct, kind=kind, lengths=lengths)
    last, total = lengths[-1], float(math.prod(lengths))
    k = iota(dtype=np.dtype(np.int32), shape=(last // 2 + 1,), axis=0)
    weight = where(equal(remainder(mul(k, 2), last), 0), 1.0, 2.0)
    if kind == "rfft":
        return mul(fft_op(div(conj(ct), weight), kind="irfft", lengths=lengths), total)
    return mul(conj(fft_op(ct, kind="rfft", lengths=lengths)), div(weight, total))


fft_op: Op = Op(
    "fft",
    lambda x, *, kind, lengths: lax.fft(x, kind, lengths),
    (_fft_vjp,),
    shape=_fft_shape,
)
"""`fft`, `ifft`, `rfft` or `irfft` (`kind`) of these lengths along the last axes, three at most, without any factor."""

__all__ = ["fft_op"]
