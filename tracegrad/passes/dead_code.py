"""Dead-code elimination: drop the nodes that no output needs."""

from __future__ import annotations

from ..tape import Tape, Var


def dead_code(tape: Tape) -> Tape:
    """`tape` without the nodes whose outputs reach no output of the tape."""
    live: set[Var] = set(tape.outputs)
    nodes = []
    for node in reversed(tape.nodes):
        for v in node.outputs:
            if v in live:
                nodes.append(node)
                live.update(node.inputs)
                break
    nodes.reverse()
    return tape.replace(nodes=tuple(nodes))
