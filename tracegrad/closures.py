"""The arrays that a function closes over, found to be inputs of its compiled program. Uses traced values."""

from __future__ import annotations

import dis
import functools
import os
import sysconfig
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from .errors import INTERNAL
from .tracer import Tracer

_LIBRARIES = tuple(
    {sysconfig.get_paths()[k] + os.sep for k in ("stdlib", "platstdlib", "purelib", "platlib")}
)  # fmt: skip
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, ModuleType)

Reference = Callable[[], Any]


def find_references(fun: Any) -> list[Reference]:
    """How to read, at any time, each variable of an enclosing or global scope that may hold arrays for `fun`.

    Follows the user's own functions that `fun` calls by name. Variables of a class or an object, and code
    of installed libraries, are not searched.
    """
    references: list[Reference] = []
    seen: set[int] = set()

    def visit(value: Any, reference: Reference) -> None:
        if isinstance(value, _ATOMS):
            return
        inner = _function(value)
        if inner is not None:
            visit_function(inner)
        elif arrays_in(value):
            references.append(reference)

    def visit_function(f: FunctionType) -> None:
        if id(f) in seen:
            return
        seen.add(id(f))
        for cell in f.__closure__ or ():
            try:
                visit(cell.cell_contents, functools.partial(getattr, cell, "cell_contents"))
            except ValueError:
                continue  # a variable that is not assigned yet
        filename = f.__code__.co_filename
        if INTERNAL[filename] or filename.startswith(_LIBRARIES):
            return
        space = f.__globals__
        for name in _names(f.__code__):
            if name in space and (id(space), name) not in named:
                named.add((id(space), name))
                visit(space[name], functools.partial(space.__getitem__, name))

    named: set[tuple[int, str]] = set()
    visit(fun, lambda: fun)
    return references


def _names(code: CodeType) -> list[str]:
    """The global variables that the code reads, not the attributes of the same names."""
    names = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _names(constant)
    return names


def _function(value: Any) -> FunctionType | None:
    """The Python function behind a function, a method, a partial or a decorated function."""
    for _ in range(32):
        if isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, MethodType):
            value = value.__func__
        elif isinstance(value, FunctionType):
            return value
        elif hasattr(value, "__wrapped__"):
            value = value.__wrapped__
        else:
            return None
    return None


def arrays_in(value: Any) -> list[Any]:
    """The arrays among the leaves of a pytree."""
    if isinstance(value, _KINDS):
        return [value]
    return [leaf for leaf in jax.tree.leaves(value) if isinstance(leaf, _KINDS)]


_KINDS = (jax.Array, np.ndarray, Tracer)
