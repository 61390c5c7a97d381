"""Putting in line: a node that runs a body once, only so as to be one node, becomes the nodes of that body."""

from __future__ import annotations

from collections.abc import Sequence

from ..op import Op
from ..tape import Node, Var
from ..tracer import Tracer


class InLine(Op):
    """An op that runs its parameter `body` once, and is put in line where a program is made."""

    __slots__ = ()


def inlined(nodes: Sequence[Node]) -> Sequence[Node]:
    """These nodes, with bodies in the place of those that are to be in line."""
    if not any(isinstance(node.op, InLine) for node in nodes):
        return nodes
    result: list[Node] = []
    for node in nodes:
        if not isinstance(node.op, InLine):
            result.append(node)
            continue
        # Two nodes may have the same body, and a value is bound once: all are new but those of the node.
        body, tape = node.params["body"], node.outputs[0].tape
        env: dict[Var, Var] = dict(zip((*body.inputs, *body.outputs), (*node.inputs, *node.outputs), strict=True))
        for n in body.nodes:
            env.update((v, Tracer(v.aval, tape)) for v in n.outputs if v not in env)
            inputs, outputs = [env.get(v, v) for v in n.inputs], tuple([env[v] for v in n.outputs])
            result.append(Node(n.op, inputs, n.params, outputs, n.code, n.offset, n.grad))
    return result
