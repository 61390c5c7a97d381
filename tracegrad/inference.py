"""The types of an op's outputs: from its shape rule, or from its lowering. Uses types and messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from .errors import caller, describe_source
from .recording import state
from .tape import NOWHERE, Aval, Source, Tape, make_aval, with_axes

if TYPE_CHECKING:
    from .op import Op

TYPED: Callable[..., frozenset[str]] = lambda axes, **params: axes  # noqa: E731
"""As `axes` of an op that runs a body: its outputs vary as the body's types say."""


def infer(op: Op, avals: tuple[Aval, ...], params: dict[str, Any]) -> tuple[Aval, ...]:
    """The types of the outputs for operands of these types.

    Raises:
      TypeError: if the shape rule of a user's op and its lowering differ, or one gives something else than types.
    """
    key = (avals, *params.items()) if params else avals
    cache = op.avals[jax.config.jax_enable_x64]  # type: ignore[attr-defined]
    known = cache.get(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    varying = NOWHERE.union(*[a.varying for a in avals])
    if varying and op.axes is not TYPED:
        result = infer(op, tuple([with_axes(a, NOWHERE) for a in avals]), params)
    elif op.shape is None:
        result = _lowered(op, avals, params)
    else:
        result = _types(op, op.shape(*avals, **params), "its shape rule says")
        if not op.trusted:
            lowered = _lowered(op, avals, params)
            if [(a.shape, a.dtype) for a in lowered] != [(a.shape, a.dtype) for a in result]:
                raise TypeError(
                    f"lower computes {', '.join(map(repr, lowered))}, and its shape rule says "
                    f"{', '.join(map(repr, result))}. Make them agree, or leave the shape rule out."
                )
    if op.axes is not TYPED:
        varying = varying if op.axes is None else op.axes(varying, **params)
        result = tuple([with_axes(a, varying) for a in result])
    return cache.keep(key, result)  # type: ignore[no-any-return]


def _lowered(op: Op, avals: tuple[Aval, ...], params: dict[str, Any]) -> tuple[Aval, ...]:
    lower = op.lower
    out = jax.eval_shape(lambda *xs: lower(*xs, **params), *[a.struct() for a in avals])
    return _types(op, out, "lower computes")


def _types(op: Op, out: Any, who: str) -> tuple[Aval, ...]:
    """What `lower` or the shape rule gives, as a type for each output."""
    if op.multiple and (out is None or hasattr(out, "shape")):
        raise TypeError(f"{who} {out!r}, and with multiple=True it must be a tuple")
    outs = tuple(out) if op.multiple else (out,)
    for o in outs:
        if not hasattr(o, "shape"):
            remedy = ". Make the op with multiple=True" if isinstance(o, (tuple, list)) else ""
            raise TypeError(f"{who} {o!r}, which is not one array{remedy}")
    return tuple([o if type(o) is Aval else make_aval(o.shape, o.dtype, o.weak_type) for o in outs])


def infer_or_explain(
    op: Op, avals: tuple[Aval, ...], params: dict[str, Any], source: Source | None
) -> tuple[Aval, ...]:
    """The types of the outputs; what goes wrong is said with the op, the operands' types and the user's line."""
    try:
        return infer(op, avals, params)
    except (TypeError, ValueError, NotImplementedError, IndexError, ZeroDivisionError) as error:
        types = ", ".join(map(repr, avals))
        shown = "".join(f", {k}={v!r}" for k, v in params.items())
        kind = type(error) if type(error) in (ValueError, IndexError, NotImplementedError) else TypeError
        raise kind(f"{_title(op)}({types}{shown}) at {describe_source(source)}\n  {error}") from None


def _title(op: Op) -> str:
    """Its name in a message, after that of the public function that the user called, if that is made of several."""
    name, function = caller()
    if function is None or (state.tape is not None and state.tape.blame is not None):
        return op.name
    return name if function is op or name == op.name else f"{name}: {op.name}"


def output_types(*avals: Aval, body: Tape, **params: Any) -> list[Aval]:
    """The shape rule of an op that returns what its body does."""
    return [v.aval for v in body.outputs]
