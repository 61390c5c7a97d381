"""Convolutions and spectra, with the signatures of `jax.scipy.signal`.

Shapes that do not fit, and options that there are not, are a `ValueError`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> signal = tg.scipy.signal
  >>> signal.convolve(np.array([1.0, 2.0]), np.array([1.0, 10.0])).tolist()
  [1.0, 12.0, 20.0]
  >>> tg.grad(lambda x: signal.detrend(x, type="constant")[0])(np.ones(4)).tolist()
  [0.75, -0.25, -0.25, -0.25]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.scipy.signal as jsignal

from ..borrow import borrow
from ..names import listed

_SEGMENTS = ["nperseg", "noverlap", "nfft", "axis"]

fftconvolve = borrow(
    jsignal.fftconvolve,
    """The convolution of two arrays, by their Fourier transforms.

    Args:
      in1, in2: arrays of one number of axes.
      mode: "full", "same" (the middle, of the shape of `in1`) or "valid" (where they overlap whole).
      axes: integers; along the others the arrays have one shape. All by default.
    """,
    "axes",
    module=__name__,
)

convolve = borrow(
    jsignal.convolve,
    """The convolution of two arrays.

    Args:
      in1, in2: arrays of one number of axes.
      mode: "full", "same" (the middle, of the shape of `in1`) or "valid" (where they overlap whole).
      method: "fft", or "direct", which is "auto" too.
      precision: of the products, on accelerators.
    """,
    module=__name__,
)

convolve2d = borrow(
    jsignal.convolve2d,
    """The convolution of two matrices.

    Args:
      in1, in2: matrices.
      mode: "full", "same" (the middle, of the shape of `in1`) or "valid" (where they overlap whole).
      boundary: "fill", the only one there is.
      fillvalue: 0, the only one there is.
      precision: of the products, on accelerators.

    Raises:
      NotImplementedError: for another boundary.
      ValueError: for other than two axes.
    """,
    "fillvalue",
    module=__name__,
)

correlate = borrow(
    jsignal.correlate,
    """The cross-correlation of two arrays: the convolution of `in1` with the conjugate of `in2`, reversed.

    Args: those of `convolve`.
    """,
    module=__name__,
)

correlate2d = borrow(
    jsignal.correlate2d,
    """The cross-correlation of two matrices, with the arguments of `convolve2d`.

    Raises:
      NotImplementedError: for another boundary.
      ValueError: for other than two axes.
    """,
    "fillvalue",
    module=__name__,
)

detrend = borrow(
    jsignal.detrend,
    """What is left of a signal without its trend.

    Args:
      data: an array.
      axis: that of time.
      type: "linear" for the line of least squares, "constant" for the mean.
      bp: where a linear trend may bend: integers.
    """,
    "axis",
    "bp",
    module=__name__,
)

stft = borrow(
    jsignal.stft,
    """The Fourier transforms of the segments of a signal.

    Args:
      x: an array.
      fs: the sampling frequency.
      window: the name of one, a tuple of a name and its parameters, or an array of `nperseg` numbers.
      nperseg: the length of a segment.
      noverlap: how much of it the next one has too; by default half.
      nfft: the length to which it is padded with zeros.
      detrend: False, or what `detrend` calls a type, or a function of the segments, with time in the axis `axis`.
      return_onesided: whether to leave out the negative frequencies of a real signal.
      boundary: how the signal goes on beyond its ends: "zeros", "even", "odd", "constant", or None if it does not.
      padded: whether zeros fill the last segment.
      axis: that of time.

    Returns:
      The frequencies, the times of the segments, and the transforms, with the times in the last axis.
    """,
    *_SEGMENTS,
    module=__name__,
)

csd = borrow(
    jsignal.csd,
    """The cross spectral density of two signals by Welch's method: the mean over segments that overlap.

    Args:
      x, y: arrays; `None` for `y` is `x`.
      fs, window, nperseg, noverlap, nfft, return_onesided, axis: see `stft`.
      detrend: what `detrend` calls a type, a function of the segments, or False.
      scaling: "density", or "spectrum" for the power.
      average: "mean" or "median", over the segments.

    Returns:
      The frequencies and the densities.
    """,
    *_SEGMENTS,
    module=__name__,
)

welch = borrow(
    jsignal.welch,
    """The power spectral density of a signal by Welch's method, with the arguments of `csd`.""",
    *_SEGMENTS,
    module=__name__,
)

istft = borrow(
    jsignal.istft,
    """The signal of which `stft` gives the transforms.

    Args:
      Zxx: the transforms.
      fs, window, nperseg, noverlap, nfft: as they were given to `stft`.
      input_onesided: whether the negative frequencies are left out.
      boundary: whether the signal was extended beyond its ends.
      time_axis, freq_axis: the axes of the times and the frequencies.

    Returns:
      The times and the signal.
    """,
    "nperseg",
    "noverlap",
    "nfft",
    "time_axis",
    "freq_axis",
    module=__name__,
)

__all__ = [
    "convolve", "convolve2d", "correlate", "correlate2d", "csd", "detrend", "fftconvolve", "istft", "stft", "welch",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
