"""Outlining: what a program repeats, such as a layer or a step, becomes one body that is lowered once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ..inference import TYPED, output_types
from ..lower import lower
from ..op import Op
from ..ops.shape import slice_
from ..tape import Node, Tape, Var, structure
from ..verify import verified
from .fresh import fresh

GRAM = 6
"""How many nodes in a row have to recur before a repetition is looked for."""

NEAR = 16
"""How far back an operand's place counts: farther, repetitions may differ in what lies between."""

CALL = 8
"""What running a body costs, in nodes lowered."""

PERIODS = 12
"""How many periods are tried."""


def program(tape: Tape) -> Callable[..., list[Any]]:
    """A function over JAX arrays that runs a finished tape, outlined."""
    return lower(verified(outline(tape)))


def compiled(tape: Tape) -> Callable[..., list[Any]]:
    """`program(tape)` under `jax.jit`, made once a tape, so that JAX traces and lowers it once."""
    known = tape.made.get(compiled)
    if known is None:
        known = tape.made[compiled] = jax.jit(program(tape))
    return known  # type: ignore[no-any-return]


block = Op("block", lambda *xs, body: compiled(body)(*xs), shape=output_types, multiple=True, axes=TYPED)
"""Runs a body that outlining made: it has no derivative, for programs are outlined after they are differentiated."""


def outline(tape: Tape) -> Tape:
    """`tape` with runs of nodes that repeat one after another replaced by nodes that run one body.

    JAX traces and lowers a node at a time, and a body once; XLA puts bodies back in line.
    """
    if len(tape.nodes) < 4 * CALL:
        return tape
    nodes = _constants_first(tape.nodes)
    symbols = symbols_of(nodes)
    regions = _repetitions(symbols)
    if not regions:
        return tape
    last_use = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    last_use.update((v, len(nodes)) for v in tape.outputs)
    result: list[Node] = []
    done = 0
    for start, size, count in regions:
        result += nodes[done:start]
        done = start + size * count
        result += _outlined([nodes[i : i + size] for i in range(start, done, size)], start, last_use, tape)
    return tape.replace(nodes=(*result, *nodes[done:]))


def _constants_first(nodes: Sequence[Node]) -> list[Node]:
    """Nodes that read literals alone come first, and slices of what the program is given.

    One repetition would else compute a constant for all; and each takes another slice.
    """
    made: set[Var] = set()
    given = {v for node in nodes for v in node.inputs} - {v for node in nodes for v in node.outputs}
    first, rest = [], []
    for node in nodes:
        if all(v.tape is None or v in made for v in node.inputs) or (node.op is slice_ and node.inputs[0] in given):
            first.append(node)
            made.update(node.outputs)
        else:
            rest.append(node)
    return first + rest


def symbols_of(nodes: list[Node]) -> Any:
    """A number a node, equal where ops, parameters, types of operands and the way to near operands are."""
    numbers: dict[Any, int] = {}
    made: dict[Var, int] = {}
    symbols = []
    for i, node in enumerate(nodes):
        key: list[Any] = [node.op, *node.params.items()]
        for v in node.inputs:
            distance = i - made.get(v, -NEAR)
            key.append(v.aval)
            key.append(distance if distance < NEAR else 0)
        symbols.append(numbers.setdefault(tuple(key), len(numbers)))
        made.update((v, i) for v in node.outputs)
    return np.array(symbols)


def recurrences(symbols: Any, periods: int) -> Iterator[tuple[int, int, int]]:
    """Where a sequence equals itself some way further on: (that distance, start, end), for so many common distances."""
    last: dict[bytes, int] = {}
    distances: Counter[int] = Counter()
    data = symbols.astype(np.int32).tobytes()
    for i in range(len(symbols) - GRAM + 1):
        gram = data[4 * i : 4 * (i + GRAM)]
        before = last.get(gram)
        if before is not None:
            distances[i - before] += 1
        last[gram] = i
    for period, _ in distances.most_common(periods):
        same = np.concatenate(([False], symbols[:-period] == symbols[period:], [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            yield period, start, end


def _repetitions(symbols: Any) -> list[tuple[int, int, int]]:
    """Where the sequence repeats itself: (start, length of a block, number of blocks), none overlapping."""
    found = []
    for period, start, end in recurrences(symbols, PERIODS):
        count = (end - start) // period + 1
        if count < 2:
            continue
        # Short periods are taken several at a time: as many calls as the body has nodes' worth.
        several = max(1, min(count // 2, round(math.sqrt(count * CALL / period))))
        size, count = several * period, count // several
        saved = (count - 1) * size - count * CALL
        if saved > 0:
            found.append((saved, start, size, count))
    free = np.ones(len(symbols), bool)
    chosen = []
    for _, start, size, count in sorted(found, reverse=True):
        if free[start : start + size * count].all():
            free[start : start + size * count] = False
            chosen.append((start, size, count))
    return sorted(chosen)


def _outlined(blocks: list[list[Node]], start: int, last_use: dict[Var, int], like: Tape) -> list[Node]:
    """The blocks, those that compute the same as a node each."""
    size = len(blocks[0])
    wanted = [[False] * len(node.outputs) for node in blocks[0]]
    for b, part in enumerate(blocks):
        end = start + (b + 1) * size
        for flags, node in zip(wanted, part, strict=True):
            for i, v in enumerate(node.outputs):
                flags[i] = flags[i] or last_use.get(v, 0) >= end
    keys = []
    for part in blocks:
        pairs = [p for flags, node in zip(wanted, part, strict=True) for p in zip(flags, node.outputs, strict=True)]
        outputs = [v for flag, v in pairs if flag]
        keys.append((*structure(part, outputs), outputs))
    often = Counter(key for key, _, _ in keys)
    bodies: dict[Any, Tape] = {}
    result: list[Node] = []
    for part, (key, leaves, outputs) in zip(blocks, keys, strict=True):
        if often[key] == 1:
            result += part
            continue
        body = bodies.get(key)
        if body is None:
            body = bodies[key] = fresh(Tape(tuple(leaves), tuple(part), tuple(outputs), "block", like.axes))
        first = part[0]
        result.append(Node(block, leaves, {"body": body}, tuple(outputs), first.code, first.offset, first.grad))
    return result
