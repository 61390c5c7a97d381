"""`x.at[index].set(value)` and friends: copies of an array that differ at an index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import describe, here
from ..recording import state
from ..tape import aval_of
from ..tracer import Tracer
from .elementwise import add, astype, div, maximum, minimum, mul, neg, pow_, where
from .gather import Spec, fill_of, mode_of, scatter
from .indexing import Plan, plan_of, read, read_window, reshaped, to_array, write_window
from .shape import broadcast_to, reshape, splat


class At:
    """`x.at[index].set(value)` and friends: copies of `x` with elements replaced, as in `jax.numpy`.

    The index is anything that `x[index]` takes. An index of unknown value that is out of bounds is dropped by the
    updates, and clamped by `get`; `mode` ("drop" or "fill", "clip", "promise_in_bounds") says otherwise, also
    for known ones, which raise `IndexError` without it.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.jit(lambda x: x.at[1].set(7.0))(np.zeros(3)).tolist()
      [0.0, 7.0, 0.0]
      >>> tg.grad(lambda x: x.at[1].multiply(7.0).sum())(np.ones(3)).tolist()
      [1.0, 7.0, 1.0]
    """

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x

    def __getitem__(self, index: Any) -> _Place:
        return _Place(self.x, index)

    def __repr__(self) -> str:
        return f"At({describe(self.x)})"


def at(x: Any) -> Any:
    """`x.at`, also for NumPy arrays and numbers; what JAX has for its arrays, unless a tape is recording."""
    return At(x) if state.tape is not None or isinstance(x, Tracer) else jnp.asarray(x).at


class _Place:
    """A place in an array, whose methods return a copy of the array that differs there.

    Every method takes `mode`, `indices_are_sorted` and `unique_indices` as `jax.numpy.ndarray.at` does. Of several
    updates of one element by `set`, one stays, and only that one has a derivative.
    """

    __slots__ = ("index", "x")

    def __init__(self, x: Any, index: Any) -> None:
        self.x = to_array(x)
        self.index = index

    def set(self, values: Any, **options: Any) -> Any:
        """`x[index] = values`."""
        return self._update("set", values, options)

    def add(self, values: Any, **options: Any) -> Any:
        """`x[index] += values`; indices that occur twice add twice."""
        return self._update("max" if self.x.dtype == np.bool_ else "add", values, options)

    def subtract(self, values: Any, **options: Any) -> Any:
        """`x[index] -= values`."""
        return self._update("add", neg(self._cast(values)), options)

    def multiply(self, values: Any, **options: Any) -> Any:
        """`x[index] *= values`."""
        return self._update("min" if self.x.dtype == np.bool_ else "multiply", values, options)

    mul = multiply

    def divide(self, values: Any, **options: Any) -> Any:
        """`x[index] /= values`."""
        return div(self.x, self._ones().multiply(values, **options))

    def power(self, values: Any, **options: Any) -> Any:
        """`x[index] **= values`."""
        return pow_(self.x, self._ones().multiply(values, **options))

    def min(self, values: Any, **options: Any) -> Any:
        """`x[index] = minimum(x[index], values)`; at a tie the two share the derivative equally."""
        return self._update("min", values, options)

    def max(self, values: Any, **options: Any) -> Any:
        """`x[index] = maximum(x[index], values)`; at a tie the two share the derivative equally."""
        return self._update("max", values, options)

    def apply(self, func: Callable[[Any], Any], **options: Any) -> Any:
        """`x[index] = func(x[index])`, once for each element even if its index occurs twice."""
        return self.set(func(self.get(**options)), **options)

    def get(self, *, fill_value: Any = None, **options: Any) -> Any:
        """`x[index]`; with `mode="fill"`, `fill_value` (NaN by default) where the index is out of bounds."""
        plan, spec = self._plan(_options(options), "clip")
        if spec is not None and spec.mode == "fill":
            spec = spec._replace(fill=fill_of(fill_value))
        return read(self.x, plan, spec)

    def _ones(self) -> _Place:
        return _Place(splat(self.x.shape, 1, aval_of(self.x).dtype), self.index)

    def _plan(self, options: tuple[str | None, bool, bool], default: str) -> tuple[Plan, Spec | None]:
        mode, is_sorted, unique = options
        plan = plan_of(self.x.shape, self.index, check=mode is None)
        spec = plan.spec
        if spec is None:
            return plan, None
        return plan, spec._replace(
            mode=mode or (spec.mode if spec.mode != "clip" else default),
            sorted=spec.sorted or is_sorted,
            unique=spec.unique or unique,
        )

    def _update(self, kind: str, values: Any, given: dict[str, Any]) -> Any:
        x, options = self.x, _options(given)
        values = self._cast(values)
        mask = self.index[0] if type(self.index) is tuple and len(self.index) == 1 else self.index
        if isinstance(mask, (np.ndarray, jax.Array, Tracer)) and mask.dtype == np.bool_:
            rest = x.ndim - mask.ndim
            if mask.shape == x.shape[: mask.ndim] and values.ndim <= rest:
                # The same values everywhere: no indices, so nothing depends on how many there are.
                values = broadcast_to(values, x.shape[mask.ndim :])
                chosen = reshape(mask, shape=(*mask.shape, *(1,) * rest)) if rest else mask
                return where(chosen, _BINARY[kind](x, values), x)
        plan, spec = self._plan(options, "fill")
        try:
            np.broadcast_shapes(values.shape, plan.shape)
            values = broadcast_to(values, plan.shape) if values.shape != plan.shape else values
        except ValueError:
            raise ValueError(
                f"values of shape {values.shape} do not broadcast to {plan.shape}, the shape of what is indexed in an "
                f"array of shape {x.shape}, {here()}"
            ) from None
        values = reshaped(values, plan.gathered)
        if 0 in plan.shape:
            return x
        shape = tuple(n for _, _, n in plan.window)
        if spec is None and kind in ("set", "add"):
            return write_window(x, reshaped(values, shape), plan.window, kind == "add")
        old = reshaped(read_window(x, plan.window), plan.kept)
        new = _BINARY[kind](old, values) if spec is None else scatter(old, values, *plan.indices, kind=kind, spec=spec)
        return write_window(x, reshaped(new, shape), plan.window)

    def _cast(self, values: Any) -> Any:
        """The values in the dtype of the array, which may not change kind on the way."""
        values = to_array(values)
        to, aval = aval_of(self.x), aval_of(values)
        if aval.dtype == to.dtype:
            return values
        if _KINDS.index(_kind(aval.dtype)) > _KINDS.index(_kind(to.dtype)):
            raise TypeError(
                f"values of dtype {aval.dtype} were put into an array of dtype {to.dtype} {here()}: "
                "convert one of them with .astype"
            )
        return astype(values, dtype=to.dtype)


def _options(given: dict[str, Any]) -> tuple[str | None, bool, bool]:
    names = ("mode", "indices_are_sorted", "unique_indices")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r} of x.at[...] {here()}: there are {', '.join(names)}")
    return mode_of(given.get(names[0])), bool(given.get(names[1])), bool(given.get(names[2]))


_BINARY: dict[str, Callable[..., Any]] = {
    "set": lambda x, u: u,
    "add": add,
    "multiply": mul,
    "min": minimum,
    "max": maximum,
}
_KINDS = (np.bool_, np.integer, np.floating, np.complexfloating)


def _kind(dtype: Any) -> Any:
    return next(kind for kind in _KINDS if jnp.issubdtype(dtype, kind))


__all__ = ["At", "at"]
