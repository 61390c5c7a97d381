"""A program in which the blocks of a run are equal: its nodes joined, and in another order. Uses the tape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ... import ops
from ...ops.shape import concatenate, pad, reshape, slice_, split_op
from ...tape import Node, Tape, Var
from ...tracer import Tracer
from .loops import joined
from .regions import TURNS


def without_calls(tape: Tape) -> Tape:
    """`tape` with calls of bodies in line: a loop and its gradient are then in one program."""
    same: dict[Var, Var] = {}
    nodes: list[Node] = []
    for node in tape.nodes:
        _put(node, same, None, nodes, False)
    return tape.replace(nodes=tuple(nodes), outputs=tuple([same.get(v, v) for v in tape.outputs]))


def _put(node: Node, env: dict[Var, Var], blame: Node | None, nodes: list[Node], inside: bool) -> None:
    """Appends the node, or what it calls, to `nodes`, with the values that `env` has for those of its program."""
    inputs = [env.get(v, v) for v in node.inputs]
    body = node.params.get("body")
    if len(node.params) == 1 and isinstance(body, Tape) and len(body.inputs) == len(inputs):
        inner = dict(zip(body.inputs, inputs, strict=True))
        for part in body.nodes:
            _put(part, inner, (blame or node) if body.imported else blame, nodes, True)
        env.update(zip(node.outputs, [inner.get(v, v) for v in body.outputs], strict=True))
        return
    outputs = node.outputs
    if inside:
        outputs = tuple([Tracer(v.aval, v.tape) for v in outputs])
        env.update(zip(node.outputs, outputs, strict=True))
    place = blame or node
    nodes.append(Node(node.op, inputs, node.params, outputs, place.code, place.offset, place.grad or node.grad))


@dataclass(eq=False)
class _Sum:
    """A sum of padded parts, all of one size and at places of their own, and of a few other values."""

    size: tuple[int, ...] | None
    parts: dict[tuple[int, ...], Var]
    others: list[Var]
    nodes: list[Node]


def join(nodes: Sequence[Node], outputs: Sequence[Var]) -> list[Node]:
    """The nodes, with sums of padded parts as one node where the last part is there.

    They are the cotangents of what a turn reads of an array; their padding differs from turn to turn.
    """
    uses = Counter(v for node in nodes for v in node.inputs)
    uses.update(outputs)
    sums: dict[Var, _Sum] = {}
    taken: set[Var] = set()
    twice: dict[int, list[Node]] = {}
    for node in nodes:
        out = node.outputs[0]
        if node.op is pad:
            x, zero = node.inputs
            start = tuple([lo for lo, _, _ in node.params["config"]])
            # So parts that start elsewhere have nothing in common.
            apart = all(
                lo >= 0 and hi >= 0 and not inner and n and lo % n == 0
                for (lo, hi, inner), n in zip(node.params["config"], x.aval.shape, strict=True)
            )
            if apart and zero.tape is None and zero.value == 0 and x.aval.dtype == out.aval.dtype:
                sums[out] = _Sum(x.aval.shape, {start: x}, [], [node])
        elif node.op is ops.add and node.inputs[0] is not node.inputs[1]:
            known = [sums.get(v) if uses[v] == 1 else None for v in node.inputs]
            if not any(known) or any(v.aval is not out.aval for v in node.inputs):
                continue
            both = [s or _Sum(None, {}, [v], []) for s, v in zip(known, node.inputs, strict=True)]
            less, more = sorted(both, key=lambda s: len(s.parts))
            fits = less.size is None or less.size == more.size
            if fits and len(less.others + more.others) <= 2:
                # Each is read here alone. What a turn reads twice has two cotangents.
                for start in less.parts.keys() & more.parts.keys():
                    x, y = less.parts[start], more.parts[start]
                    new = Tracer(x.aval, x.tape)
                    twice.setdefault(id(node), []).append(like_node(node, ops.add, [x, y], {}, (new,)))
                    less.parts[start] = new
                more.parts |= less.parts
                more.others += less.others
                more.nodes += [*less.nodes, node]
                sums[out] = more
                taken.update(v for v, s in zip(node.inputs, known, strict=True) if s)
    final = {id(s.nodes[-1]): s for v, s in sums.items() if v not in taken and len(s.parts) >= TURNS}
    gone = {id(node) for s in final.values() for node in s.nodes}
    result = []
    for node in nodes:
        if id(node) not in gone:
            result.append(node)
            continue
        result += twice.get(id(node), [])
        if id(node) in final:
            result += _as_one(final[id(node)], node)
    return result


def _as_one(found: _Sum, last: Node) -> list[Node]:
    (out,) = last.outputs
    params = {"shape": out.aval.shape, "starts": tuple(found.parts)}
    xs = list(found.parts.values())
    steps = [out, *[Tracer(out.aval, out.tape) for _ in found.others]][::-1]
    result = [like_node(last, joined, xs, params, (steps[0],))]
    for before, after, other in zip(steps, steps[1:], found.others, strict=False):
        result.append(like_node(last, ops.add, [before, other], {}, (after,)))
    return result


def like_node(node: Node, op: Any, inputs: Sequence[Var], params: dict[str, Any], outputs: tuple[Var, ...]) -> Node:
    return Node(op, inputs, params, outputs, node.code, node.offset, node.grad)


def ordered(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in an order in which nothing of one turn stands among another's.

    What reads literals alone comes first; parts of an array when it is there; what a list of parts is reshaped to
    where it is read first, and what is reshaped to be joined when it is there.
    """
    first_use: dict[Var, Node] = {}
    joins: dict[Var, bool] = {}
    maker = {v: node for node in nodes for v in node.outputs}
    for node in nodes:
        for v in node.inputs:
            first_use.setdefault(v, node)
            joins[v] = joins.get(v, True) and (node.op is concatenate or node.op is joined)
    free: set[Var] = set()
    first: list[Node] = []
    after: dict[int, list[Node]] = {}
    before: dict[int, list[Node]] = {}
    rest: list[Node] = []
    for node in nodes:
        if all(v.tape is None or v in free for v in node.inputs):
            free.update(node.outputs)
            first.append(node)
            continue
        v, out = node.inputs[0], node.outputs[0]
        source = maker.get(v)
        if node.op is slice_ or node.op is split_op or (node.op is reshape and joins.get(out, False)):
            if source is None or v in free:
                first.append(node)
            else:
                after.setdefault(id(source), []).append(node)
        elif node.op is reshape and source is not None and source.op in (slice_, split_op) and out in first_use:
            before.setdefault(id(first_use[out]), []).append(node)
        else:
            rest.append(node)
    result: list[Node] = []

    def put(node: Node) -> None:
        stack = [(node, False)]
        while stack:
            node, ready = stack.pop()
            early = before.pop(id(node), None) if not ready else None
            if early:
                stack.append((node, True))
                stack += [(x, False) for x in reversed(early)]
                continue
            result.append(node)
            stack += [(x, False) for x in reversed(after.pop(id(node), []))]

    for node in [*first, *rest]:
        put(node)
    return result
