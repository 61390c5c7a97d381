"""What Python and NumPy ask of an array, installed on the traced value. Uses all that has operators and methods.

They are installed on `Tracer` here, above the ops and the array namespace that they are made of, which the core need
not know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import numpy as tnp
from . import ops
from .protocols import call_function, call_ufunc
from .tracer import Tracer

Function = Callable[..., Any]

_BINARY: dict[str, Function] = {
    "add": ops.add, "sub": ops.sub, "mul": ops.mul, "truediv": ops.div, "floordiv": ops.floor_divide,
    "mod": ops.remainder, "divmod": tnp.divmod, "pow": tnp.power, "matmul": tnp.matmul, "and": ops.bitwise_and,
    "or": ops.bitwise_or, "xor": ops.bitwise_xor, "lshift": ops.left_shift, "rshift": ops.right_shift,
}  # fmt: skip
"""Each has a reflected form, for a traced value on the right."""

_COMPARED: dict[str, Function] = {
    "eq": ops.equal, "ne": ops.not_equal, "lt": ops.less, "le": ops.less_equal, "gt": ops.greater,
    "ge": ops.greater_equal,
}  # fmt: skip

_UNARY: dict[str, Function] = {
    "__neg__": ops.neg, "__pos__": lambda x: x, "__abs__": ops.abs_, "__invert__": ops.bitwise_not,
    "conj": tnp.conj, "conjugate": tnp.conj,
}  # fmt: skip

_PROPERTIES: dict[str, Function] = {
    "T": tnp.transpose, "mT": tnp.matrix_transpose, "real": tnp.real, "imag": tnp.imag, "at": ops.At,
}  # fmt: skip

_SAME = (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "choose", "copy", "cumprod", "cumsum",
    "diagonal", "max", "mean", "min", "nonzero", "partition", "prod", "ptp", "ravel", "searchsorted", "sort", "squeeze",
    "std", "sum", "swapaxes", "take", "trace", "var",
)  # fmt: skip
"""Methods that are the functions of the same names."""


def _reshape(self: Any, *shape: Any, order: str = "C") -> Any:
    return tnp.reshape(self, shape[0] if len(shape) == 1 else shape, order)


def _transpose(self: Any, *axes: Any) -> Any:
    return tnp.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)


def _flatten(self: Any, order: str = "C") -> Any:
    return tnp.ravel(self, order)


def _round(self: Any, decimals: int = 0) -> Any:
    return tnp.round(self, decimals)


def _repeat(self: Any, repeats: Any, axis: int | None = None) -> Any:
    return tnp.repeat(self, repeats, axis)


def _clip(self: Any, min: Any = None, max: Any = None) -> Any:
    return tnp.clip(self, min, max)


def _compress(self: Any, condition: Any, axis: int | None = None, **options: Any) -> Any:
    return tnp.compress(condition, self, axis, **options)


def _dot(self: Any, b: Any) -> Any:
    return tnp.dot(self, b)


def _getitem(self: Any, index: Any) -> Any:
    return ops.getitem(self, index)


def _array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    return call_ufunc(ufunc, method, inputs, kwargs)


def _array_function(self: Any, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    return call_function(function, args, kwargs)


def _array_namespace(self: Any, api_version: str | None = None) -> Any:
    return tnp


_OTHERS: dict[str, Function] = {
    "reshape": _reshape, "transpose": _transpose, "flatten": _flatten, "round": _round, "repeat": _repeat,
    "clip": _clip, "compress": _compress, "dot": _dot, "__round__": _round, "__getitem__": _getitem,
    "__array_ufunc__": _array_ufunc, "__array_function__": _array_function, "__array_namespace__": _array_namespace,
}  # fmt: skip


def _install(name: str, function: Any) -> None:
    """`function` as a method; its frame is called so too, for messages that say who was called."""
    function.__name__, function.__qualname__ = name, f"Tracer.{name}"
    where = f"Tracer.{name}" if name.startswith("__") else name
    function.__code__ = function.__code__.replace(co_name=name, co_qualname=where)
    setattr(Tracer, name, function)


def _left(op: Function) -> Any:
    return lambda self, other: op(self, other)


def _right(op: Function) -> Any:
    return lambda self, other: op(other, self)


def _alone(op: Function) -> Any:
    # An op is no function, which would bind.
    return lambda self: op(self)


for _name, _function in _BINARY.items():
    _install(f"__{_name}__", _left(_function))
    _install(f"__r{_name}__", _right(_function))
for _name, _function in _COMPARED.items():
    _install(f"__{_name}__", _left(_function))
for _name, _function in _UNARY.items():
    _install(_name, _alone(_function))
for _name, _function in _OTHERS.items():
    _install(_name, _function)
for _name, _function in _PROPERTIES.items():
    setattr(Tracer, _name, property(_alone(_function), doc=_function.__doc__))
for _name in _SAME:
    setattr(Tracer, _name, getattr(tnp, _name))
Tracer.of_list = staticmethod(tnp.asarray)  # type: ignore[assignment]
