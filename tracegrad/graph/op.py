"""The op that runs cells over a structure of graphs, and its derivative, which is that op again. Uses bodies, control.

A cell is a tape for one node. Its inputs are the rows of its slots, then its *streams* (arrays with a row for each node
of the kind), then what is *shared* by all nodes. Its outputs are the rows of its ports, then others: each is stacked, a
row for each node, or summed over the nodes.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..backward import Linearized, active_path, linearize
from ..body import BodyOp
from ..control import hoisted, varied
from ..inference import TYPED
from ..lower import replay
from ..op import more_outputs
from ..ops import add, astype, dot_general, neg, reduce_sum, reshape, transpose, zeros_of
from ..ops.collectives import vary
from ..passes import dead_code, optimize, program
from ..recording import Recording
from ..tape import Aval, Node, Tape, Var, aval_of, make_aval
from ..tracer import new_input, operand
from ..varying import marked
from .structure import Joint, Structure, layouts, part_of, places


class Cell(NamedTuple):
    """How the values of a kind's nodes go into its body and come out of it.

    streams: how many inputs are streams; what the slots do not fill and the streams neither is shared.
    summed: for each output whether it is summed over the nodes. Rows of ports are not.
    cotangents: inputs of which all outputs are linear functions. A node where they are 0 has no part in the result,
      whatever else is in it: not even an infinity.
    """

    streams: int
    summed: tuple[bool, ...]
    cotangents: tuple[int, ...] = ()


class Side(NamedTuple):
    """A kind as one pass over its graphs sees it: what its nodes read and make, and the inputs of its body by use."""

    reads: tuple[Joint, ...]
    makes: tuple[Joint, ...]
    rows: int
    streams: range
    shared: range
    made: int


def sides(
    bodies: Sequence[Tape], structure: Structure, cells: Sequence[Cell], leaves: Sequence[int], transposed: bool
) -> list[Side]:
    found = []
    for body, kind, cell in zip(bodies, structure.kinds, cells, strict=True):
        reads, makes = (kind.ports, kind.slots) if transposed else (kind.slots, kind.ports)
        rows, made = (sum(leaves[p] for p, _ in joints) for joints in (reads, makes))
        streams = range(rows, rows + cell.streams)
        found.append(Side(reads, makes, rows, streams, range(streams.stop, len(body.inputs)), made))
    return found


def graph(
    integers: Any,
    given: Sequence[Sequence[Any]],
    bodies: Sequence[Tape],
    structure: Structure,
    cells: Sequence[Cell],
    leaves: Sequence[int],
    transposed: bool = False,
) -> dict[tuple[int, int], Any]:
    """Runs the bodies over a structure.

    Args:
      integers: the array that `Layout` describes.
      given: for each kind its streams, a row for each node in the order of the structure, then what its nodes share.
      leaves: of how many arrays a row of each pool is made.
      transposed: whether all edges are turned round, and the last phase is the first.

    Returns:
      The outputs that are no rows, by kind and place among the outputs of its body.
    """
    apart = sides(bodies, structure, cells, leaves, transposed)
    slim, operands = [], [integers]
    for body, side, values in zip(bodies, apart, given, strict=True):
        # What depends on shared values alone is computed once, and not kept for each node.
        body, shared = hoisted(body, side.shared.start, list(values[len(side.streams) :]))
        slim.append(body)
        operands += [*values[: len(side.streams)], *shared]
    axes = frozenset().union(*[aval_of(x).varying for x in operands])
    slim = [varied(body, [axes] * len(body.outputs)) for body in slim]
    results = tuple([(k, i) for k, body in enumerate(slim) for i in range(apart[k].made, len(body.outputs))])
    outs = graph_op(
        *[vary(x, axes) for x in operands],
        bodies=tuple(slim), structure=structure, cells=tuple(cells), leaves=tuple(leaves), results=results,
        transposed=transposed,
    )  # fmt: skip
    return dict(zip(results, outs, strict=True))


def _types(
    *avals: Aval,
    bodies: tuple[Tape, ...],
    structure: Structure,
    cells: tuple[Cell, ...],
    results: tuple[tuple[int, int], ...],
    **params: Any,
) -> list[Aval]:
    found = []
    for k, i in results:
        a = bodies[k].outputs[i].aval
        shape = a.shape if cells[k].summed[i] else (structure.kinds[k].rows, *a.shape)
        found.append(make_aval(shape, a.dtype, False, a.varying))
    return found


# -- the value


def _run(
    integers: Any,
    *operands: Any,
    bodies: tuple[Tape, ...],
    structure: Structure,
    cells: tuple[Cell, ...],
    leaves: tuple[int, ...],
    results: tuple[tuple[int, int], ...],
    transposed: bool,
) -> tuple[Any, ...]:
    apart = sides(bodies, structure, cells, leaves, transposed)
    layout = layouts(structure)[0]
    bases, sizes = places(structure)[0 if transposed else 1]
    read: list[list[Any]] = []
    values = iter(operands)
    for side in apart:
        read.append([next(values) for _ in range(side.streams.start, side.shared.stop)])

    def zeros(shape: tuple[int, ...], aval: Aval) -> Any:
        return marked(jnp.zeros(shape, aval.dtype), aval.varying)

    # The row after the last is that of no node, and stays zero.
    pools: list[tuple[Any, ...]] = [()] * structure.pools()
    for body, side in zip(bodies, apart, strict=True):
        for joints, ends in ((side.makes, body.outputs), (side.reads, body.inputs)):
            at = 0
            for p, _ in joints:
                avals = [v.aval for v in ends[at : at + leaves[p]]]
                at += leaves[p]
                pools[p] = pools[p] or tuple([zeros((sizes[p] + 1, *a.shape), a) for a in avals])
    outs = {}
    for k, i in results:
        a = bodies[k].outputs[i].aval
        outs[k, i] = zeros(a.shape if cells[k].summed[i] else (structure.kinds[k].rows, *a.shape), a)

    runs = [
        _over_lanes(
            body, kind.lanes, side.shared.start, tuple([i for k, i in results if k == n and cell.summed[i]]),
            cell.cotangents,
        )
        for n, (body, kind, side, cell) in enumerate(zip(bodies, structure.kinds, apart, cells, strict=True))
    ]  # fmt: skip
    factors = [
        [zeros((kind.rows, *a.shape), a) for a in run.kept] for run, kind in zip(runs, structure.kinds, strict=True)
    ]

    def stepper(k: int) -> Callable[[Any, Any], Any]:
        side, kind, where = apart[k], structure.kinds[k], layout[k]
        edges = [part_of(integers, part) for part in (where.ports if transposed else where.slots)]
        valid = part_of(integers, where.valid) != 0
        own = [i for j, i in results if j == k and i not in runs[k].later]

        def step(t: Any, state: Any) -> Any:
            pools, outs, factors = state
            first = t * kind.lanes

            def lanes(x: Any) -> Any:
                return lax.dynamic_slice_in_dim(x, first, kind.lanes)

            def written(x: Any, new: Any, base: int = 0) -> Any:
                return lax.dynamic_update_slice_in_dim(x, new.astype(x.dtype), base + first, 0)

            rows = []
            for (p, count), at in zip(side.reads, edges, strict=True):
                if leaves[p]:
                    index = lax.dynamic_index_in_dim(at, t, keepdims=False)
                    for x in pools[p]:
                        # In bounds, since they are made so, and nobody else makes them.
                        found = x.at[index[0] if count == 1 else index].get(mode="promise_in_bounds")
                        rows.append(found if count == 1 else found.sum(0, dtype=x.dtype))
            streams, shared = read[k][: len(side.streams)], read[k][len(side.streams) :]
            made, totals, kept = runs[k](lanes(valid), *rows, *map(lanes, streams), *shared)
            at, pools = 0, list(pools)
            for (p, _), base in zip(side.makes, bases[k], strict=True):
                pools[p] = tuple([written(x, made[at + n], base) for n, x in enumerate(pools[p])])
                at += leaves[p]
            outs = dict(outs)
            for i in own:
                x = outs[k, i]
                outs[k, i] = x + totals[i].astype(x.dtype) if i in totals else written(x, made[i])
            factors = list(factors)
            factors[k] = list(map(written, factors[k], kept))
            return pools, outs, factors

        return step

    state: Any = (pools, outs, factors)
    for phase in reversed(structure.phases) if transposed else structure.phases:
        steps = {k: stepper(k) for k in phase}
        bounds = {k: part_of(integers, layout[k].bounds) for k in phase}
        if len(phase) == 1:
            (k,) = phase
            end = bounds[k][2]
            if structure.kinds[k].steps == 1:
                state = steps[k](0, state)
            else:
                # The difference is a zero of the type of `end`, and varies as it does.
                state = _loop(end - end, end, steps[k], state, transposed)
            continue

        def turn(r: Any, state: Any, steps: Any = steps, bounds: Any = bounds) -> Any:
            for k, step in steps.items():
                start, end = bounds[k][1 + r], bounds[k][2 + r]
                state = _loop(start, end, step, state, transposed)
            return state

        count = bounds[phase[0]][0]
        state = _loop(count - count, count, turn, state, transposed)
    _, outs, factors = state
    for k, run in enumerate(runs):
        if run.later:
            end = part_of(integers, layout[k].bounds)[-1]
            sums = run.summed(factors[k], {i: outs[k, i] for i in run.later}, structure.kinds[k].steps, end)
            outs.update(((k, i), x) for i, x in sums.items())
    return tuple([outs[r] for r in results])


def _loop(start: Any, end: Any, step: Callable[[Any, Any], Any], state: Any, backwards: bool) -> Any:
    """`state` after the steps from `start` to before `end`, or from the last of them to the first."""
    return lax.fori_loop(start, end, (lambda i, s: step(start + end - 1 - i, s)) if backwards else step, state)


CHUNK = 128
"""Of how many rows a product of matrices is made at once, where they are summed once all steps have run."""


class _Lanes:
    """A function that runs a body for many nodes, of which its first inputs, so many, have a row each.

    It takes which lanes are nodes, then the inputs, and returns the stacked outputs, the sums over the lanes of some of
    those that are summed, and rows from which the functions in `later` make the others, once all steps have run. Those
    are products of matrices so large that adding one up in each step costs more than keeping its rows.
    """

    def __init__(self, body: Tape, size: int, lanes: int, summed: tuple[int, ...], cotangents: tuple[int, ...]) -> None:
        self.size, self.cotangents = size, cotangents
        self.in_axes = (0,) * lanes + (None,) * (len(body.inputs) - lanes)
        at_once, at_last = _Sums(body, lanes), _Sums(body, lanes)
        self.totals: dict[int, _Total] = {}
        self.later: dict[int, _Total] = {}
        for i in summed:
            alone, v = _Sums(body, lanes), body.outputs[i]
            alone.total(v)
            row = sum(math.prod(u.aval.shape) for u in alone.factors)
            # A sum is read twice and written once in each step, a row is written and read.
            if alone.products and 3 * math.prod(v.aval.shape) > 2 * size * row:
                self.later[i] = at_last.total(v)
            else:
                self.totals[i] = at_once.total(v)
        self.stacked = [i for i in range(len(body.outputs)) if i not in summed]
        self.kept = [strong(v.aval) for v in at_last.factors]
        self.count = len(at_once.factors)
        wanted = [*[body.outputs[i] for i in self.stacked], *at_once.factors, *at_last.factors]
        self.run = program(dead_code(body.replace(outputs=tuple(wanted))))

    def __call__(self, valid: Any, *values: Any) -> tuple[dict[int, Any], dict[int, Any], list[Any]]:
        outs = jax.vmap(self.run, self.in_axes, axis_size=valid.shape[0])(*values)
        # A lane that is no node's, or owes nothing, must not spoil a sum, whatever is in it.
        owing = [jnp.any(values[i].reshape(len(valid), -1) != 0, 1) for i in self.cotangents]
        live = valid & functools.reduce(operator.or_, owing) if owing else valid
        n = len(self.stacked)
        made = [_where(live, x) for x in outs[:n]] if owing else outs[:n]
        rows = [_where(live, x) for x in outs[n:]]
        totals = {i: total(rows[: self.count]) for i, total in self.totals.items()}
        return dict(zip(self.stacked, made, strict=True)), totals, rows[self.count :]

    def summed(self, rows: list[Any], totals: dict[int, Any], steps: int, end: Any) -> dict[int, Any]:
        """The totals that are made of the rows of all steps: of the `end` steps that there are, many at once."""
        chunk = 1
        while 2 * chunk <= steps and 2 * chunk * self.size <= CHUNK:
            chunk *= 2

        def step(n: Any, totals: dict[int, Any]) -> dict[int, Any]:
            some = [lax.dynamic_slice_in_dim(x, n * chunk * self.size, chunk * self.size) for x in rows]
            return {i: totals[i] + total(some).astype(totals[i].dtype) for i, total in self.later.items()}

        return lax.fori_loop(end - end, (end + (chunk - 1)) // chunk, step, totals)  # type: ignore[no-any-return]


def _over_lanes(body: Tape, size: int, lanes: int, summed: tuple[int, ...], cotangents: tuple[int, ...]) -> _Lanes:
    """`_Lanes` of a body, made once."""
    key = (_Lanes, size, lanes, summed, cotangents)
    if key not in body.made:
        body.made[key] = _Lanes(body, size, lanes, summed, cotangents)
    return body.made[key]  # type: ignore[no-any-return]


def _where(live: Any, x: Any) -> Any:
    return jnp.where(live.reshape(-1, *(1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))


_Total = Callable[[Sequence[Any]], Any]


class _Sums:
    """How to sum values of a body over lanes: an outer product of a lane's values is summed as one matrix product.

    `factors` are the values that are needed of each lane, `products` how many such products there are.
    """

    def __init__(self, body: Tape, lanes: int) -> None:
        self.made = {v: node for node in body.nodes for v in node.outputs}
        self.factors: dict[Var, int] = {}
        self.products = 0
        self.differ: set[Var] = set(body.inputs[:lanes])
        for node in body.nodes:
            if not self.differ.isdisjoint(node.inputs):
                self.differ.update(node.outputs)

    def total(self, v: Var) -> _Total:
        """The sum of a value, of the rows of the factors."""
        node = self.made.get(v)
        if node is not None and v in self.differ:
            op, params = node.op, node.params
            if op is dot_general and self.differ.issuperset(node.inputs):
                self.products += 1
                i, j = map(self.factor, node.inputs)
                contracted, batch = [[tuple([a + 1 for a in axes]) for axes in pair] for pair in params["dims"]]
                new = {**params, "dims": (tuple([(0, *axes) for axes in contracted]), tuple(batch))}
                return lambda rows: op.lower(rows[i], rows[j], **new)
            if op in _LINEAR:
                inner = self.total(node.inputs[0])
                return lambda rows: op.lower(inner(rows), **params)
            if op is add and all(u.aval.shape == v.aval.shape for u in node.inputs):
                a, b = map(self.total, node.inputs)
                return lambda rows: a(rows) + b(rows)
        i = self.factor(v)
        return lambda rows: jnp.sum(rows[i], 0, dtype=v.aval.dtype)

    def factor(self, v: Var) -> int:
        return self.factors.setdefault(v, len(self.factors))


_LINEAR = frozenset([astype, neg, reduce_sum, reshape, transpose])
"""Ops of one operand for which the sum of the values is the value of the sum."""


# -- the derivative


def _vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    params = node.params
    bodies, structure, results = params["bodies"], params["structure"], params["results"]
    cells, leaves, transposed = params["cells"], params["leaves"], params["transposed"]
    apart = sides(bodies, structure, cells, leaves, transposed)
    at, starts = 1, []
    for side in apart:
        starts.append(at)
        at += side.shared.stop - side.streams.start
    own = [needs[start : start + s.shared.stop - s.rows] for start, s in zip(starts, apart, strict=True)]
    flows = _active_rows(bodies, apart, leaves, own)
    given = {r: ct for r, ct in zip(results, cts, strict=True) if ct is not None}

    # What the second part reads of a node is a stream of it, as what went in was; what it reads of all is shared.
    lins: list[Linearized] = []
    forwards, new_cells, more = [], list(cells), list(results)
    held: list[dict[tuple[str, int], tuple[int, int]]] = []
    for k, (body, side) in enumerate(zip(bodies, apart, strict=True)):
        need = [f for p, _ in side.reads for f in flows[p]] + list(own[k])
        wanted = [f for p, _ in side.makes for f in flows[p]]
        wanted += [(k, i) in given for i in range(side.made, len(body.outputs))]
        lin = linearize(body, need, wanted)
        lins.append(lin)
        outputs = list(lin.forward.outputs)
        place = {}
        for kind, i in lin.saved:
            if kind == "residual":
                place[kind, i] = (k, len(body.outputs) + i)
            elif kind == "output" and (k, i) in results and not cells[k].summed[i]:
                place[kind, i] = (k, i)
            elif kind == "output" or i < side.rows:
                place[kind, i] = (k, len(outputs))
                outputs.append((lin.forward.inputs if kind == "input" else lin.forward.outputs)[i])
        held.append(place)
        more += [(k, i) for i in range(len(body.outputs), len(outputs))]
        forwards.append(lin.forward.replace(outputs=tuple(outputs)))
        new_cells[k] = cells[k]._replace(summed=cells[k].summed + (False,) * (len(outputs) - len(body.outputs)))
    extra = more_outputs(node, bodies=tuple(forwards), cells=tuple(new_cells), results=tuple(more))
    values = dict(zip(more, [*node.outputs[: len(results)], *extra], strict=True))

    backs, back_cells, operands, owners = [], [], [], {}
    for k, (lin, side) in enumerate(zip(lins, apart, strict=True)):
        inputs = node.inputs[starts[k] :]
        each: list[tuple[Any, Any]] = [(s, values[r]) for s, r in held[k].items()]
        rest: list[tuple[Any, Any]] = []
        for s in lin.saved:
            if s not in held[k]:
                (each if s[1] in side.streams else rest).append((s, inputs[s[1] - side.rows]))
        for i in range(side.made, len(bodies[k].outputs)):
            if (k, i) in given:
                (rest if cells[k].summed[i] else each).append((("ct", i), given[k, i]))
        back, made = _backward_cell(node, bodies[k], lin, side, flows, [s for s, _ in each], [s for s, _ in rest])
        for i, at in made.items():
            owners[k, at] = starts[k] + i - side.rows
        rows = len(back.outputs) - len(made)
        summed = (False,) * rows + tuple([i in side.shared for i in made])
        backs.append(back)
        count = sum(f for p, _ in side.makes for f in flows[p])
        linear = (*range(count), *[count + n for n, (s, _) in enumerate(each) if s[0] == "ct"])
        back_cells.append(Cell(len(each), summed, () if any(s[0] == "ct" for s, _ in rest) else linear))
        operands.append([x for _, x in (*each, *rest)])
    outs = graph(
        node.inputs[0], operands, backs, structure, back_cells, [sum(f) for f in flows], transposed=not transposed
    )
    grads: list[Any] = [None] * len(node.inputs)
    for r, i in owners.items():
        grads[i] = outs[r]
    return grads


def strong(aval: Aval) -> Aval:
    """This type, not weak: rows of several kinds stand in one array."""
    return make_aval(aval.shape, aval.dtype, False, aval.varying)


def _active_rows(
    bodies: Sequence[Tape], apart: Sequence[Side], leaves: Sequence[int], needs: Sequence[Sequence[bool]]
) -> list[list[bool]]:
    """For each array of each pool's rows whether it depends on what needs a cotangent, once all nodes have run."""
    flows = [[False] * n for n in leaves]
    while True:
        before = [list(f) for f in flows]
        for body, side, need in zip(bodies, apart, needs, strict=True):
            inputs = [f for p, _ in side.reads for f in flows[p]] + list(need)
            active = {v for v, n in zip(body.inputs, inputs, strict=True) if n}
            active_path(body.nodes, active)
            at = 0
            for p, _ in side.makes:
                for n in range(leaves[p]):
                    flows[p][n] |= body.outputs[at + n] in active
                at += leaves[p]
        if flows == before:
            return flows


def _backward_cell(
    node: Node,
    body: Tape,
    lin: Linearized,
    side: Side,
    flows: Sequence[Sequence[bool]],
    each: Sequence[tuple[str, int]],
    rest: Sequence[tuple[str, int]],
) -> tuple[Tape, dict[int, int]]:
    """The cell of the turned graph: from the cotangents of what a node makes to those of what it reads.

    Its streams are `each`, and what is shared is `rest`: values that are saved, and cotangents of outputs. Returns also
    at which place among its outputs the cotangent of each stream and shared input of `body` is.
    """
    flowing = [f for p, _ in side.makes for f in flows[p]]
    saved = dict(zip(lin.saved, lin.backward.inputs, strict=False))
    with Recording(f"{body.name}_backward", axes=body.axes, blame=node) as tape:
        values: dict[Any, Any] = {
            ("ct", i): new_input(tape, strong(body.outputs[i].aval)) for i, f in enumerate(flowing) if f
        }
        for s in (*each, *rest):
            values[s] = new_input(tape, strong((body.outputs[s[1]] if s[0] == "ct" else saved[s]).aval))
        returned = replay(tape, lin.backward, [values[s] for s in lin.saved] + [values["ct", i] for i in lin.cts])
        grads = dict(zip(lin.grads, returned, strict=False))
        reads = [f for p, _ in side.reads for f in flows[p]]
        results = [
            grads[i] if i in grads else vary(zeros_of(body.inputs[i]), body.inputs[i].aval.varying)
            for i, f in enumerate(reads)
            if f
        ]
        made = {i: len(results) + n for n, i in enumerate(i for i in lin.grads if i >= side.rows)}
        results += [grads[i] for i in made]
        return optimize(tape.finished([operand(tape, astype(v, dtype=aval_of(v).dtype)) for v in results])), made


graph_op: BodyOp = BodyOp("graph", _run, _vjp, shape=_types, multiple=True, axes=TYPED)
"""Runs bodies over a structure of graphs."""
