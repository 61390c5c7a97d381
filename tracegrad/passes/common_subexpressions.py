"""Common-subexpression elimination: compute what is computed twice once."""

from __future__ import annotations

from typing import Any

from ..tape import Node, Tape, Var


def common_subexpressions(tape: Tape) -> Tape:
    """`tape` with a node dropped when an earlier one has the same op, parameters and operands."""
    same: dict[Var, Var] = {}
    seen: dict[Any, Node] = {}
    nodes = []
    for node in tape.nodes:
        inputs = [same.get(v, v) for v in node.inputs]
        key = (
            node.op,
            tuple(node.params.items()) if node.params else None,
            *[v if v.tape is not None else (v.value.__class__, repr(v.value), v.aval) for v in inputs],
        )
        earlier = seen.get(key)
        if earlier is not None and len(earlier.outputs) == len(node.outputs):
            same.update(zip(node.outputs, earlier.outputs, strict=True))
            continue
        node = node.with_inputs(inputs)
        seen[key] = node
        nodes.append(node)
    return tape.replace(nodes=tuple(nodes), outputs=tuple([same.get(v, v) for v in tape.outputs]))
