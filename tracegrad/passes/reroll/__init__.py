"""Re-rolling: a run of equal blocks, such as the turns of an unrolled loop or layers, becomes a loop. Uses the tape."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from ...tape import Node, Tape
from ...verify import verified
from ..dead_code import dead_code
from .ordered import join, ordered
from .regions import SAVED, TURNS, find_regions
from .writer import Writer


def reroll(tape: Tape, said: MutableSequence[str] | None = None) -> Tape:
    """`tape` with runs of equal blocks as loops, in itself and in its bodies; `said` grows by what was done."""
    known = tape.made.get(reroll)
    if known is None:
        notes: list[str] = []
        known = tape.made[reroll] = (verified(_rolled(tape, notes)), notes)
    if said is not None:
        said.extend(known[1])
    return known[0]  # type: ignore[no-any-return]


def _rolled(tape: Tape, said: list[str]) -> Tape:
    nodes = [_inside(node, said) for node in tape.nodes]
    if any(a is not b for a, b in zip(nodes, tape.nodes, strict=True)):
        tape = tape.replace(nodes=tuple(nodes))
    if len(nodes) < SAVED * TURNS / (TURNS - 1):
        return tape
    plain = ordered(join(nodes, tape.outputs))
    regions = find_regions(plain, tape.outputs)
    if not regions:
        return tape
    said += [region.text() for region in regions]
    return dead_code(Writer(tape, plain, regions, reroll).tape())


def _inside(node: Node, said: list[str]) -> Node:
    """The node, with its bodies rolled."""
    changed: dict[str, Any] = {}
    for name, value in node.params.items():
        if isinstance(value, Tape):
            new: Any = reroll(value, said)
            if new is not value:
                changed[name] = new
        elif isinstance(value, tuple) and value and all(isinstance(x, Tape) for x in value):
            new = tuple([reroll(x, said) for x in value])
            if any(a is not b for a, b in zip(new, value, strict=True)):
                changed[name] = new
    if not changed:
        return node
    params = node.params | changed
    return Node(node.op, node.inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)


__all__ = ["reroll"]
