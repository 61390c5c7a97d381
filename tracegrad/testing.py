"""Checks of derivatives, for tests of your own functions and ops. Uses transforms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from . import numpy as tnp
from .errors import describe, here
from .names import listed
from .tape import aval_of
from .transforms import define_by_run, grad

_DIRECTIONS = 8
_EVERY_ELEMENT = 256


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    *,
    atol: float = 1e-6,
    rtol: float = 1e-5,
    eps: float = 1e-5,
) -> None:
    """Compares the derivatives of `f` at `args` with centred differences, `(f(x + eps) - f(x - eps)) / (2 eps)`.

    All is computed in float64 (complex128), whatever the dtypes of `args`. Each element of an array is moved
    by itself; arrays of more than 256 elements are moved along random directions. Outputs that are not one
    scalar are checked through a weighted sum of all their elements with random weights.

    Args:
      f: takes and returns pytrees of arrays. Its derivative must not jump within `eps` of `args`.
      args: its arguments; every float and complex leaf is differentiated, the others are passed on.
      order: how often to differentiate: 2 checks the gradient, and that of the gradient along a random direction.
      atol, rtol: how far the two may differ: `atol * max(1, largest element of the gradient) + rtol * |difference|`.
      eps: the step.

    Raises:
      AssertionError: if they differ; the message names the argument, the index and both values.
      TypeError: if there is nothing to differentiate.

    Example:
      >>> import tracegrad.numpy as np
      >>> from tracegrad.testing import check_grads
      >>> check_grads(lambda x, y: np.sin(x) * y, (np.array([0.5, 1.0]), 2.0))
    """
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise TypeError(
            f"check_grads: args is {describe(args)} {here()}: give a tuple with the arguments of the function"
        )
    with jax.enable_x64(True):
        paths, tree = jax.tree_util.tree_flatten_with_path(tuple(args))
        values = [x for _, x in paths]
        which = [i for i, x in enumerate(values) if aval_of(x).differentiable]
        if not which:
            raise TypeError(f"check_grads: there is no float or complex value among the arguments {here()}")
        names = _argument_names(f)
        labels = [_label(names, paths[i][0]) for i in which]

        def scalar(xs: list[Any]) -> Any:
            new = list(values)
            for i, x in zip(which, xs, strict=True):
                new[i] = x
            return _weighted_sum(f(*jax.tree.unflatten(tree, new)))

        xs = [_wide(values[i]) for i in which]
        _check(scalar, xs, labels, order, "gradient", (atol, rtol, eps), getattr(f, "__name__", repr(f)))


def _check(
    scalar: Callable[..., Any],
    xs: list[Any],
    labels: list[str],
    order: int,
    what: str,
    tolerance: tuple[float, float, float],
    name: str,
) -> None:
    atol, rtol, eps = tolerance
    rng = np.random.default_rng(0)
    grads = grad(scalar)(xs)
    for k, (x, g) in enumerate(zip(xs, map(np.asarray, grads), strict=True)):
        scale = max(1.0, float(np.max(np.abs(g), initial=0.0)))
        for where, step in _steps(x, rng):
            high, low = (
                float(define_by_run(scalar, scalar, ([*xs[:k], x + sign * eps * step, *xs[k + 1 :]],), {}))
                for sign in (1, -1)
            )
            expected = (high - low) / (2 * eps)
            actual = float(np.sum(np.real(g * step)))
            if not abs(actual - expected) <= atol * scale + rtol * abs(expected):
                raise AssertionError(
                    f"the {what} of {name} with respect to argument {labels[k]}{where} is {actual:.10g}, centred "
                    f"differences give {expected:.10g} (relative error {abs(actual - expected) / scale:.2g})"
                )
    if order > 1:
        direction = [_random(rng, x) for x in xs]

        def along(xs: list[Any]) -> Any:
            products = [tnp.sum(tnp.real(g * v)) for g, v in zip(grad(scalar)(xs), direction, strict=True)]
            total = products[0]
            for product in products[1:]:
                total = total + product
            return total

        _check(along, xs, labels, order - 1, f"gradient of the {what} along a direction", tolerance, name)


def _weighted_sum(outputs: Any) -> Any:
    rng = np.random.default_rng(1)
    total = None
    for out in jax.tree.leaves(outputs):
        aval = aval_of(out)
        if not aval.differentiable:
            continue
        weights = rng.uniform(0.5, 1.5, (2, *aval.shape))
        term = tnp.sum(tnp.real(out) * weights[0])
        if aval.dtype.kind == "c":
            term = term + tnp.sum(tnp.imag(out) * weights[1])
        total = term if total is None else total + term
    if total is None:
        raise TypeError(f"check_grads: the function returns no float or complex value {here()}")
    return total


def _steps(x: np.ndarray[Any, Any], rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    if x.size > _EVERY_ELEMENT:
        for _ in range(_DIRECTIONS):
            yield ", along a random direction,", _random(rng, x)
        return
    for index in np.ndindex(x.shape):
        for unit, part in ((1.0, ""), (1j, " (imaginary part)")) if x.dtype.kind == "c" else ((1.0, ""),):
            step = np.zeros_like(x)
            step[index] = unit
            yield (f"[{', '.join(map(str, index))}]" if index else "") + part, step


def _random(rng: np.random.Generator, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    step = rng.standard_normal(x.shape)
    return np.asarray(step + 1j * rng.standard_normal(x.shape) if x.dtype.kind == "c" else step)


def _wide(x: Any) -> np.ndarray[Any, Any]:
    return np.asarray(x, np.complex128 if np.asarray(x).dtype.kind == "c" else np.float64)


def _argument_names(f: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []  # a callable without a signature: its arguments are named by position
    return [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]


def _label(names: list[str], path: Any) -> str:
    position = path[0].idx
    name = names[position] if position < len(names) else str(position)
    return name + jax.tree_util.keystr(path[1:])


__all__ = ["check_grads"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
