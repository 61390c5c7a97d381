"""Borrowing: functions of JAX that are no ops here, recorded as what they are made of. Uses what reads jaxprs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np

from .caches import Cache
from .errors import called, describe, here
from .jaxpr import Traced, make_jaxpr, record_jaxpr
from .ops.arraylike import from_list, type_of
from .tape import Aval
from .tracer import Tracer

_KEPT = 128
"""For how many sets of argument types a borrowed function keeps what it was traced to; the oldest goes first."""

_ARRAYS = (Tracer, jax.Array, np.ndarray, np.generic, float, complex, int)
_STATIC = frozenset({bool, str, type(None)})
_KINDS = (NotImplementedError, IndexError, KeyError, ValueError, TypeError, AssertionError, AttributeError)

_F = TypeVar("_F", bound=Callable[..., Any])


def borrow(fun: _F, doc: str | None = None, *static: str, module: str | None = None) -> _F:
    """A function of JAX, or one written with `jax.numpy`, as one of ours.

    Where no argument is a traced value, JAX's own runs. Otherwise JAX traces it once for each set of argument types to
    a jaxpr, which becomes a body, and a call of it is recorded: its derivatives are those of our ops. Lists become
    arrays, with the traced values in them.

    Args:
      fun: the function.
      doc: its docstring here; by default its own.
      static: the names of parameters whose numbers and lists are part of the program: axes, sizes, orders.
        Numbers elsewhere are values like arrays; a string, a bool and what is no array is always static.
      module: where it is public; by default where this is called.

    Raises:
      TypeError, ValueError: what JAX raises, from the borrowed function, and with the name under which it was called,
        the types of the arguments and the user's line; what begins with the name and says the line, as it is.
    """
    module = module or sys._getframe(1).f_globals["__name__"]
    signature = inspect.signature(fun)
    fixed = frozenset(static)
    unknown = fixed - signature.parameters.keys()
    assert not unknown, (fun, unknown)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, p in signature.parameters.items() if p.kind in kinds]
    at = frozenset(i for i, name in enumerate(names) if name in fixed)
    kept = Cache(_KEPT)

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Any]]:
        """What is kept for arguments that are traced values, arrays and static ones alone, and which are arrays."""
        parts: list[Any] = [jax.config.jax_enable_x64]  # type: ignore[attr-defined]
        inputs: list[Any] = []
        traced = False
        given: list[tuple[Any, Any]] = list(enumerate(args))
        if kwargs:
            given += [(name, kwargs[name]) for name in sorted(kwargs)]
        for where, x in given:
            kind = type(x)
            if where in fixed or where in at or kind in _STATIC:
                parts += (where, kind, tuple(x) if kind is list else x)
            elif kind is Tracer:
                traced = True
                parts += (where, x.aval)
                inputs.append(x)
            elif isinstance(x, _ARRAYS):
                parts += (where, type_of(x))
                inputs.append(x)
            else:
                return None, inputs
        return tuple(parts) if traced else None, inputs

    place = names.index("out") if "out" in names else None

    def borrowed(*args: Any, **kwargs: Any) -> Any:
        simple, inputs = key_of(args, kwargs)
        if simple is not None:
            try:
                known = kept.get(simple)
            except TypeError:  # a static value that is not hashable
                simple = known = None
            if known is not None:
                return known(inputs)
        if place is not None:
            refuse_out(args[place] if place < len(args) else kwargs.get("out"))
        _known(names, fixed, args, kwargs)
        args = tuple([_frozen(x) if i in at else _of_list(x) for i, x in enumerate(args)])
        kwargs = {name: _frozen(x) if name in fixed else _of_list(x) for name, x in kwargs.items()}
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
            try:
                return fun(*args, **kwargs)
            except _KINDS as error:
                _raise(error, args, kwargs)
        is_array = [isinstance(x, _ARRAYS) and type(x) is not bool for x in leaves]
        inputs = [x for x, a in zip(leaves, is_array, strict=True) if a]
        others = tuple([x for x, a in zip(leaves, is_array, strict=True) if not a])
        avals = tuple([type_of(x) for x in inputs])
        x64 = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        key: Any = simple or (tree, tuple(is_array), avals, others, given, named, x64)
        try:
            known = kept.get(key)
        except TypeError:
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
            traced = Traced(jaxpr, borrowed.__name__, structure[0], [None] * structure[0].num_leaves)
            known = _recorded(traced, avals)
            if key is not None and not traced.bound:
                kept.keep(key, known)
        return known(inputs)

    function = cast(FunctionType, borrowed)
    function.__name__ = fun.__name__
    function.__qualname__ = getattr(fun, "__qualname__", fun.__name__)  # a ufunc of jax.numpy has none
    function.__module__ = module
    function.__doc__ = doc or fun.__doc__
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
    return cast(_F, function)


def written(*static: str) -> Callable[[_F], _F]:
    """A decorator for a function written with `jax.numpy`, which is borrowed; these of its parameters are static."""
    return lambda fun: borrow(fun, None, *static, module=fun.__module__)


def refuse_out(out: Any) -> None:
    """Raises for NumPy's argument `out`, unless it is `None`."""
    if out is not None:
        raise TypeError(
            f"{called()}: the argument out={describe(out)} is not supported {here()}. Arrays are never changed in "
            f"place: write `x = {called()}(...)`."
        )


def _of_list(x: Any) -> Any:
    """`x`; a list as an array.

    Raises:
      TypeError, ValueError: if its elements do not make one.
    """
    if not isinstance(x, (list, tuple)) or _is_named(x):
        return x
    try:
        array = from_list(x)
    except ValueError:
        array = None
    if array is None or array.dtype.kind in "OSU":
        type_of(x)  # It says what is wrong.
    return array


def _recorded(traced: Traced, avals: tuple[Aval, ...]) -> Callable[[list[Any]], Any]:
    """What records it for arrays of these types: a call of its body, or the op itself where the body is but one."""
    body, captured = record_jaxpr(traced.jaxpr, traced.name, avals)
    place = {v: i for i, v in enumerate(body.inputs)}
    node = body.nodes[0] if len(body.nodes) == 1 and not captured else None
    if node is None or not set(body.outputs) <= set(node.outputs):
        return lambda inputs: traced.result(traced.run(inputs), [])
    op, params = node.op, node.params
    operands = [place.get(v, v) for v in node.inputs]
    made = {v: i for i, v in enumerate(node.outputs)}
    outputs = [made[v] for v in body.outputs]

    def run(inputs: list[Any]) -> Any:
        out = op(*[inputs[v] if type(v) is int else v for v in operands], **params)
        return traced.result([out[i] for i in outputs] if op.multiple else [out], [])

    return run


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


def _known(names: list[str], fixed: frozenset[str], args: Any, kwargs: Any) -> None:
    """Raises if a parameter that has to be known is a traced value."""
    for name, x in {**dict(zip(names, args, strict=False)), **kwargs}.items():
        if name in fixed and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(x)):
            raise TypeError(
                f"{called()}({_types(args, kwargs)}): {name} is a traced value {here()}, and has to be known when the "
                "function is recorded. Give a Python number; under @jit, mark it static with static_argnames."
            )


def _raise(error: Exception, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
    """What JAX says, with the function as the user called it, what it was given, and the user's line."""
    name, where = called(), here()
    if where in str(error) and str(error).startswith(name):
        raise error
    kind = next(k for k in _KINDS if isinstance(error, k))
    if kind is AttributeError:
        kind = TypeError  # an argument is no array
    text = str(error).partition("\n")[0].rstrip(".:") or "an assertion of JAX's does not hold"
    if text.startswith("Error interpreting argument to"):
        text = "an argument is no array"
    text = text if where in text else f"{text} {where}"
    raise kind(f"{name}({_types(args, kwargs)}): {text}") from error


def _types(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return ", ".join([_shown(x) for x in args] + [f"{key}={_shown(x)}" for key, x in kwargs.items()])


def _shown(x: Any) -> str:
    if isinstance(x, (tuple, list)):
        return f"({', '.join(map(_shown, x))})"
    return repr(x) if x is None or isinstance(x, (bool, int, float, str)) else describe(x)
