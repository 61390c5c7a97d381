"""Re-rolling: a run of equal blocks, such as the turns of an unrolled loop or layers, becomes a loop. Uses the tape."""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

from ...tape import Node, Tape
from ...verify import verified
from ..dead_code import dead_code
from .ordered import join, ordered, without_calls
from .regions import SAVED, TURNS, Rule, candidates, find_regions, worthwhile
from .writer import Writer


def reroll(tape: Tape, said: MutableSequence[str] | None = None, rule: Rule = worthwhile) -> Tape:
    """`tape` with runs of equal blocks as loops, in itself and in its bodies; `said` grows by what was done.

    `rule` decides which of the loops that could be are.
    """
    known = tape.made.get((reroll, rule))
    if known is None:
        notes: list[str] = []
        new = verified(_rolled(tape, notes, rule))
        # A tape that held itself would be freed by Python's collector alone.
        known = tape.made[reroll, rule] = (None if new is tape else new, notes)
    if said is not None:
        said.extend(known[1])
    return tape if known[0] is None else known[0]


def _rolled(tape: Tape, said: list[str], rule: Rule) -> Tape:
    whole = without_calls(tape)
    if len(whole.nodes) >= SAVED * TURNS / (TURNS - 1):
        new = _with_loops(whole, said, rule)
        if new is not None:
            return new
    return _inner(tape, said, rule)


def _inner(tape: Tape, said: list[str], rule: Rule) -> Tape:
    """The program, with its bodies rolled."""
    nodes = [_inside(node, said, rule) for node in tape.nodes]
    changed = any(a is not b for a, b in zip(nodes, tape.nodes, strict=True))
    return tape.replace(nodes=tuple(nodes)) if changed else tape


def _with_loops(tape: Tape, said: list[str], rule: Rule) -> Tape | None:
    """The program with loops, if it has any that are worth it."""
    nodes = tape.nodes
    plain = ordered(join(nodes, tape.outputs))
    runs = candidates(plain, tape.outputs)
    while runs:
        regions = find_regions(plain, runs)
        writer = Writer(tape, plain, regions, lambda turn: reroll(turn, rule=rule))
        good = [region for region in regions if rule(region, writer.traffic(region), len(nodes))]
        if len(good) == len(regions):
            break
        # What is no loop is no longer what the loops before it stack for, nor what those after it read.
        runs = [region.run for region in good]
    if not runs or not regions:
        return None
    said += [region.text() for region in regions]
    return _inner(dead_code(writer.tape()), said, rule)


def _inside(node: Node, said: list[str], rule: Rule) -> Node:
    """The node, with its bodies rolled."""
    changed: dict[str, Any] = {}
    for name, value in node.params.items():
        if isinstance(value, Tape):
            new: Any = reroll(value, said, rule)
            if new is not value:
                changed[name] = new
        elif isinstance(value, tuple) and value and all(isinstance(x, Tape) for x in value):
            new = tuple([reroll(x, said, rule) for x in value])
            if any(a is not b for a, b in zip(new, value, strict=True)):
                changed[name] = new
    if not changed:
        return node
    params = node.params | changed
    return Node(node.op, node.inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)


__all__ = ["reroll"]
