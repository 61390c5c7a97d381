"""The program with its regions as loops. Uses the tape."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import ops
from ...ops.shape import concatenate, weak_op
from ...tape import Aval, Node, Tape, Var, make_aval
from ...tracer import Literal, Tracer
from ..dead_code import dead_code
from .loops import Choice, Place, Read, Row, Table, Window, filled, joined, loop, numbers, row, stacked
from .ordered import like_node
from .regions import CHEAP, Region, Traffic, Views, apart, ids_of, is_arithmetic, size_of

BODY = 24
"""How many nodes of arithmetic a turn of the compiled loop has at least: turns that are shorter are compiled together.

Others gain nothing from that, by `benchmarks/roll.py`, and take longer to compile.
"""

COPIED = 1 << 10
"""How many bytes a value has at least that is read where it is, and not copied beside those of the other turns."""

REPLAYED = 2
"""For how many turns a value that is quickly computed is so anew, rather than kept for all."""


class Writer:
    """Writes the program with its regions as loops."""

    def __init__(self, tape: Tape, nodes: list[Node], regions: list[Region], nested: Callable[[Tape], Tape]) -> None:
        self.old, self.nodes, self.regions, self.nested = tape, nodes, regions, nested
        self.holder = nodes[0].outputs[0].tape
        self.views = Views(nodes)
        for region in regions:
            self.views.add(region)
        self.new: list[Node] = []
        self.env: dict[Var, Var] = {}
        self.rows: dict[tuple[int, int, int], Var] = {}
        self.buffers: dict[int, Var] = {}
        self.counts: dict[int, Var] = {}
        self.numbers: dict[int, tuple[Var, ...]] = {}
        inside = {i for r in regions for i in range(r.start, r.end)}
        self.outside = [node for i, node in enumerate(nodes) if i not in inside]
        self.placed = self._placed()
        self.wanted: dict[Region, set[Var]] = {region: set() for region in regions}
        self.replayed: set[Var] = set()
        self.alone: set[Var] = set()
        single = list(tape.outputs)
        for node in self.outside:
            skipped = self.placed.get(id(node))
            single += [v for v in node.inputs if skipped is None or v not in skipped[0].place]
        for region in regions:
            lists, rest = region.reads()
            single += rest
            for vs in lists:
                if self.views.regular(vs) is None:
                    single += vs
                else:
                    self._want(vs)
        self._want_single(single)

    def traffic(self, region: Region) -> Traffic:
        found = Traffic(sum(size_of(v.aval) for node in region.blocks[0] for v in node.outputs))
        for vs in region.each().values():
            view = self.views.regular(vs)
            if view is not None and view[0][0] == "row":
                found.kept += size_of(vs[0].aval)
            elif view is None and vs[0].tape is not None:
                found.chosen += size_of(vs[0].aval)
        alone: Counter[tuple[int, int]] = Counter()
        for v in self.alone & self.wanted[region]:
            i, p, o = region.place[v]
            alone[p, o] += i < region.turns - 1
        for (p, o), count in alone.items():
            if 2 * count >= region.turns:
                found.taken += size_of(region.blocks[0][p].outputs[o].aval)
        return found

    def _want(self, vs: Sequence[Var]) -> None:
        for v in vs:
            where = self.views.owner.get(v)
            if where is not None:
                self.wanted[where[0]].add(v)

    def _want_single(self, single: Sequence[Var]) -> None:
        """Wants values of few turns: what is quickly computed of others is so anew, unless it is kept anyway."""
        kept = {self.views.owner[v][::2] for vs in self.wanted.values() for v in vs}
        waiting = [v for v in dict.fromkeys(single) if v in self.views.owner]
        turns: dict[Any, set[int]] = {}
        for v in waiting:
            region, i, p, o = self.views.owner[v]
            turns.setdefault((region, p, o), set()).add(i)
        while waiting:
            v = waiting.pop()
            region, i, p, o = self.views.owner[v]
            node = region.blocks[i][p]
            few = len(turns.get((region, p, o), ())) <= REPLAYED
            if v in self.replayed or v in self.alone:
                continue
            if node.op in CHEAP and few and i < region.turns - 1 and (region, p) not in kept:
                self.replayed.add(v)
                waiting += [x for x in node.inputs if x in self.views.owner]
            else:
                self.wanted[region].add(v)
                self.alone.add(v)

    def _placed(self) -> dict[int, tuple[Region, int, int, Place]]:
        """The nodes that join what a loop makes, each turn one part: the loop writes these where they belong."""
        found = {}
        for node in self.outside:
            if node.op is not concatenate and node.op is not joined:
                continue
            out = node.outputs[0].aval
            if out.weak_type or jnp.issubdtype(out.dtype, jax.dtypes.extended):
                continue
            owned: dict[tuple[Region, int, int], dict[int, tuple[int, ...]]] = {}
            for v, start in zip(node.inputs, _starts(node), strict=True):
                where = self.views.owner.get(v)
                if where is not None:
                    region, i, p, o = where
                    owned.setdefault((region, p, o), {})[i] = start
            for (region, p, o), at in owned.items():
                parts = [v for v in node.inputs if region.place.get(v, (0, -1, -1))[1:] == (p, o)]
                if len(at) != region.turns or len(parts) != region.turns:
                    continue
                places = [at[i] for i in range(region.turns)]
                steps = {apart(a, b) for a, b in itertools.pairwise(places)}
                if len(steps) == 1 and len(owned) == 1:
                    found[id(node)] = region, p, o, Place(out.shape, places[0], steps.pop())
        return found

    def tape(self) -> Tape:
        starts = {region.start: region for region in self.regions}
        i = 0
        while i < len(self.nodes):
            region = starts.get(i)
            if region is not None:
                self.write(region)
                i = region.end
                continue
            node = self.nodes[i]
            if id(node) in self.placed:
                self._fill(node)
            else:
                self.new.append(node.with_inputs([self.get(v, node) for v in node.inputs]))
            i += 1
        outputs = tuple([self.get(v, self.nodes[-1]) for v in self.old.outputs])
        return self.old.replace(nodes=tuple(self.new), outputs=outputs)

    def emit(self, like: Node, op: Any, inputs: Sequence[Var], params: dict[str, Any]) -> tuple[Var, ...]:
        avals = op.infer(tuple([v.aval for v in inputs]), params)
        outputs = tuple([Tracer(aval, self.holder) for aval in avals])
        self.new.append(like_node(like, op, list(inputs), params, outputs))
        return outputs

    def get(self, v: Var, like: Node) -> Var:
        """A value of the old program, in the new one."""
        if v.tape is None:
            return v
        known = self.env.get(v)
        if known is None:
            where = self.views.owner.get(v)
            if where is None:
                return v
            region, i, p, o = where
            if v in self.replayed:
                node = region.blocks[i][p]
                outputs = tuple([Tracer(out.aval, self.holder) for out in node.outputs])
                inputs = [self.get(x, like) for x in node.inputs]
                self.new.append(like_node(node, node.op, inputs, node.params, outputs))
                self.env.update(zip(node.outputs, outputs, strict=True))
                return outputs[o]
            (known,) = self.emit(like, row, [self.rows[id(region), p, o], self._number(region, i, like)], {})
            known = self.env[v] = self._weak(known, v, like)
        return known

    def _number(self, region: Region, i: int, like: Node) -> Var:
        """The number of a turn."""
        if id(region) not in self.numbers:
            self.numbers[id(region)] = self.emit(like, numbers, [self.counts[id(region)]], {"turns": region.turns})
        return self.numbers[id(region)][i]

    def _weak(self, new: Var, old: Var, like: Node) -> Var:
        return self.emit(like, weak_op, [new], {"dtype": old.aval.dtype})[0] if old.aval.weak_type else new

    def _fill(self, node: Node) -> None:
        """What a loop has written, with the parts that others make."""
        region, *_ = self.placed[id(node)]
        buffer = self.buffers[id(node)]
        rest = [(s, v) for s, v in zip(_starts(node), node.inputs, strict=True) if v not in region.place]
        if rest:
            params = {"starts": tuple([start for start, _ in rest])}
            (buffer,) = self.emit(node, filled, [buffer, *[self.get(v, node) for _, v in rest]], params)
        self.env[node.outputs[0]] = buffer

    def write(self, region: Region) -> None:
        like, turns = region.blocks[0][0], region.turns
        model = region.blocks[turns // 2]
        new = self._body_value
        carries: dict[Any, list[Var]] = {}
        first: dict[Any, list[Var]] = {}
        operands: dict[tuple[int, int], Var | tuple[int, int]] = {}
        consts = {v: new(v.aval) for v in region.consts()}
        lists = region.each()
        parts = {ids: new(vs[0].aval) for ids, vs in lists.items()}
        for (p, s), slot in region.slots.items():
            if slot[0] == "made":
                operands[p, s] = slot[1:]
            elif slot[0] == "carry":
                _, lag, q, o = slot
                begin = [block[p].inputs[s] for block in region.blocks[:lag]]
                key = (q, o, lag, ids_of(begin))
                if key not in carries:
                    carries[key] = [new(region.blocks[0][q].outputs[o].aval) for _ in range(lag)]
                    first[key] = begin
                operands[p, s] = carries[key][0]
        made: dict[tuple[int, int], Var] = {}
        nodes: list[Node] = []
        known: dict[Any, Var] = {**consts, **parts}

        for p, node in enumerate(model):
            inputs: list[Var] = []
            for s in range(len(node.inputs)):
                operand = operands.get((p, s))
                if operand is None:
                    operand = self._operand(region.slots[p, s], region, known, nodes)
                inputs.append(made[operand] if isinstance(operand, tuple) else operand)
            outputs = tuple([new(v.aval) for v in node.outputs])
            made.update(((p, o), v) for o, v in enumerate(outputs))
            nodes.append(like_node(node, node.op, inputs, node.params, outputs))

        carry_in, carry_out, begin = [], [], []
        for key, chain in carries.items():
            for d, v in enumerate(chain):
                carry_in.append(v)
                carry_out.append(chain[d + 1] if d + 1 < len(chain) else made[key[0], key[1]])
                begin.append(self.get(first[key][d], like))
        kept: dict[tuple[int, int], None] = {}
        last: dict[tuple[int, int], Var] = {}
        for v in sorted(self.wanted[region], key=region.place.__getitem__):
            i, p, o = region.place[v]
            if i == turns - 1 and not jnp.issubdtype(v.aval.dtype, jax.dtypes.extended):
                last[p, o] = v
            else:
                kept[p, o] = None
        finals: list[tuple[Var, int]] = []
        for place, v in last.items():
            if place in kept:
                continue
            if all(x is not made[place] for x in carry_out):
                carry_in.append(new(v.aval))
                carry_out.append(made[place])
                zero = Literal(make_aval((), v.aval.dtype), None, 0.0)
                begin += self.emit(like, ops.broadcast_in_dim, [zero], {"shape": v.aval.shape, "dims": ()})
            finals.append((v, next(c for c, x in enumerate(carry_out) if x is made[place])))
        places = [(key, p, o, place) for key, (r, p, o, place) in self.placed.items() if r is region]
        sources: dict[Var, int] = {}
        reads = [self._read(vs, sources, like) for vs in lists.values()]
        body = self.old.replace(
            inputs=(*carry_in, *parts.values(), *consts.values()),
            nodes=tuple(nodes),
            outputs=(*carry_out, *[made[k] for k in kept], *[made[p, o] for _, p, o, _ in places]),
            name=f"{self.old.name}_loop", out_tree=None, arguments=None,
        )  # fmt: skip
        body = self.nested(dead_code(body))
        params = {
            "turn": body, "carried": len(carry_in), "sources": len(sources), "reads": tuple(reads),
            "places": tuple([place for *_, place in places]), "length": turns,
"unroll": max(1, min(turns, round(BODY / max(1, len(body.nodes))))) if is_arithmetic(body.nodes) else 1,
        }  # fmt: skip
        outs = self.emit(like, loop, [*begin, *sources, *[self.get(v, like) for v in consts]], params)
        self.counts[id(region)] = outs[-1]
        for v, c in finals:
            self.env[v] = self._weak(outs[c], v, like)
        for (p, o), stack in zip(kept, outs[len(carry_in) :], strict=False):
            self.rows[id(region), p, o] = stack
        for (at, *_), buffer in zip(places, outs[len(carry_in) + len(kept) :], strict=False):
            self.buffers[at] = buffer

    def _operand(self, slot: tuple[Any, ...], region: Region, known: dict[Any, Var], nodes: list[Node]) -> Var:
        """What a turn reads, which it may have to compute again."""
        kind, what = slot
        if kind == "const":
            return what if what.tape is None else known[what]
        ids = ids_of(what)
        if ids not in known:
            node, o, slots = region.again[ids]
            inputs = [self._operand(slot, region, known, nodes) for slot in slots]
            outputs = tuple([self._body_value(v.aval) for v in node.outputs])
            nodes.append(like_node(node, node.op, inputs, node.params, outputs))
            known[ids] = outputs[o]
        return known[ids]

    def _body_value(self, aval: Aval) -> Var:
        return Tracer(aval, self.holder)

    def _read(self, vs: Sequence[Var], sources: dict[Var, int], like: Node) -> Read:
        """How the turns get theirs of these."""
        if all(v.tape is None for v in vs):
            return Table(tuple([v.value for v in vs]), vs[0].aval.dtype)
        found = self.views.regular(vs)
        if found is None and size_of(vs[0].aval) >= COPIED:
            return Choice(tuple([sources.setdefault(self.get(v, like), len(sources)) for v in vs]))
        if found is None:
            (array,) = self.emit(like, stacked, [self.get(v, like) for v in vs], {})
            return Row(sources.setdefault(array, len(sources)), 0, 1)
        what, start, step = found
        if what[0] == "window":
            array = self.get(self.views.part[vs[0]][0], like)
            return Window(sources.setdefault(array, len(sources)), start, step, what[2])
        _, region, p, o = what
        return Row(sources.setdefault(self.rows[id(region), p, o], len(sources)), start[0], step[0])


def _starts(node: Node) -> Sequence[tuple[int, ...]]:
    """Where the operands of a node that joins them begin."""
    if node.op is joined:
        return node.params["starts"]  # type: ignore[no-any-return]
    axis = node.params["axis"]
    sizes = [v.aval.shape[axis] for v in node.inputs]
    ndim = node.outputs[0].aval.ndim
    return [tuple([at if a == axis else 0 for a in range(ndim)]) for at in np.cumsum([0, *sizes[:-1]]).tolist()]
