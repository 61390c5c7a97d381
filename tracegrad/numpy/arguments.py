"""How the functions of this namespace read their arguments, and refuse them."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .. import ops
from ..borrow import refuse_out
from ..errors import called, describe, here
from ..ops.arraylike import from_list, holds_arrays, type_of
from ..ops.indexing import concrete
from ..tape import Aval, make_aval
from ..tracer import Tracer, literal


def types_of(xs: Any) -> list[Aval]:
    """The types of a sequence of arrays."""
    if not isinstance(xs, (list, tuple)) and not (hasattr(xs, "ndim") and xs.ndim):
        raise TypeError(f"{called()} takes a sequence of arrays, not {describe(xs)} {here()}. Put them in a list.")
    return [type_of(x) for x in xs]


def axis_of(axis: Any, ndim: int) -> int:
    """`axis` counted from the front."""
    try:
        i = operator.index(axis)
    except TypeError:
        raise TypeError(f"{called()}: axis must be an integer, not {describe(axis)} {here()}") from None
    if not -ndim <= i < ndim:
        remedy = f"Use one from {-ndim} to {ndim - 1}." if ndim else "A scalar has no axes."
        raise ValueError(f"{called()}: axis {i} of an array of {ndim} axes {here()}. {remedy}")
    return i + ndim if i < 0 else i


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `axis` (an integer, a tuple, or `None` for all) names, in order, counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    if not isinstance(axis, (tuple, list)):
        return (axis_of(axis, ndim),)
    axes = tuple(sorted([axis_of(a, ndim) for a in axis]))
    if len(set(axes)) != len(axes):
        raise ValueError(f"{called()}: axis {tuple(axis)} names an axis twice {here()}. Name each once.")
    return axes


def order_of(axes: Sequence[Any], ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, in the order given."""
    return tuple([axis_of(a, ndim) for a in axes])


def integer(value: Any, what: str) -> int:
    """A concrete integer, such as a count or an offset.

    Raises:
      TypeError: if it is not an integer, or a traced value that has no concrete value.
    """
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, Tracer):
            raise
        raise TypeError(f"{called()}: {what} must be an integer, not {describe(value)} {here()}") from None


def known(x: Any, remedy: str) -> np.ndarray[Any, Any]:
    """The value of an argument that decides the shape of the result; what was recorded for it runs now.

    Raises:
      TracerError: if it has none yet, as under `@jit` and in bodies.
    """
    x = Tracer.of_list(x) if type(x) is list or type(x) is tuple else x
    type_of(x)
    return concrete(x, lambda: (  # type: ignore[no-any-return]
        f"{called()}: the result depends on the numbers of a traced value ({describe(x)}) {here()}, which has none yet "
        f"under @jit, in bodies and in transformations of JAX. {remedy}, or take @jit away."
    ))  # fmt: skip


def is_known(x: Any) -> bool:
    """Whether a value is known without running anything: a number, a sequence or an array, not a traced value."""
    return not isinstance(x, (Tracer, jax.core.Tracer))


def shape_of(shape: Any) -> tuple[int, ...]:
    """A shape given as an integer or a sequence of integers."""
    if not isinstance(shape, (tuple, list, np.ndarray)):
        return (integer(shape, "shape"),)
    return tuple([n if type(n) is int else integer(n, "each size of a shape") for n in shape])


def dtype_of(dtype: Any) -> Any:
    """A dtype as JAX keeps it: Python types and, unless `jax_enable_x64` is on, 64-bit types become 32-bit ones."""
    try:
        kept = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError:
        shape = " A shape of several sizes is a tuple: zeros((2, 3))." if isinstance(dtype, int) else ""
        raise TypeError(f"{dtype!r} is no dtype {here()}. Give one, such as float or 'int32'.{shape}") from None
    if dtype not in (bool, int, float, complex) and kept != np.dtype(dtype):
        warnings.warn(
            f"dtype {np.dtype(dtype).name} was asked for, {kept.name} is given, as jax_enable_x64 is off {here()}. "
            f"Ask for {kept.name}, or turn it on: jax.config.update('jax_enable_x64', True).",
            stacklevel=2,
        )
    return kept


def common_type(avals: Sequence[Aval]) -> tuple[Any, bool]:
    """The dtype that operands of these types have together, and whether it is weak."""
    first = avals[0]
    for a in avals:
        if (a is not first and a.dtype != first.dtype) or a.weak_type != first.weak_type:
            dtype, weak = jax.dtypes.result_type(*[b.promoting() for b in avals], return_weak_type_flag=True)
            return dtype, weak
    return first.dtype, first.weak_type


def promoted(xs: Sequence[Any], avals: Sequence[Aval]) -> list[Any]:
    """The operands in their common dtype, arrays of lists."""
    xs = [Tracer.of_list(x) if type(x) is list or type(x) is tuple else x for x in xs]
    common, _ = common_type(avals)
    for a in avals:
        if a.dtype != common:
            break
    else:
        return xs
    return [x if a.dtype == common else ops.astype(x, dtype=common) for x, a in zip(xs, avals, strict=True)]


def is_inexact(dtype: Any) -> bool:
    """Whether a dtype is one of floats (of any width) or complex numbers."""
    return dtype.kind in "fc" or (dtype.kind == "V" and not dtype.name.startswith(("int", "uint", "key")))


def inexact(x: Any, aval: Aval) -> Any:
    """`x`, as floats if it is of integers or booleans."""
    if is_inexact(aval.dtype):
        return Tracer.of_list(x) if type(x) is list or type(x) is tuple else x
    return ops.astype(x, dtype=ops.inexact_dtype(aval.dtype))


def refuse(**arguments: Any) -> None:
    """Raises for arguments of NumPy's that are taken only with their default, such as `out`."""
    for key, value in arguments.items():
        if value is not None:
            if key == "out":
                refuse_out(value)
            raise TypeError(
                f"{called()}: the argument {key}={describe(value)} is not supported {here()}. Leave it out."
            )


__all__ = [
    "Aval", "axes_of", "axis_of", "common_type", "dtype_of", "from_list", "holds_arrays", "inexact", "integer",
    "is_inexact", "is_known", "known", "literal", "make_aval", "order_of", "promoted", "refuse", "shape_of",
    "type_of", "types_of",
]  # fmt: skip
