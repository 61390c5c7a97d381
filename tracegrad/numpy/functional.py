"""Functions of functions: mapped over axes of arrays."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np

from .. import ops
from ..batching import vmap
from ..errors import called, describe, here
from .arguments import axis_of, dtype_of, shape_of, type_of
from .creation import array_like
from .manipulation import broadcast_to, expand_dims, moveaxis, reshape

_DIMENSIONS = r"\((\w+(,\w+)*)?\)"
_SIGNATURE = re.compile(rf"^({_DIMENSIONS}(,{_DIMENSIONS})*)?->{_DIMENSIONS}(,{_DIMENSIONS})*$")


def _parsed(signature: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    text = re.sub(r"\s", "", signature)
    if not _SIGNATURE.match(text):
        raise ValueError(f"{called()}: signature={signature!r} {here()}. Write it as '(m,n),(n)->(m)'.")
    left, right = (re.findall(r"\(([^)]*)\)", part) for part in text.split("->"))
    return [tuple(filter(None, d.split(","))) for d in left], [tuple(filter(None, d.split(","))) for d in right]


def vectorize(pyfunc: Callable[..., Any], *, excluded: Collection[int | str] = (), signature: str | None = None) -> Any:
    """A function that applies `pyfunc` to each element of its arguments, which broadcast, as one batched program.

    Args:
      pyfunc: takes scalars, or arrays with the axes that the signature names; returns an array or a tuple of them.
      excluded: positions and names of arguments that are passed on as they are. Keyword arguments always are.
      signature: the last axes of the arguments and results that one call takes and gives, such as "(m,n),(n)->(m)".

    Raises:
      ValueError: if sizes differ for one name, or an argument has too few axes.

    Example:
      >>> import tracegrad.numpy as np
      >>> dot = np.vectorize(lambda x, y: (x * y).sum(), signature="(n),(n)->()")
      >>> dot(np.ones((4, 3)), np.arange(3.0)).tolist()
      [3.0, 3.0, 3.0, 3.0]
    """
    dimensions = None if signature is None else _parsed(signature)

    @functools.wraps(pyfunc)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        places = [i for i in range(len(args)) if i not in excluded]
        taken = [(), ] * len(places) if dimensions is None else dimensions[0]  # fmt: skip
        if len(taken) != len(places):
            raise TypeError(
                f"{called()}: {len(places)} arguments for the signature {signature!r} {here()}. Give one a bracket."
            )
        arrays = [array_like(args[i]) for i in places]
        sizes: dict[str, int] = {}
        outer = []
        for x, names in zip(arrays, taken, strict=True):
            shape = x.shape
            if len(shape) < len(names):
                raise ValueError(f"{called()}: {describe(x)} for the axes {names} of {signature!r} {here()}")
            split = len(shape) - len(names)
            outer.append(shape[:split])
            for name, n in zip(names, shape[split:], strict=True):
                if sizes.setdefault(name, n) != n:
                    raise ValueError(
                        f"{called()}: axis {name!r} has sizes {sizes[name]} and {n} {here()}, one is needed"
                    )
        try:
            together = np.broadcast_shapes(*outer)
        except ValueError:
            raise ValueError(f"{called()}: shapes {', '.join(map(str, outer))} do not broadcast {here()}") from None
        count = math.prod(together)

        def one(*values: Any) -> Any:
            full = list(args)
            for i, value in zip(places, values, strict=True):
                full[i] = value
            out = pyfunc(*full, **kwargs)
            if dimensions is not None:
                _check_results(out, dimensions[1], sizes, signature)
            return out

        if not together:
            return one(*arrays)
        shared = [not math.prod(s) > 1 for s in outer]
        if all(shared):
            shared = [False] * len(shared)
        flat = []
        for x, s, alone in zip(arrays, outer, shared, strict=True):
            inner = x.shape[len(s) :]
            x = x if alone else broadcast_to(x, (*together, *inner)) if not inner else _spread(x, together, inner)
            flat.append(ops.reshape(x, shape=inner if alone else (count, *inner)))
        out = vmap(one, in_axes=tuple([None if alone else 0 for alone in shared]))(*flat)
        return jax.tree.map(lambda y: reshape(y, (*together, *y.shape[1:])), out)

    return wrapped


def _spread(x: Any, outer: tuple[int, ...], inner: tuple[int, ...]) -> Any:
    """`x` with its axes before the inner ones broadcast."""
    missing = len(outer) + len(inner) - x.ndim
    return broadcast_to(reshape(x, (1,) * missing + x.shape), (*outer, *inner))


def _check_results(out: Any, names: list[tuple[str, ...]], sizes: dict[str, int], signature: str | None) -> None:
    results = out if isinstance(out, (tuple, list)) else (out,)
    if len(results) != len(names):
        raise TypeError(f"{called()}: {len(results)} results for the signature {signature!r} {here()}")
    known = dict(sizes)
    for result, axes in zip(results, names, strict=True):
        shape = type_of(result).shape
        if len(shape) != len(axes) or any(known.setdefault(a, n) != n for a, n in zip(axes, shape, strict=True)):
            raise ValueError(
                f"{called()}: a result {describe(result)} for the axes {axes} of {signature!r}, sizes {sizes}, {here()}"
            )


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """The results of a function of vectors, applied to `arr` along an axis; the axes of a result take its place.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.apply_along_axis(lambda v: v[::-1] * v.sum(), 1, np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
      [[6.0, 3.0], [28.0, 21.0]]
    """
    x = array_like(arr)
    i = axis_of(axis, x.ndim)
    x = moveaxis(x, i, -1)
    outer = x.shape[:-1]
    if not outer:
        return func1d(x, *args, **kwargs)
    flat = reshape(x, (math.prod(outer), x.shape[-1]))
    out = vmap(lambda v: func1d(v, *args, **kwargs))(flat)

    def placed(y: Any) -> Any:
        new = y.ndim - 1
        y = reshape(y, (*outer, *y.shape[1:]))
        return moveaxis(y, tuple(range(len(outer), len(outer) + new)), tuple(range(i, i + new)))

    return jax.tree.map(placed, out)


def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    """`func(a, axis)` for one axis after the other; where it takes the axis away, it comes back with size 1."""
    x = array_like(a)
    n = x.ndim
    for axis in axes if isinstance(axes, (tuple, list)) else (axes,):
        i = axis_of(axis, n)
        y = func(x, i)
        if y.ndim == n - 1:
            y = expand_dims(y, i)
        if y.ndim != n:
            raise ValueError(f"{called()}: the function made {describe(y)} of {describe(x)} {here()}. Keep the axes.")
        x = y
    return x


def fromfunction(function: Callable[..., Any], shape: Any, *, dtype: Any = float, **kwargs: Any) -> Any:
    """The array whose elements are `function(i, j, ...)` at their indices, which are of this dtype.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.fromfunction(lambda i, j: 10 * i + j, (2, 3), dtype=int).tolist()
      [[0, 1, 2], [10, 11, 12]]
    """
    dims = shape_of(shape)
    index = [
        ops.iota(dtype=dtype_of(dtype), shape=tuple(n if j == i else 1 for j in range(len(dims))), axis=i)
        for i, n in enumerate(dims)
    ]
    return vectorize(functools.partial(function, **kwargs))(*index)


__all__ = ["apply_along_axis", "apply_over_axes", "fromfunction", "vectorize"]
