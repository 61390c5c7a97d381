"""Transforms that are fitted to training data and then applied to any: centred, scaled, whitened features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from ... import numpy as tnp
from ...errors import called, describe, here
from ...numpy.arguments import axes_of, is_known
from ...tape import aval_of


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """(x - mean) / scale; what `mean_subtract` and `normalize` return. A pytree, that can be saved and passed to `jit`.

    Attributes:
      mean, scale: arrays that broadcast against the data.
    """

    mean: Any
    scale: Any

    def __call__(self, x: Any) -> Any:
        """The data, transformed; of the features of the data that this was fitted to."""
        return (self._checked(x) - self.mean) / self.scale

    def inverse(self, x: Any) -> Any:
        """The data that is transformed to `x`."""
        return self._checked(x) * self.scale + self.mean

    def _checked(self, x: Any) -> Any:
        shape, own = aval_of(tnp.asarray(x)).shape, aval_of(self.mean).shape
        if len(shape) != len(own) or any(m not in (1, n) for n, m in zip(shape, own, strict=True)):
            raise ValueError(
                f"Scaled: data of shape {shape}, and this was fitted to data of shape {_any(own)} {here()}. Give data "
                "with the same features."
            )
        return tnp.asarray(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whitened:
    """(x - mean) @ matrix; what `whiten` returns. A pytree, that can be saved and passed to `jit`.

    Attributes:
      mean: shape `(D,)`.
      matrix: shape `(D, D)`; its columns are 0 for directions without variance.
      unmixing: shape `(D, D)`, from what is whitened back to the features.
    """

    mean: Any
    matrix: Any
    unmixing: Any

    def __call__(self, x: Any) -> Any:
        """The data, of shape `(..., D)`, whitened."""
        return (self._checked(x) - self.mean) @ self.matrix

    def inverse(self, x: Any) -> Any:
        """The data that is whitened to `x`, up to directions without variance."""
        return self._checked(x) @ self.unmixing + self.mean

    def _checked(self, x: Any) -> Any:
        shape, own = aval_of(tnp.asarray(x)).shape, aval_of(self.mean).shape
        if shape[-1:] != own:
            raise ValueError(
                f"Whitened: data of shape {shape}, and this was fitted to {own[0]} features {here()}. Give data of "
                f"shape (..., {own[0]})."
            )
        return tnp.asarray(x)


def _any(shape: tuple[int, ...]) -> str:
    return f"({', '.join('any' if n == 1 else str(n) for n in shape)})"


def _training_data(x: Any, least: int) -> np.ndarray[Any, Any]:
    """The data in double precision."""
    if not is_known(x):
        raise TypeError(
            f"{called()}: the data is a traced value ({describe(x)}) {here()}. Fit outside of @jit, and pass the "
            "transform to the function: it is a pytree."
        )
    data = np.asarray(x, np.float64)
    if data.ndim == 0 or len(data) < least:
        raise ValueError(
            f"{called()}: data of shape {data.shape} {here()}. Give training data with {least} examples at least, "
            "along its first axis."
        )
    if not np.isfinite(data).all():
        raise ValueError(
            f"{called()}: the data has {np.count_nonzero(~np.isfinite(data))} numbers that are NaN or infinite "
            f"{here()}. Replace them, or leave their examples out."
        )
    return data


def _single(*arrays: Any) -> list[Any]:
    return [tnp.asarray(a.astype(jax.dtypes.canonicalize_dtype(float))) for a in arrays]


def mean_subtract(x: Any, axis: int | tuple[int, ...] = 0) -> Scaled:
    """The transform that takes the mean of the training data off each feature.

    Args:
      x: training data alone, the examples along its first axis.
      axis: the axes that the mean is taken over; for images `(N, H, W, C)`, `(0, 1, 2)` for one mean a channel.

    Raises:
      ValueError: if there are no data, or some are NaN or infinite.

    Example:
      >>> import numpy as np
      >>> from tracegrad.train import data
      >>> centred = data.mean_subtract(np.array([[1.0, 2.0], [3.0, 6.0]]))
      >>> centred(np.array([[2.0, 5.0]])).tolist()
      [[0.0, 1.0]]
    """
    data = _training_data(x, 1)
    mean = data.mean(axes_of(axis, data.ndim), keepdims=True)
    return Scaled(*_single(mean, np.ones_like(mean)))


def normalize(x: Any, axis: int | tuple[int, ...] = 0) -> Scaled:
    """The transform that gives each feature of the training data mean 0 and standard deviation 1.

    A feature without variance is centred and not scaled. It is scikit-learn's `StandardScaler`.

    Args:
      x, axis: as for `mean_subtract`.

    Raises:
      ValueError: if there are no data, or some are NaN or infinite.

    Example:
      >>> import numpy as np
      >>> from tracegrad.train import data
      >>> scaled = data.normalize(np.array([[1.0, 7.0], [3.0, 7.0]]))
      >>> scaled(np.array([[5.0, 8.0]])).tolist()
      [[3.0, 1.0]]
    """
    data = _training_data(x, 1)
    axes = axes_of(axis, data.ndim)
    mean, deviation = data.mean(axes, keepdims=True), data.std(axes, keepdims=True)
    count = np.prod([data.shape[i] for i in axes])
    # What rounding makes of a feature that is constant is no variance.
    rounding = np.finfo(np.float64).eps * (count * deviation + 10 * np.sqrt(count) * abs(mean))
    return Scaled(*_single(mean, np.where(deviation <= rounding, 1, deviation)))


def whiten(x: Any, method: Literal["pca", "zca"] = "pca") -> Whitened:
    """The transform after which the features of the training data have mean 0, variance 1 and no correlation.

    Of the singular value decomposition X = U S V^T of the centred data it is x V S^-1 sqrt(N - 1), in the order of
    decreasing variance: scikit-learn's `PCA(whiten=True)`. With "zca" that is turned back by V^T, so that it is nearest
    to the data (Bell and Sejnowski, 1997). Directions in which the data do not vary, whose singular value is 0 up to
    rounding, give 0.

    Args:
      x: training data alone, of shape `(N, D)`; flatten images.
      method: "pca" or "zca".

    Raises:
      ValueError: if `x` has not two axes, or fewer than two examples, or some are NaN or infinite.

    Example:
      >>> import numpy as np
      >>> from tracegrad.train import data
      >>> x = np.random.default_rng(0).normal(size=(50, 3)) @ np.array([[1, 2, 0], [0, 1, 3], [1, 3, 3]])
      >>> abs(np.cov(data.whiten(x)(x).T)).round(3).tolist()
      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if method not in ("pca", "zca"):
        raise ValueError(f"{called()}: method={method!r} {here()}. Choose 'pca' or 'zca'.")
    data = _training_data(x, 2)
    if data.ndim != 2:
        raise ValueError(
            f"{called()}: data of shape {data.shape} {here()}. Give (N, D): flatten the rest, x.reshape(len(x), -1)."
        )
    mean = data.mean(0)
    _, s, vt = np.linalg.svd(data - mean, full_matrices=False)
    # The sign of a direction is that of its greatest part, as scikit-learn's.
    vt *= np.sign(np.take_along_axis(vt, abs(vt).argmax(1, keepdims=True), 1))
    there = s > s[0] * max(data.shape) * np.finfo(np.float64).eps
    deviation = s / np.sqrt(len(data) - 1)
    scaled = np.where(there, 1 / np.where(there, deviation, 1), 0)
    matrix, back = vt.T * scaled, (vt.T * np.where(there, deviation, 0)).T
    if method == "zca":
        matrix, back = matrix @ vt, vt.T @ back
    else:
        # With fewer examples than features, the rest has no variance either.
        empty = data.shape[1] - len(s)
        matrix, back = np.pad(matrix, ((0, 0), (0, empty))), np.pad(back, ((0, empty), (0, 0)))
    return Whitened(*_single(mean, matrix, back))


__all__ = ["Scaled", "Whitened", "mean_subtract", "normalize", "whiten"]
