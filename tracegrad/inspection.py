"""The values of a tape, each with its gradient, computed once for whoever looks at them. Uses backward, and lower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .backward import backward, ones
from .lower import evaluate, replay
from .ops import alias
from .recording import Recording, state
from .tape import Tape, Var
from .tracer import new_input


@dataclass(frozen=True, eq=False, slots=True)
class Values:
    """What the values of a tape were in one run, and the gradients of its scalar result with respect to them."""

    values: dict[Var, Any]
    gradients: dict[Var, Any]

    @staticmethod
    def of(tape: Tape) -> Values | None:
        """Those that were kept with a tape."""
        return tape.made.get(Values)


def keep_values(target: Tape, tape: Tape, given: Sequence[Any], cotangents: dict[Var, Any]) -> None:
    """Runs a tape for these inputs, step by step, and keeps with `target` all values and their gradients.

    Args:
      target: the tape, with fewer inputs.
      tape: with all that it takes among its inputs.
      given: a value for each input.
      cotangents: for values of the tape, the values of it that are their gradients, where it computes them. If there
        are none and the tape returns one real scalar, its gradient is taken.
    """
    given = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in given]
    values: dict[Var, Any] = dict(zip(tape.inputs, given, strict=True))
    evaluate(tape.nodes, tape.outputs, values)
    found = {v: ct for v, ct in cotangents.items() if v in values and ct is not None}
    if found or len(tape.outputs) != 1 or not _real_scalar(tape.outputs[0]):
        gradients = {v: _number(ct, values) for v, ct in found.items()}
    else:
        gradients = _gradients(tape, given)
    inputs = set(tape.inputs)
    for node in tape.nodes:
        if node.op is alias and node.outputs[0] in gradients and node.inputs[0] in inputs:
            gradients.setdefault(node.inputs[0], gradients[node.outputs[0]])  # the differentiated use of an argument
    target.made[Values] = Values(values, {v: g for v, g in gradients.items() if g is not None})


def _real_scalar(v: Var) -> bool:
    return v.aval.differentiable and not v.aval.shape and v.aval.dtype.kind != "c"


def _number(ct: Var, values: dict[Var, Any]) -> Any:
    return ct.value if ct.tape is None else values.get(ct)


def _gradients(tape: Tape, given: Sequence[Any]) -> dict[Var, Any]:
    """The gradient of the one result with respect to every value, from a copy of the tape."""
    outer, state.cotangents = state.cotangents, {}
    try:
        with Recording(tape.name, axes=tape.axes) as copy:
            inputs = [new_input(copy, v.aval) for v in tape.inputs]
            (result,) = replay(copy, tape, inputs)
            own = [v for node in tape.nodes for v in node.outputs]
            copied = [v for node in copy.nodes for v in node.outputs]
            wanted = [v for v in inputs if v.aval.differentiable]
            backward(copy, [result], [ones(result)], wanted, 0)
            cotangents, nodes = state.cotangents, list(copy.nodes)
    finally:
        state.cotangents = outer
    values: dict[Var, Any] = dict(zip(inputs, given, strict=True))
    evaluate(nodes, [], values)
    pairs = zip([*tape.inputs, *own], [*inputs, *copied], strict=False)
    return {v: _number(cotangents[c], values) for v, c in pairs if cotangents.get(c) is not None}
