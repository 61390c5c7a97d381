"""What the arguments of a function are called, leaf by leaf. Uses messages."""

from __future__ import annotations

import functools
import inspect
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

import jax

from .errors import INTERNAL


class Arguments(NamedTuple):
    """What a function was called with: its code, how many of its parameters were bound before, and the structure."""

    code: CodeType | None
    bound: int
    tree: Any

    def names(self) -> list[str]:
        """The leaves as a reader knows them, such as `params['w']`; of a function without names, the first is `0`."""
        paths = jax.tree_util.tree_flatten_with_path(jax.tree.unflatten(self.tree, range(self.tree.num_leaves)))[0]
        return [self.named(path) for path, _ in paths]

    def named(self, path: tuple[Any, ...]) -> str:
        rest = jax.tree_util.keystr(path[2:])
        if path[0].idx == 1:
            return f"{path[1].key}{rest}"
        if self.code is None:
            return f"{path[1].idx}{rest}"
        i, known = path[1].idx + self.bound, self.code.co_argcount
        if i < known:
            return f"{self.code.co_varnames[i]}{rest}"
        if not self.code.co_flags & inspect.CO_VARARGS:
            return f"{path[1].idx}{rest}"
        return f"{self.code.co_varnames[known + self.code.co_kwonlyargcount]}[{i - known}]{rest}"


def arguments_of(fun: Any, tree: Any) -> Arguments:
    """The arguments of a call of `fun` whose `(args, kwargs)` have this structure.

    What the package makes of a user's function has no names of its own.
    """
    bound = 0
    for _ in range(32):
        if type(fun) is FunctionType and not fun.__dict__:
            break
        if hasattr(fun, "__wrapped__"):
            fun = fun.__wrapped__
        elif isinstance(fun, functools.partial):
            bound += len(fun.args)
            fun = fun.func
        elif isinstance(fun, MethodType):
            bound += 1
            fun = fun.__func__
        elif isinstance(fun, FunctionType) or not isinstance(type(fun).__call__, FunctionType):
            break
        else:
            fun = MethodType(type(fun).__call__, fun)
    code = getattr(fun, "__code__", None)
    own = code is not None and INTERNAL[code.co_filename] and code.co_flags & inspect.CO_NESTED
    return Arguments(None if own else code, bound, tree)
