"""Renaming: the same program with values of its own."""

from __future__ import annotations

from ..tape import Node, Tape, Var


def fresh(tape: Tape) -> Tape:
    """The same program with values of its own, so that it keeps nothing of the recording alive."""
    new: dict[Var, Var] = {}

    def renamed(v: Var) -> Var:
        known = new.get(v, v if v.tape is None else None)
        if known is None:
            known = new[v] = type(v).__new__(type(v))
            known.aval, known.tape, known.value = v.aval, v.tape, None
        return known

    def copied(n: Node) -> Node:
        inputs, outputs = tuple(map(renamed, n.inputs)), tuple(map(renamed, n.outputs))
        return Node(n.op, inputs, n.params, outputs, n.code, n.offset, n.grad)

    inputs, nodes = tuple(map(renamed, tape.inputs)), tuple(map(copied, tape.nodes))
    return tape.replace(inputs=inputs, nodes=nodes, outputs=tuple(map(renamed, tape.outputs)), arguments=None)
