"""Borrowing: functions of JAX that are no ops of their own, recorded as calls of what they are made of."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np

from .errors import called, describe, here
from .jaxpr import Traced, make_jaxpr
from .ops.arraylike import from_list, type_of
from .tracer import Tracer

_KEPT = 128
"""For how many sets of argument types a borrowed function keeps what it was traced to; the oldest goes first."""

_ARRAYS = (Tracer, jax.Array, np.ndarray, np.generic, float, complex, int)
_KINDS = (NotImplementedError, IndexError, KeyError, ValueError, TypeError, AssertionError, AttributeError)

_F = TypeVar("_F", bound=Callable[..., Any])


def borrow(fun: _F, doc: str, static: Iterable[str] = (), *, module: str) -> _F:
    """A function of JAX as one of ours.

    Where no argument is a traced value, JAX's own runs. Otherwise JAX traces it once for each set of argument types to
    a jaxpr, which becomes a body, and a call of it is recorded: its derivatives are those of our ops. Lists become
    arrays, with the traced values in them.

    Args:
      fun: the function of JAX.
      doc: its docstring here.
      static: the names of parameters whose numbers and lists are part of the program: axes, sizes, orders.
        Numbers elsewhere are values like arrays; a string, a bool and what is no array is always static.
      module: where it is public.

    Raises:
      TypeError, ValueError: what JAX raises, from the borrowed function, and with the name under which it was called,
        the types of the arguments and the user's line.
    """
    signature = inspect.signature(fun)
    fixed = frozenset(static)
    unknown = fixed - signature.parameters.keys()
    assert not unknown, (fun, unknown)
    at = frozenset(i for i, name in enumerate(signature.parameters) if name in fixed)
    bodies: OrderedDict[Any, Traced] = OrderedDict()

    def borrowed(*args: Any, **kwargs: Any) -> Any:
        args = tuple([_frozen(x) if i in at else x if _is_named(x) else from_list(x) for i, x in enumerate(args)])
        kwargs = {
            name: _frozen(x) if name in fixed else x if _is_named(x) else from_list(x) for name, x in kwargs.items()
        }
        given = tuple([x if i in at else None for i, x in enumerate(args)])
        named = tuple([(name, x) for name, x in kwargs.items() if name in fixed])
        leaves, tree = jax.tree.flatten(
            (
                [None if i in at else x for i, x in enumerate(args)],
                {name: x for name, x in kwargs.items() if name not in fixed},
            ),
            is_leaf=_is_named,
        )
        if not any(isinstance(x, Tracer) for x in leaves):
            _known(signature, fixed, args, kwargs)
            try:
                return fun(*args, **kwargs)
            except _KINDS as error:
                _raise(error, args, kwargs)
        is_array = [isinstance(x, _ARRAYS) and type(x) is not bool for x in leaves]
        inputs = [x for x, a in zip(leaves, is_array, strict=True) if a]
        others = tuple([x for x, a in zip(leaves, is_array, strict=True) if not a])
        avals = tuple([type_of(x) for x in inputs])
        x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        key: Any = (tree, tuple(is_array), avals, others, given, named, x64)
        try:
            known = bodies.get(key)
        except TypeError:
            _known(signature, fixed, args, kwargs)
            key = known = None
        if known is None:

            def flat(*arrays: Any) -> list[Any]:
                values, rest = iter(arrays), iter(others)
                some, options = jax.tree.unflatten(tree, [next(values if a else rest) for a in is_array])
                some = [given[i] if i in at else x for i, x in enumerate(some)]
                outs, structure[:] = _flat(fun(*some, **options, **dict(named)))
                return outs

            structure: list[Any] = []
            try:
                jaxpr = make_jaxpr(flat, avals)
            except _KINDS as error:
                _raise(error, args, kwargs)
            known = Traced(jaxpr, borrowed.__name__, structure[0], [None] * structure[0].num_leaves)
            if key is not None and not known.bound:
                bodies[key] = known
                if len(bodies) > _KEPT:
                    bodies.popitem(last=False)
        return known.result(known.run(inputs), [])

    function = cast(FunctionType, borrowed)
    function.__name__ = fun.__name__
    function.__qualname__ = fun.__qualname__
    function.__module__ = module
    function.__doc__ = doc
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    return cast(_F, function)


def _is_named(x: Any) -> bool:
    """Whether this is a name with its parameters, like the window `("kaiser", 4.0)`: no array, but static."""
    return isinstance(x, tuple) and any(isinstance(part, str) for part in x)


def _frozen(x: Any) -> Any:
    """What is part of the program, hashable: numbers in tuples."""
    if isinstance(x, np.ndarray):
        x = x.tolist()
    return tuple(map(_frozen, x)) if isinstance(x, (list, tuple)) else x


def _flat(result: Any) -> tuple[list[Any], list[Any]]:
    leaves, tree = jax.tree.flatten(result)
    return leaves, [tree]


def _known(signature: inspect.Signature, fixed: frozenset[str], args: Any, kwargs: Any) -> None:
    """Raises if a parameter that has to be known is a traced value."""
    for name, x in {**dict(zip(signature.parameters, args, strict=False)), **kwargs}.items():
        if name in fixed and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x)):
            raise TypeError(
                f"{called()}: {name} is {describe(x)}, a traced value, {here()}, and has to be known when the function "
                "is recorded. Give a Python number; under @jit, mark it static with static_argnames."
            )


def _raise(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """What JAX says, with the function as the user called it, what it was given, and the user's line."""
    kind = next(k for k in _KINDS if isinstance(error, k))
    if kind is AttributeError:
        kind = TypeError  # an argument is no array
    types = [_shown(x) for x in args] + [f"{name}={_shown(x)}" for name, x in kwargs.items()]
    text = str(error).partition("\n")[0].rstrip(".:") or "an assertion of JAX's does not hold"
    raise kind(f"{called()}({', '.join(types)}): {text} {here()}") from error


def _shown(x: Any) -> str:
    return repr(x) if x is None or isinstance(x, (bool, int, str)) else describe(x)
