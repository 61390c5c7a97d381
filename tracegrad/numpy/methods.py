"""The array methods of a traced value."""

from __future__ import annotations

from typing import Any

from ..tracer import Tracer
from . import creation, elementwise, manipulation, products, reductions, selection


def _reshape(self: Any, *shape: Any, order: str = "C") -> Any:
    return manipulation.reshape(self, shape[0] if len(shape) == 1 else shape, order)


def _transpose(self: Any, *axes: Any) -> Any:
    return manipulation.transpose(self, axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None)


def _flatten(self: Any, order: str = "C") -> Any:
    return manipulation.ravel(self, order)


def _round(self: Any, decimals: int = 0) -> Any:
    return elementwise.round(self, decimals)


def _repeat(self: Any, repeats: Any, axis: int | None = None) -> Any:
    return manipulation.repeat(self, repeats, axis)


def _clip(self: Any, min: Any = None, max: Any = None) -> Any:
    return elementwise.clip(self, min, max)


def _compress(self: Any, condition: Any, axis: int | None = None, **options: Any) -> Any:
    return selection.compress(condition, self, axis, **options)


def _dot(self: Any, b: Any) -> Any:
    return products.dot(self, b)


_METHODS: dict[str, Any] = {
    "all": reductions.all,
    "any": reductions.any,
    "argmax": reductions.argmax,
    "argmin": reductions.argmin,
    "argpartition": selection.argpartition,
    "argsort": selection.argsort,
    "astype": creation.astype,
    "choose": selection.choose,
    "clip": _clip,
    "compress": _compress,
    "conj": elementwise.conj,
    "conjugate": elementwise.conj,
    "copy": creation.copy,
    "cumprod": reductions.cumprod,
    "cumsum": reductions.cumsum,
    "diagonal": manipulation.diagonal,
    "dot": _dot,
    "flatten": _flatten,
    "max": reductions.max,
    "mean": reductions.mean,
    "min": reductions.min,
    "nonzero": selection.nonzero,
    "partition": selection.partition,
    "prod": reductions.prod,
    "ptp": reductions.ptp,
    "ravel": manipulation.ravel,
    "repeat": _repeat,
    "reshape": _reshape,
    "round": _round,
    "searchsorted": selection.searchsorted,
    "sort": selection.sort,
    "squeeze": manipulation.squeeze,
    "std": reductions.std,
    "sum": reductions.sum,
    "swapaxes": manipulation.swapaxes,
    "take": selection.take,
    "trace": products.trace,
    "transpose": _transpose,
    "var": reductions.var,
}


def install() -> None:
    """Gives traced values these methods."""
    for name, method in _METHODS.items():
        # An op is no function, which would bind: it becomes one.
        setattr(Tracer, name, method if hasattr(method, "__get__") else _bound(method))


def _bound(op: Any) -> Any:
    def method(self: Any) -> Any:
        return op(self)

    return method
