"""Muon: momentum made orthogonal, matrix by matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax

from .. import numpy as tnp
from ..errors import called, describe, here
from ..pickling import pickled_as_call
from .base import (
    GradientTransformation,
    Mask,
    Params,
    Rate,
    State,
    chain,
    each,
    increment,
    running_mean,
    stateless,
    transformation,
    zero_count,
    zeros_like,
)
from .masking import multi_transform
from .recipes import adamw
from .scaling import add_decayed_weights, first_moment, scale_by_learning_rate

_COEFFICIENTS: dict[str, Any] = {
    "standard": (3.4445, -4.7750, 2.0315),
    "dion": (
        (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}  # fmt: skip

Preconditioning = Literal["frobenius", "spectral", "aol", "schatten"]


class MuonDimensionNumbers(NamedTuple):
    """Which axes of an array are the rows of its matrices and which the columns; along the others there are several."""

    reduction_axis: Sequence[int] | int = 0
    output_axis: Sequence[int] | int = 1


class MuonState(NamedTuple):
    """count: int32, the steps taken; mu: the running mean of the gradient; ns_coeffs: of the iteration."""

    count: Any
    mu: Any
    ns_coeffs: Any


def _axes(x: Any, numbers: MuonDimensionNumbers) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rows, columns = (
        tuple([axis % x.ndim for axis in ((axes,) if isinstance(axes, int) else axes)]) for axes in numbers
    )
    if set(rows) & set(columns):
        raise ValueError(f"{called()}: {numbers} shares axes between rows and columns of {x.shape} {here()}.")
    return rows, columns


def _orthogonal(
    x: Any, numbers: MuonDimensionNumbers, coefficients: Any, steps: int, preconditioning: Preconditioning, eps: Any
) -> Any:
    """`x`, each of whose matrices has its singular values moved towards 1."""
    rows, columns = _axes(x, numbers)
    order = (*sorted(set(range(x.ndim)) - {*rows, *columns}), *rows, *columns)
    moved = tnp.transpose(x, order)
    height, width = (math.prod([x.shape[axis] for axis in axes]) for axes in (rows, columns))
    matrices = tnp.reshape(moved, (-1, height, width))
    if height > width:
        matrices = tnp.matrix_transpose(matrices)
    if preconditioning in ("frobenius", "spectral"):
        order_of_norm = "fro" if preconditioning == "frobenius" else 2
        norm = tnp.linalg.norm(matrices, ord=order_of_norm, axis=(-2, -1), keepdims=True)
        matrices = matrices / (norm + eps)
    for i in range(steps):
        a, b, c = coefficients if coefficients.ndim == 1 else coefficients[i]
        gram = matrices @ tnp.conj(tnp.matrix_transpose(matrices))
        if i == 0 and preconditioning in ("aol", "schatten"):
            if preconditioning == "aol":
                size = tnp.sum(abs(gram), axis=-1, keepdims=True)
            else:
                size = tnp.linalg.norm(gram, axis=(-2, -1), keepdims=True)
            scale = 1 / tnp.sqrt(tnp.maximum(size, 1e-8))
            matrices, gram = matrices * scale, gram * scale * tnp.matrix_transpose(scale)
        matrices = a * matrices + (b * gram + c * gram @ gram) @ matrices
    if height > width:
        matrices = tnp.matrix_transpose(matrices)
    inverse = sorted(range(x.ndim), key=order.__getitem__)
    return tnp.transpose(tnp.reshape(matrices, moved.shape), inverse)


def _is_numbers(x: Any) -> bool:
    return isinstance(x, MuonDimensionNumbers)


def _numbered(given: Any, tree: Any, formula: Callable[[Any, MuonDimensionNumbers], Any]) -> Any:
    """`formula(leaf, its dimension numbers)` for each leaf; `given` is one for all, a tree, or a function to it."""
    given = given(tree) if callable(given) else given
    if given is None:
        given = MuonDimensionNumbers()
    if _is_numbers(given):
        return each(lambda x: formula(x, given), [], tree)
    return jax.tree.map(lambda n, x: formula(x, n), given, tree, is_leaf=_is_numbers)


@pickled_as_call
def scale_by_muon(
    ns_coeffs: Any = _COEFFICIENTS["standard"],
    ns_steps: int = 5,
    beta: Any = 0.95,
    eps: Any = 1e-8,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    weight_dimension_numbers: Any = None,
) -> GradientTransformation:
    """The running mean of the gradient, its singular values moved towards 1 by a Newton-Schulz iteration.

    X = X / ||X||, then `ns_steps` times X = a X + (b A + c A^2) X for A = X X^T. Jordan et al., "Muon" (2024).

    Args:
      ns_coeffs: a, b and c, or those of each step; "standard" or "dion".
      ns_steps: how many steps there are.
      beta: the decay of the mean.
      eps: against division by 0.
      mu_dtype: the dtype of the mean; by default the parameters'.
      nesterov: whether the mean looks ahead by one step.
      adaptive: whether the result is multiplied by its inner product with the mean. Bernstein and Newhouse (2024).
      preconditioning: how matrices are made small first: "frobenius", "spectral", "aol" or "schatten".
      weight_dimension_numbers: `MuonDimensionNumbers`, a tree of them, or a function from the gradients to one.
    """
    if preconditioning not in ("frobenius", "spectral", "aol", "schatten"):
        raise ValueError(
            f"{called()}: preconditioning is {describe(preconditioning)} {here()}. Give 'frobenius', 'spectral', 'aol' "
            "or 'schatten'."
        )
    if isinstance(ns_coeffs, str) and ns_coeffs not in _COEFFICIENTS:
        raise ValueError(f"{called()}: ns_coeffs is {ns_coeffs!r} {here()}. Give 'standard', 'dion' or numbers.")
    numbers = _COEFFICIENTS[ns_coeffs] if isinstance(ns_coeffs, str) else ns_coeffs

    def init(params: Params) -> State:
        coefficients = tnp.asarray(numbers)
        if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != 3:
            raise ValueError(
                f"{called()}: ns_coeffs is of shape {coefficients.shape} {here()}. Give three numbers, or three a step."
            )
        if coefficients.ndim == 2 and len(coefficients) > ns_steps:
            raise ValueError(
                f"{called()}: there are {len(coefficients)} ns_coeffs for {ns_steps} steps {here()}. Give ns_steps="
                f"{len(coefficients)}."
            )
        return MuonState(zero_count(), zeros_like(params, mu_dtype), coefficients)

    def update(grads: Any, state: MuonState, params: Params, **extra: Any) -> tuple[Any, State]:
        mu, count = running_mean(beta, grads, state.mu), increment(state.count)
        mean = first_moment(beta, grads, mu, count, nesterov)

        def step(x: Any, numbers: MuonDimensionNumbers) -> Any:
            if x.ndim < 2:
                raise ValueError(f"{called()}: a parameter is of shape {x.shape}, no matrix {here()}. Use muon.")
            coefficients = tnp.astype(state.ns_coeffs, x.dtype)
            steps = ns_steps if coefficients.ndim == 1 else len(coefficients)
            out = _orthogonal(x, numbers, coefficients, steps, preconditioning, eps)
            return tnp.sum(tnp.conj(x) * out) * out if adaptive else out

        return _numbered(weight_dimension_numbers, mean, step), MuonState(count, mu, state.ns_coeffs)

    return transformation(init, update)


@pickled_as_call
def scale_by_shape(weight_dimension_numbers: Any = None, consistent_rms: Any = None) -> GradientTransformation:
    """Times sqrt(max(1, columns / rows)), or consistent_rms sqrt(max(rows, columns)), of each array's matrices.

    Jordan et al. (2024); Liu et al., "Muon is scalable for LLM training" (2025).
    """

    def scaled(x: Any, numbers: MuonDimensionNumbers) -> Any:
        rows, columns = (math.prod([x.shape[axis] for axis in axes]) for axes in _axes(x, numbers))
        if consistent_rms is None:
            return math.sqrt(max(1, columns / rows)) * x
        return each(lambda rms, x: math.sqrt(max(rows, columns)) * rms * x, [consistent_rms], x)

    return stateless(lambda grads, params, **extra: _numbered(weight_dimension_numbers, grads, scaled))


@pickled_as_call
def muon(
    learning_rate: Rate,
    ns_coeffs: Any = _COEFFICIENTS["standard"],
    ns_steps: int = 5,
    beta: Any = 0.95,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
    weight_decay_mask: Mask = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: Preconditioning = "frobenius",
    adam_b1: Any = 0.9,
    adam_b2: Any = 0.999,
    adam_eps_root: Any = 0.0,
    adam_weight_decay: Any = 0.0,
    adam_learning_rate: Rate | None = None,
    muon_weight_dimension_numbers: Any = None,
    consistent_rms: Any = None,
) -> GradientTransformation:
    """Muon for matrices, and `adamw` for all else. Jordan et al., "Muon" (2024).

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov, adaptive, preconditioning: as in `scale_by_muon`.
      weight_decay, weight_decay_mask: as in `add_decayed_weights`, of the matrices.
      adam_b1, adam_b2, adam_eps_root, adam_weight_decay, adam_learning_rate: of `adamw`.
      muon_weight_dimension_numbers: a tree of `MuonDimensionNumbers`, of `None` for what `adamw` is for, like the
        parameters or the start of one, or a function from them to it; by default, arrays of two axes are matrices.
      consistent_rms: as in `scale_by_shape`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.muon(0.1)
      >>> params = {"w": np.ones((3, 2), np.float32), "b": np.ones(2, np.float32)}
      >>> sorted(optimizer.init(params).inner_states)
      ['adam', 'muon']
    """

    def spread(params: Params) -> Any:
        """The dimension numbers of each leaf, or the name of the other optimizer."""
        given = muon_weight_dimension_numbers
        if given is None:
            return jax.tree.map(lambda x: MuonDimensionNumbers() if x.ndim == 2 else "adam", params)
        given = given(params) if callable(given) else given
        return jax.tree.map(
            lambda n, part: jax.tree.map(lambda x: "adam" if n is None else n, part),
            given,
            params,
            is_leaf=lambda n: n is None or _is_numbers(n),
        )

    def labels(params: Params) -> Any:
        return jax.tree.map(lambda n: "muon" if _is_numbers(n) else "adam", spread(params), is_leaf=_is_numbers)

    matrices = chain(
        scale_by_muon(
            ns_coeffs, ns_steps, beta, eps, mu_dtype, nesterov=nesterov, adaptive=adaptive,
            preconditioning=preconditioning, weight_dimension_numbers=spread,
        ),
        scale_by_shape(spread, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
    rest = adamw(
        learning_rate if adam_learning_rate is None else adam_learning_rate, adam_b1, adam_b2, eps, adam_eps_root,
        mu_dtype, adam_weight_decay, nesterov=nesterov,
    )  # fmt: skip
    return multi_transform({"muon": matrices, "adam": rest}, labels)


__all__ = ["MuonDimensionNumbers", "MuonState", "muon", "scale_by_muon", "scale_by_shape"]
