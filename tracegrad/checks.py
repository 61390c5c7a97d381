"""What transforms ask of functions, arguments, tangents and cotangents. Uses types and messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .arguments import arguments_of
from .errors import describe, here, name_of
from .tape import aval_of

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def positions(fun: Any, args: tuple[Any, ...], argnums: int | Sequence[int], transform: str) -> tuple[int, ...]:
    """The arguments at `argnums`, counted from the front.

    Raises:
      TypeError, ValueError: if there is no such argument, or it is named twice.
    """
    which = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in which:
        if not isinstance(i, int):
            raise TypeError(
                f"{transform}: argnums={argnums!r} of {name_of(fun)} {here()}. Give the positions of arguments, such "
                "as 0 or (0, 1)."
            )
        if not -len(args) <= i < len(args):
            raise TypeError(
                f"{transform}: argnums={argnums} of {name_of(fun)}, which was called with {len(args)} positional "
                f"argument{'s' if len(args) != 1 else ''} {here()}. Pass the differentiated argument by position."
            )
    found = tuple(i % len(args) for i in which)
    if len(set(found)) < len(found):
        raise ValueError(
            f"{transform}: argnums={argnums} of {name_of(fun)} names an argument twice {here()}. Name it once."
        )
    return found


def check_differentiable(
    leaves: Sequence[Any], fun: Any, args: tuple[Any, ...], which: tuple[int, ...], transform: str, holomorphic: bool
) -> None:
    """Raises for a leaf of the arguments at `which` that has no derivative."""
    for position, x in enumerate(leaves):
        try:
            aval = aval_of(x)
        except TypeError:
            aval = None
        if aval is None or not aval.differentiable:
            where = _argument_name(fun, args, which, position)
            raise TypeError(
                f"{transform} with respect to {where}: it is {describe(x)}, and only float or complex values "
                f"have a gradient {here()}. Convert it (`x.astype(float)`, `2.0` for `2`), or choose other arguments "
                "with argnums."
            )
        if holomorphic and aval.dtype.kind != "c":
            where = _argument_name(fun, args, which, position)
            raise TypeError(f"{transform} with holomorphic=True needs complex arguments, {where} is {aval} {here()}")


def _argument_name(fun: Any, args: tuple[Any, ...], which: tuple[int, ...], position: int) -> str:
    names = iter(arguments_of(fun, jax.tree.structure((args, {}))).names())
    grouped = [[next(names) for _ in jax.tree.leaves(arg)] for arg in args]
    return f"argument {[name for i in which for name in grouped[i]][position]} of {name_of(fun)}"


def check_scalar(fun: Any, out: Any, transform: str, holomorphic: bool) -> None:
    if out is None:
        raise TypeError(f"{transform}: {name_of(fun)} returned None {here()}. Did you forget `return`?")
    try:
        aval = aval_of(out)
    except TypeError:
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a scalar, it returned {describe(out)} {here()}. To "
            "return more than the value, return (value, aux) and pass has_aux=True."
        ) from None
    if aval.shape != ():
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a scalar, it returned {aval} {here()}. Reduce it with .sum() or "
            ".mean(), or use tracegrad.jacobian for the derivative of every element."
        )
    if aval.dtype.kind == "c" and not holomorphic:
        raise TypeError(
            f"{transform}: {name_of(fun)} returned a complex scalar, {aval} {here()}. Take its real part or "
            "abs(), or pass holomorphic=True if the function is holomorphic."
        )
    if not aval.differentiable:
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a float, it returned {aval} {here()}. A comparison, "
            "argmax or integer result has no gradient."
        )


def value_and_aux(fun: Any, out: Any, transform: str) -> tuple[Any, Any]:
    if not (isinstance(out, (tuple, list)) and len(out) == 2):
        raise TypeError(
            f"{transform}: with has_aux=True, {name_of(fun)} must return (value, aux), not {describe(out)} {here()}. "
            "Return a pair, or leave has_aux out."
        )
    return out[0], out[1]


def check_like(value: Any, like: Sequence[Any], tree: Any, what: str, whose: str) -> list[Any]:
    """The leaves of a tangent or cotangent, after a check that it has the structure, shapes and dtypes of `like`."""
    leaves, found = tree_flatten(value)
    if found != tree:
        raise TypeError(f"the {what} has structure {found}, the {whose} has {tree} {here()}")
    for c, v in zip(leaves, like, strict=True):
        try:
            aval = aval_of(c)
        except TypeError:
            raise TypeError(f"a leaf of the {what} is {describe(c)}, which is not an array {here()}") from None
        if aval.shape != aval_of(v).shape or (aval.dtype != aval_of(v).dtype and not aval.weak_type):
            raise TypeError(
                f"the {what} is {aval}, the {whose} is {aval_of(v)} {here()}: give it the same shape and dtype"
            )
    return leaves


def only(values: tuple[Any, ...]) -> Any:
    if len(values) != 1:
        raise TypeError(
            f"the pullback takes one cotangent, of the structure of the function's value; {len(values)} were given "
            f"{here()}. Write pullback(ct), with a tuple for a tuple."
        )
    return values[0]
