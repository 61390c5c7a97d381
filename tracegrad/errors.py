"""Where an error is the user's, and how its message says so."""

from __future__ import annotations

import dis
import itertools
import linecache
import os
import sys
import sysconfig
from types import FrameType
from typing import Any

import numpy as np

from .tape import Source, Var, aval_of, describe_source

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_EXAMPLES = os.path.join(_PACKAGE, "examples") + os.sep

_LIBRARIES = ("site-packages/numpy", "site-packages/scipy", "jax/_src")


class _Internal(dict[str, bool]):
    """Whether code of this file is the package's own, or of a library under it; the examples count as a user's."""

    def __missing__(self, filename: str) -> bool:
        internal = filename.startswith(_PACKAGE) and not filename.startswith(_EXAMPLES)
        internal = internal or any(f"/{part}/" in filename.replace(os.sep, "/") for part in _LIBRARIES)
        self[filename] = internal
        return internal


INTERNAL = _Internal()


_INSTALLED = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platlib", "purelib"))


def user_source(frame: FrameType | None = None) -> Source | None:
    """The place in the user's code that led here: past installed packages, where there is any beyond them."""
    nearest = None
    f = frame if frame is not None else sys._getframe(1)
    while f is not None:
        filename = f.f_code.co_filename
        if not INTERNAL[filename]:
            nearest = nearest or (f.f_code, f.f_lasti)
            if not filename.startswith(_INSTALLED) and not filename.startswith("<frozen "):
                return (f.f_code, f.f_lasti)
        f = f.f_back  # type: ignore[assignment]
    return nearest


def here() -> str:
    """`at file:line (function): text`, for the user's line that led here."""
    return "at " + describe_source(user_source(sys._getframe(1)))


def taker(frame: FrameType) -> str | None:
    """What is taking a Python number in this frame, where that is a compiled function, as those of `math`, or an array.

    They ask a value for its number without a word, and what they compute with it is not recorded. `None` for Python's
    own `float(x)` and the like, which say what they do, and for functions of `math` that have no derivative.
    """
    code = frame.f_code
    if dis.opname[code.co_code[frame.f_lasti]] == "STORE_SUBSCR":
        return "an element of an array"
    line, _, start, _ = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None))
    if line is None or start is None:
        return None
    text = linecache.getline(code.co_filename, line, frame.f_globals).encode()[start:].decode(errors="replace")
    first, *rest = text.partition("(")[0].split(".")
    function = frame.f_locals.get(first, frame.f_globals.get(first))
    for name in rest:
        function = getattr(function, name, None)
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, np.ndarray):
        return f"numpy.ndarray.{name}"
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if name and name not in _STEPS and module not in (None, "builtins") else None


_STEPS = ("ceil", "floor", "isclose", "isfinite", "isinf", "isnan", "trunc")


HINTS = {
    **{
        name: f"numpy.{name}(x)"
        for name in ("abs", "cos", "exp", "log", "log1p", "maximum", "minimum", "sin", "sqrt", "tanh")
    },
    "backward": "tracegrad.grad(f)(x), of the function that computes this",
    "detach": "tracegrad.stop_gradient(x)",
    "grad": "tracegrad.grad(f)(x), of the function that computes this",
    "numpy": "numpy.asarray(tracegrad.stop_gradient(x))",
    "permute": "x.transpose(axes)",
    "pow": "x ** n",
    "relu": "tracegrad.nn.relu(x)",
    "sigmoid": "tracegrad.nn.sigmoid(x)",
    "softmax": "tracegrad.nn.softmax(x, axis)",
    "unsqueeze": "x[:, None], or numpy.expand_dims(x, axis)",
    "view": "x.reshape(shape)",
}
"""What stands here for the methods of other libraries' arrays."""


def describe(value: Any) -> str:
    """A value as a message names it: its type for an array, its type and text for anything else."""
    if isinstance(value, Var):
        return repr(value.aval)
    try:
        return repr(aval_of(value))
    except TypeError:
        text = repr(value)
        return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


class TracerError(TypeError):
    """A traced value was used where only a concrete one can be."""


class NotRecordedError(RuntimeError):
    """A traced value was given to a function of JAX, or to NumPy as an array, which would not record it.

    Not a `TypeError`: JAX replaces those by its own.
    """


class InnerTraceError(TracerError):
    """A value of a transformation of JAX's, entered while a tape records, was to be recorded on that tape."""


class LeakedTracerError(TracerError):
    """A traced value was used after its recording had ended."""
