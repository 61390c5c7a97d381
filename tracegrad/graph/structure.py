"""The structure of graphs as integers: what of it is static, and how it lies in one array. Uses nothing of the package.

A node is an instance of a cell. It reads *rows* that others make, through its *slots*, and makes some, at its *ports*.
All rows of the slots and ports that are joined by edges stand in one *pool*, in the order in which they are made, so
that a step writes its rows side by side, and gathers what it reads. The gradient of a graph is the graph with every
edge turned round: what a port makes becomes a slot that sums the cotangents of those who read it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

Joint = tuple[int, int]
"""A slot or a port: its pool, and by how many edges one row of it is joined at most."""


class Kind(NamedTuple):
    """The nodes of one cell: they run in at most so many steps, of so many lanes each.

    Of a phase with several kinds, `rounds` says in how many turns at most they take theirs.
    """

    steps: int
    lanes: int
    slots: tuple[Joint, ...]
    ports: tuple[Joint, ...]
    rounds: int = 1

    @property
    def rows(self) -> int:
        return self.steps * self.lanes


class Structure(NamedTuple):
    """What is static of graphs: one program runs all whose integers have it.

    Kinds that read each other's rows, in a circle, make a phase; the phases run one after another.
    """

    kinds: tuple[Kind, ...]
    phases: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        """For a tape's text, where all of it is too long."""
        return " ".join(f"{kind.steps}x{kind.lanes}" for kind in self.kinds)

    def pools(self) -> int:
        return 1 + max((p for kind in self.kinds for p, _ in (*kind.slots, *kind.ports)), default=-1)


class Layout(NamedTuple):
    """Where the integers of a kind stand in the array: the first, and the shape, of each part.

    bounds: the number of rounds that there are, then the first step of each, and the end.
    valid: for each row, whether it is a node's (or only fills a step up).
    source: for each row, the row of the streams that its node reads.
    slots, ports: for each joint `(steps, edges, lanes)`: the rows of the pool that its row is joined to, of ports for a
      slot and of slots for a port, and the row after the last, which is zero, for none.
    """

    bounds: tuple[int, tuple[int, ...]]
    valid: tuple[int, tuple[int, ...]]
    source: tuple[int, tuple[int, ...]]
    slots: tuple[tuple[int, tuple[int, ...]], ...]
    ports: tuple[tuple[int, tuple[int, ...]], ...]


@functools.lru_cache(maxsize=1024)
def layouts(structure: Structure) -> tuple[tuple[Layout, ...], int]:
    """The layout of each kind, and the size of the whole array."""
    at, found = 0, []

    def part(*shape: int) -> tuple[int, tuple[int, ...]]:
        nonlocal at
        start, size = at, 1
        for n in shape:
            size *= n
        at += size
        return start, shape

    for kind in structure.kinds:
        joints = [
            tuple([part(kind.steps, edges, kind.lanes) for _, edges in ends]) for ends in (kind.slots, kind.ports)
        ]
        found.append(Layout(part(kind.rounds + 2), part(kind.rows), part(kind.rows), *joints))
    return tuple(found), at


@functools.lru_cache(maxsize=1024)
def places(structure: Structure) -> tuple[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], ...]:
    """For slots, then for ports: where each one's rows begin in its pool, kind by kind; and the sizes of the pools."""
    found = []
    for ends in ([k.slots for k in structure.kinds], [k.ports for k in structure.kinds]):
        sizes = [0] * structure.pools()
        bases = []
        for kind, joints in zip(structure.kinds, ends, strict=True):
            own = []
            for pool, _ in joints:
                own.append(sizes[pool])
                sizes[pool] += kind.rows
            bases.append(tuple(own))
        found.append((tuple(bases), tuple(sizes)))
    return tuple(found)


def part_of(array: Any, where: tuple[int, tuple[int, ...]]) -> Any:
    """One part of the array of integers."""
    start, shape = where
    size = functools.reduce(lambda a, b: a * b, shape, 1)
    return array[start : start + size].reshape(shape)
