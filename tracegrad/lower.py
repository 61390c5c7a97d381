"""From a tape to JAX: run its nodes, one after another, over `jax.lax`. Uses the tape alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .recording import Recording
from .tape import Node, Tape, Var
from .tracer import record


def evaluate(nodes: Sequence[Node], outputs: Sequence[Var], env: dict[Var, Any]) -> list[Any]:
    """Runs `nodes` with the values in `env` (and those that vars have) and returns the values of `outputs`."""

    def read(v: Var, number: Callable[[Var], Any]) -> Any:
        value = env.get(v)
        if value is not None:
            return value
        # A number that was lifted to an input is a number like a literal where the program is not compiled.
        return number(v) if v.tape is None or isinstance(v.value, (int, float, complex)) else v.value

    for node in nodes:
        op = node.op
        weak = op.multiple or node.outputs[0].aval.weak_type
        number = _as_it_is if op.numbers else _weak if weak else _strong
        out = op.lower(*[read(v, number) for v in node.inputs], **node.params)
        if op.multiple:
            env.update(zip(node.outputs, out, strict=True))
        else:
            env[node.outputs[0]] = out
    return [read(v, _weak) for v in outputs]


def _strong(v: Var) -> Any:
    return np.asarray(v.value, v.aval.dtype)


def _as_it_is(v: Var) -> Any:
    return v.value if v.aval.weak_type else _strong(v)


def _weak(v: Var) -> Any:
    """A literal as an array that is as weakly typed as it is: what becomes of it then is so too."""
    if not v.aval.weak_type:
        return _strong(v)
    array = jnp.asarray(v.value)
    return array if array.dtype == v.aval.dtype else _strong(v)


def lower(tape: Tape) -> Callable[..., list[Any]]:
    """A function over JAX arrays that runs a finished tape."""

    def run(*values: Any) -> list[Any]:
        return evaluate(tape.nodes, tape.outputs, dict(zip(tape.inputs, values, strict=True)))

    run.__name__ = run.__qualname__ = tape.name or "tape"
    return run


def replay(target: Recording, tape: Tape, inputs: Sequence[Any]) -> list[Any]:
    """Records the nodes of a finished tape again, on `target`, with other inputs."""
    env: dict[Var, Any] = dict(zip(tape.inputs, inputs, strict=True))
    outer = target.blame
    try:
        for node in tape.nodes:
            target.blame = node
            out = record(target, node.op, tuple([env.get(v, v) for v in node.inputs]), node.params)
            target.nodes[-1].grad, target.nodes[-1].of = node.grad, env.get(node.of, node.of)  # type: ignore[arg-type]
            env.update(zip(node.outputs, out if node.op.multiple else (out,), strict=True))
    finally:
        target.blame = outer
    return [env.get(v, v) for v in tape.outputs]
