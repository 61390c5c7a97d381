"""Literal folding: drop what a literal operand makes trivial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import ops
from ..tape import Aval, Node, Tape, Var, make_aval
from ..tracer import Literal


def fold(tape: Tape) -> Tape:
    """`tape` without aliases and steps that change nothing (`x * 1`, `x / 1`, a cast to the same dtype), and
    with moves joined and arithmetic on literals done. Broadcast literals stay scalars where ops broadcast.
    """
    same: dict[Var, Var] = {}
    splat: dict[Var, Var] = {}
    moved: dict[Var, Node] = {}
    nodes: list[Node] = []
    for node in tape.nodes:
        op = node.op
        inputs: Any = [same.get(v, v) for v in node.inputs]
        if op is ops.reshape or op is ops.transpose:
            node = _join(node, inputs, moved)
            inputs = node.inputs
        out = node.outputs[0] if len(node.outputs) == 1 else None
        if out is not None:
            rule = _RULES.get(op)
            new = rule(node, inputs, out.aval, splat) if rule is not None else None
            if new is not None:
                if new.aval is out.aval:
                    same[out] = new
                    continue
                if new.tape is None and (not new.aval.shape and out.aval.shape):
                    splat[out] = new
        if splat and out is not None and op in _BROADCASTING:
            shorter = [_weak(splat[v]) if v in splat else v for v in inputs]
            if op.infer(tuple([v.aval for v in shorter]), node.params)[0] is out.aval:
                inputs = shorter
        nodes.append(node.with_inputs(inputs))
    return tape.replace(nodes=tuple(nodes), outputs=tuple([same.get(v, v) for v in tape.outputs]))


def _join(node: Node, inputs: list[Any], moved: dict[Var, Node]) -> Node:
    """A reshape of a reshape, or a transposition of a transposition, as one of what went into the first."""
    first = moved.get(inputs[0])
    params = node.params
    if first is not None and first.op is node.op:
        inputs = list(first.inputs)
        if node.op is ops.transpose:
            params = {"axes": tuple(first.params["axes"][a] for a in params["axes"])}
    node = Node(node.op, inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)
    moved[node.outputs[0]] = node
    return node


Rule = Callable[[Node, list[Any], Aval, dict[Var, Var]], Var | None]


def _is(v: Var, number: float) -> bool:
    return v.tape is None and v.value == number


def _weak(v: Var) -> Literal:
    return Literal(make_aval((), v.aval.dtype, True), None, v.value)


def _number(aval: Aval, value: Any) -> Literal:
    kind = np.dtype(aval.dtype).kind
    python = {"b": bool, "i": int, "u": int, "c": complex}.get(kind, float)
    return Literal(aval, None, python(value))


def _alias(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    return inputs[0]  # type: ignore[no-any-return]


def _astype(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    (x,) = inputs
    if x.tape is None and not isinstance(x.value, complex):
        value = np.asarray(x.value).astype(aval.dtype)
        # A literal keeps a Python number: only one that survives the cast exactly can stand for it.
        if value == x.value:
            return _number(aval, x.value)
    return x if x.aval is aval else None


def _broadcast(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    return inputs[0]  # type: ignore[no-any-return]


def _computed(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    """Arithmetic on two literals, rounded as it would be later."""
    x, y = (splat.get(v, v) for v in inputs)
    if x.tape is not None or y.tape is not None or aval.dtype not in _EXACT:
        return None
    with np.errstate(all="ignore"):
        value = _ARITHMETIC[node.op](np.asarray(x.value, aval.dtype), np.asarray(y.value, aval.dtype))
    return _number(make_aval((), aval.dtype, aval.weak_type), value) if np.isfinite(value) else None


_EXACT = (np.dtype(np.float32), np.dtype(np.float64))
_ARITHMETIC: dict[Any, Any] = {ops.add: np.add, ops.sub: np.subtract, ops.mul: np.multiply, ops.div: np.divide}


def _mul(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    x, y = (splat.get(v, v) for v in inputs)
    if _is(y, 1) and inputs[0].aval is aval:
        return inputs[0]  # type: ignore[no-any-return]
    if _is(x, 1) and inputs[1].aval is aval:
        return inputs[1]  # type: ignore[no-any-return]
    return _computed(node, inputs, aval, splat)


def _div(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    if _is(splat.get(inputs[1], inputs[1]), 1) and inputs[0].aval is aval:
        return inputs[0]  # type: ignore[no-any-return]
    return _computed(node, inputs, aval, splat)


def _neg(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    x = splat.get(inputs[0], inputs[0])
    if x.tape is None and type(x.value) in (int, float):
        return _number(x.aval, -x.value)
    return None


def _reshape(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    return inputs[0] if inputs[0].aval is aval else splat.get(inputs[0])


def _transpose(node: Node, inputs: list[Any], aval: Aval, splat: dict[Var, Var]) -> Var | None:
    axes = node.params["axes"]
    return inputs[0] if axes == tuple(range(len(axes))) else splat.get(inputs[0])


_RULES: dict[Any, Rule] = {
    ops.add: _computed,
    ops.sub: _computed,
    ops.alias: _alias,
    ops.astype: _astype,
    ops.broadcast_in_dim: _broadcast,
    ops.mul: _mul,
    ops.div: _div,
    ops.neg: _neg,
    ops.reshape: _reshape,
    ops.transpose: _transpose,
}
_BROADCASTING = frozenset(
    [ops.add, ops.sub, ops.mul, ops.div, ops.maximum, ops.minimum, ops.where, ops.mul_no_nan_op, ops.div_no_nan_op]
)
