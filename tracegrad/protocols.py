"""NumPy's and SciPy's own functions on traced values: `np.tanh(x)` is ours. Uses both array namespaces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import numpy as tnp
from . import ops, scipy
from .errors import here
from .numpy.creation import array_like

_REDUCE = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
    "logaddexp": "logsumexp",
}
_ACCUMULATE = {"add": "cumsum", "multiply": "cumprod"}


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What NumPy calls for a ufunc with a traced operand.

    Raises:
      TypeError: for `out=` (as `array += traced` has it), other keywords, a method that is not supported, and a ufunc
        that has no counterpart.
    """
    name = ufunc.__name__
    if kwargs.get("out") is not None:
        raise TypeError(
            f"numpy.{name} with out= on a traced value {here()}: an array cannot be changed in place, and `a += x` "
            "tries to. Write `a = a + x`."
        )
    space: Any = tnp
    if method == "reduce" and name in _REDUCE:
        # NumPy's default axis is 0 here.
        return getattr(space, _REDUCE[name])(*inputs, **({} if len(inputs) > 1 else {"axis": 0}) | kwargs)
    if method == "accumulate" and name in _ACCUMULATE:
        return getattr(space, _ACCUMULATE[name])(*inputs, **({} if len(inputs) > 1 else {"axis": 0}) | kwargs)
    if method == "outer" and len(inputs) == 2:
        x, y = (array_like(v) for v in inputs)
        inputs = (ops.reshape(x, shape=(*x.shape, *[1] * y.ndim)), y)
    elif method != "__call__":
        raise TypeError(
            f"numpy.{name}.{method} on a traced value {here()} is not supported. Use tracegrad.numpy, with .at[...] in "
            "place of updates."
        )
    function = vars(space).get(name) or _of_scipy(name)
    if function is None:
        raise TypeError(
            f"the ufunc {name} on a traced value {here()} is not supported: tracegrad.numpy has no {name}, nor has "
            "tracegrad.scipy.special. Compose it of functions that are there, or add an op with tracegrad.Op."
        )
    if kwargs:
        raise TypeError(
            f"numpy.{name} on a traced value {here()} does not take {', '.join(f'{k}=' for k in kwargs)}. Use "
            "tracegrad.numpy.where and .astype instead."
        )
    return function(*inputs)


def _of_scipy(name: str) -> Any:
    """The counterpart of a ufunc of `scipy.special`."""
    return getattr(scipy.special, {"jv": "jn", "psi": "digamma"}.get(name, name), None)


def call_function(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What NumPy calls for its other functions with a traced argument: the one of the same name here.

    Raises:
      TypeError: if there is none.
    """
    space: Any = tnp
    module, name = function.__module__, function.__name__
    if module in ("numpy.linalg", "numpy.fft"):
        space = getattr(space, module[6:])
    found = vars(space).get(name) if module in ("numpy", "numpy.linalg", "numpy.fft") else None
    if found is None or not callable(found):
        raise TypeError(
            f"{module}.{name} on a traced value {here()} is not supported: tracegrad.numpy has no counterpart. Compose "
            "it of functions that are there, add an op with tracegrad.Op, or convert what needs no gradient with "
            "numpy.asarray(tracegrad.stop_gradient(x))."
        )
    return found(*args, **kwargs)
