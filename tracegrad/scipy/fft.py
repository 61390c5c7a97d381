"""Cosine transforms, with the signatures of `jax.scipy.fft`: of type 2, and their inverses.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> fft = tg.scipy.fft
  >>> fft.idct(fft.dct(np.array([1.0, 2.0, 4.0]))).round(3).tolist()
  [1.0, 2.0, 4.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.scipy.fft as jfft

from ..borrow import borrow
from ..names import listed

dct = borrow(
    jfft.dct,
    """The cosine transform along an axis: `y[k] = 2 sum_n x[n] cos(pi k (2 n + 1) / (2 N))`.

    Args:
      x: an array of real numbers.
      type: 2, the only one there is.
      n: the length to which the axis is cut or padded with zeros.
      axis: the last by default.
      norm: "ortho" for the orthogonal transform.

    Raises:
      NotImplementedError: for another type.
    """,
    "type",
    "n",
    "axis",
    module=__name__,
)

dctn = borrow(
    jfft.dctn,
    """The cosine transform along several axes, all by default.

    Args:
      x: an array of real numbers.
      type: 2, the only one there is.
      s: for each axis, the length to which it is cut or padded with zeros.
      axes: a sequence of integers.
      norm: "ortho" for the orthogonal transform.

    Raises:
      NotImplementedError: for another type.
    """,
    "type",
    "s",
    "axes",
    module=__name__,
)

idct = borrow(
    jfft.idct,
    "The inverse of `dct`, with its arguments.",
    "type",
    "n",
    "axis",
    module=__name__,
)

idctn = borrow(
    jfft.idctn,
    "The inverse of `dctn`, with its arguments.",
    "type",
    "s",
    "axes",
    module=__name__,
)

__all__ = ["dct", "dctn", "idct", "idctn"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
