"""A minimum cut: which values to keep so that others follow from them, at the fewest bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from ..tape import Node, Var

T = TypeVar("T")

INFINITE = 1 << 62


class Network:
    """A directed graph with capacities, whose greatest flow is found as E. A. Dinic, 1970, has it.

    Each edge is followed by the same one backwards, so that edge `e ^ 1` is the other of edge `e`.
    """

    def __init__(self) -> None:
        self.edges: list[list[int]] = []
        self.to: list[int] = []
        self.room: list[int] = []

    def node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def edge(self, start: int, end: int, capacity: int) -> None:
        for a, b, c in ((start, end, capacity), (end, start, 0)):
            self.edges[a].append(len(self.to))
            self.to.append(b)
            self.room.append(c)

    def _levels(self, source: int) -> list[int]:
        """How many edges with room lead to each node from the source: -1 for those that none do."""
        levels = [-1] * len(self.edges)
        levels[source] = 0
        waiting = deque([source])
        while waiting:
            at = waiting.popleft()
            for e in self.edges[at]:
                if self.room[e] and levels[self.to[e]] < 0:
                    levels[self.to[e]] = levels[at] + 1
                    waiting.append(self.to[e])
        return levels

    def fill(self, source: int, sink: int) -> int:
        """The greatest flow from source to sink."""
        flow = 0
        while (levels := self._levels(source))[sink] >= 0:
            tried = [0] * len(self.edges)
            path: list[int] = []
            at = source
            while True:
                if at == sink:
                    amount = min(self.room[e] for e in path)
                    for e in path:
                        self.room[e] -= amount
                        self.room[e ^ 1] += amount
                    flow += amount
                    path, at = [], source
                    continue
                while tried[at] < len(self.edges[at]):
                    e = self.edges[at][tried[at]]
                    if self.room[e] and levels[self.to[e]] == levels[at] + 1:
                        path.append(e)
                        at = self.to[e]
                        break
                    tried[at] += 1
                else:
                    if not path:
                        break
                    at = self.to[path.pop() ^ 1]
                    tried[at] += 1
        return flow

    def before(self, sink: int) -> set[int]:
        """The nodes from which the sink can still be reached: of a full network, the sink's side of the cut."""
        found, waiting = {sink}, [sink]
        while waiting:
            for e in self.edges[waiting.pop()]:
                if self.room[e ^ 1] and self.to[e] not in found:
                    found.add(self.to[e])
                    waiting.append(self.to[e])
        return found


def cut(
    nodes: Sequence[Node],
    needed: Iterable[Var],
    *,
    given: Collection[Var],
    once: Callable[[Node], bool],
    cost: Callable[[Var], int],
) -> list[Var]:
    """The values to keep, at the least cost, so that all of `needed` can be computed from them.

    Args:
      nodes: the steps that may be run again, in order.
      needed: values that these make.
      given: values that are there anyway. A value that is neither given nor made by `nodes` has to be kept if it is
        read.
      once: which of the nodes must not be run again.
      cost: what keeping a value costs.

    Of cuts that cost the same, it is the one that computes the least again.
    """
    network = Network()
    source, sink = network.node(), network.node()
    into: dict[Var, int] = {}
    made = {v for node in nodes for v in node.outputs}

    def enter(v: Var) -> int:
        """The node where the flow of a value comes in; it leaves at the next one."""
        if v not in into:
            into[v] = network.node()
            network.edge(into[v], network.node(), cost(v))
            if v not in made:
                network.edge(source, into[v], INFINITE)
        return into[v]

    for node in nodes:
        again = not once(node)
        inputs = {v for v in node.inputs if v.tape is not None and v not in given}
        for out in node.outputs:
            if out in given:
                continue
            at = enter(out)
            if not again:
                network.edge(source, at, INFINITE)
                continue
            for v in inputs:
                network.edge(enter(v) + 1, at, INFINITE)
    for v in dict.fromkeys(needed):
        if v not in given:
            network.edge(enter(v) + 1, sink, INFINITE)
    network.fill(source, sink)
    side = network.before(sink)
    return [v for v, at in into.items() if at + 1 in side and at not in side]
