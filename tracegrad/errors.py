"""Where an error is the user's, and how its message says so."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

from .tape import Source, Var, aval_of, describe_source

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_EXAMPLES = os.path.join(_PACKAGE, "examples") + os.sep


class _Internal(dict[str, bool]):
    """Whether code of this file is the package's own; the examples count as a user's."""

    def __missing__(self, filename: str) -> bool:
        internal = filename.startswith(_PACKAGE) and not filename.startswith(_EXAMPLES)
        internal = internal or f"{os.sep}jax{os.sep}_src{os.sep}" in filename
        self[filename] = internal
        return internal


INTERNAL = _Internal()


def user_source(frame: FrameType | None = None) -> Source | None:
    """The place in the user's code that led here."""
    f = frame if frame is not None else sys._getframe(1)
    while f is not None and INTERNAL[f.f_code.co_filename]:
        f = f.f_back  # type: ignore[assignment]
    return (f.f_code, f.f_lasti) if f is not None else None


def here() -> str:
    """`at file:line (function): text`, for the user's line that led here."""
    return "at " + describe_source(user_source(sys._getframe(1)))


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
    """A traced value was given to a function of JAX, which would not record it.

    Not a `TypeError`: JAX replaces those by its own.
    """


class LeakedTracerError(TracerError):
    """A traced value was used after its recording had ended."""
