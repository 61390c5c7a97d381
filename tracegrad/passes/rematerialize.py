"""Rematerialisation: what is kept for the gradient and what is computed again, by minimum cuts.

A loop and the loop of its gradient are one place to cut: what the first stacks for the second is chosen by a minimum
cut of the body. The steps before the gradient that no loop holds are cut in groups, one after another where few bytes
go from one to the next (Chen et al., "Training deep nets with sublinear memory cost", 2016): what is needed of a group
is computed again when the gradient comes to it. A plan says how many groups there are, and what work is done again to
save a byte. Of a program there are some dozens; those are returned that need less memory than all that do less work.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .. import ops
from ..errors import INTERNAL
from ..inference import TYPED
from ..ops.collectives import communicates
from ..ops.shape import zeros_of
from ..recording import Recording
from ..tape import Node, Tape, Var, make_aval
from ..tracer import new_input
from ..verify import verified
from .common_subexpressions import common_subexpressions
from .dead_code import dead_code
from .mincut import cut

CHEAP = 8.0
"""Operations a byte of the result up to which computing a value again costs less than reading it from memory."""

PRICES = 4
"""How many different prices of a byte are tried."""

GROUPS = (2, 4, 6, 8, 12, 16, 24, 32)
"""In how many groups the steps outside loops are cut."""

LATE = 8
"""Where most is held when this part of the gradient is over, there are two, one after another."""

_POINTWISE = frozenset([ops.alias, ops.astype, ops.integer_pow, ops.where, ops.broadcast_in_dim, ops.reshape, ops.iota])
_REDUCTIONS = frozenset([ops.reduce_sum, ops.reduce_any, ops.reduce_max, ops.reduce_min, ops.reduce_prod])
_SLOW = 8
"""Operations an element of a function such as exp takes, or of what a step of another kind computes."""

_CALL = frozenset([frozenset(["body"]), frozenset(["body", "policy", "prevent_cse"])])
"""The parameters of steps that run a body once, as it is."""


class Plan(NamedTuple):
    """How a program computes some values again, and what that is estimated to take.

    Attributes:
      peak: the bytes that its values take when they take most.
      work: the operations that are done again.
      price, groups: what may be done again for a byte, and in how many groups: what makes the plan. 0 for none.
      again: how many steps of each op are run again.
      kept: the bytes that are kept for the gradient, of what was there to choose from, and `plain`, those without it.
    """

    peak: int
    work: float = 0.0
    price: float = 0.0
    groups: int = 0
    again: Mapping[str, int] = MappingProxyType({})
    kept: int = 0
    plain: int = 0


def plans(tape: Tape) -> list[Plan]:
    """Ways to run `tape` in less and less memory with more and more work: first as it is."""
    whole = inlined(tape)
    found = [Plan(peak(whole))]
    for price in _prices(whole) if _differentiates(whole) else ():
        for groups in GROUPS:
            cuts = _Pass(price, groups)
            new = cuts.run(whole)
            if cuts.again:
                found.append(Plan(peak(new), cuts.work, price, groups, cuts.again, cuts.kept, cuts.plain))
            if not cuts.grouped:
                break
    best: list[Plan] = []
    for plan in sorted(found, key=lambda p: (p.work, p.peak)):
        if not best or plan.peak < best[-1].peak:
            best.append(plan)
    return best


def _differentiates(tape: Tape) -> bool:
    """Whether a program has steps of a gradient, or runs one that has."""
    return any(node.grad or any(map(_differentiates, _bodies(node))) for node in tape.nodes)


def rematerialized(tape: Tape, plan: Plan) -> Tape:
    """`tape` as this plan, of `plans(tape)`, runs it."""
    return verified(_Pass(plan.price, plan.groups).run(inlined(tape))) if plan.groups else tape


# -- what steps cost


def bytes_of(v: Var) -> int:
    aval = v.aval
    return math.prod(aval.shape) * int(getattr(aval.dtype, "itemsize", 8))


def _bodies(node: Node) -> list[Tape]:
    found: list[Tape] = []
    if node.op.axes is not TYPED:
        return found
    for value in node.params.values():
        found += [part for part in (value if type(value) is tuple else (value,)) if isinstance(part, Tape)]
    return found


def work_of(node: Node) -> float:
    """About how many operations a step takes."""
    out: int = sum(math.prod(v.aval.shape) for v in node.outputs)
    if bodies := _bodies(node):
        times = node.params.get("length") or node.params.get("size") or 1
        return float(times * sum(work_of(n) for body in bodies for n in body.nodes))
    shapes = [v.aval.shape for v in node.inputs]
    if node.op is ops.dot_general:
        (contracted, _), _ = node.params["dims"]
        return float(2 * out * math.prod(shapes[0][a] for a in contracted))
    if node.op is ops.conv_op:
        return float(2 * out * math.prod(shapes[1]) / max(1, *shapes[1]))
    if _pointwise(node):
        return float(out)
    read = sum(math.prod(shape) for shape in shapes)
    if node.op in _REDUCTIONS:
        return float(read)
    return float(_SLOW * (read + out))


def _pointwise(node: Node) -> bool:
    return len(node.outputs) == 1 and (node.op.numbers or node.op in _POINTWISE)


def _price(node: Node) -> float:
    """Operations a byte of the result."""
    return work_of(node) / max(1, sum(map(bytes_of, node.outputs)))


def _prices(tape: Tape) -> list[float]:
    """What may be paid for a byte: a few prices, from next to nothing to whatever it costs."""
    found: set[float] = set()

    def collect(part: Tape) -> None:
        for node in part.nodes:
            if not node.grad:
                found.add(float(f"{_price(node):.2g}"))
            for body in _bodies(node):
                collect(body)

    collect(tape)
    dear = sorted(p for p in found if p > CHEAP)
    some = [dear[i * len(dear) // PRICES] for i in range(PRICES)] if len(dear) > PRICES else dear
    return [CHEAP, *dict.fromkeys([*some, math.inf])]


def only_once(node: Node) -> bool:
    """Whether a step must not run a second time, whatever it costs.

    Collectives, at which devices wait for one another; primitives of JAX's that are not known, which may have effects;
    and ops of the user's, of which nothing is known.
    """
    code = getattr(node.op.lower, "__code__", None)
    if (
        "eqn" in node.params
        or node.params.get("axis_name") is not None
        or (code is not None and not INTERNAL[code.co_filename])
    ):
        return True
    return any(communicates(body) or any(map(only_once, body.nodes)) for body in _bodies(node))


def peak(tape: Tape) -> int:
    """The most bytes that the values of a program take at one time, of those that it neither takes nor returns."""
    return _peak(tape)[0]


def _peak(tape: Tape) -> tuple[int, int]:
    """The most bytes that are held at a step, and the first such step.

    This is an estimate: XLA decides what it writes to memory. A value that is computed element by element, and read so
    soon after, is taken not to be written.
    """
    readers: dict[Var, list[int]] = {}
    for i, node in enumerate(tape.nodes):
        for v in node.inputs:
            readers.setdefault(v, []).append(i)
    results = set(tape.outputs)
    ends: dict[int, int] = {}
    held = most = where = 0
    for i, node in enumerate(tape.nodes):
        for v in node.outputs:
            at = readers.get(v, [])
            if v in results or not at or (_pointwise(node) and _fused(tape, node, at)):
                continue
            held += bytes_of(v)
            ends[at[-1]] = ends.get(at[-1], 0) + bytes_of(v)
        inner = 0
        if bodies := _bodies(node):
            times = 1 if "length" in node.params else node.params.get("size") or 1
            inner = max(map(peak, bodies)) * int(times)
        if held + inner > most:
            most, where = held + inner, i
        held -= ends.pop(i, 0)
    return most, where


def _fused(tape: Tape, node: Node, readers: Sequence[int]) -> bool:
    return all(
        tape.nodes[i].grad is node.grad and (_pointwise(tape.nodes[i]) or tape.nodes[i].op in _REDUCTIONS)
        for i in readers
    )


# -- tapes


def _like(v: Var, length: int | None = None) -> Var:
    """A new value of the type of another one, or of so many of them stacked."""
    aval = v.aval
    new = type(v).__new__(type(v))
    new.tape, new.value = v.tape, None
    new.aval = aval if length is None else make_aval((length, *aval.shape), aval.dtype, aval.weak_type, aval.varying)
    return new


def _copied(node: Node, new: dict[Var, Var]) -> Node:
    """A step as one of the gradient's, with other operands; `new` learns what its outputs are now."""
    inputs = [new.get(v, v) for v in node.inputs]
    outputs = tuple([_like(v) for v in node.outputs])
    new.update(zip(node.outputs, outputs, strict=True))
    return Node(node.op, inputs, node.params, outputs, node.code, node.offset, True, node.of)


def inlined(tape: Tape) -> Tape:
    """`tape` with the steps that run a body once replaced by those of the body."""
    if not any(_calls(node) or _is_loop(node) for node in tape.nodes):
        return tape
    nodes: list[Node] = []
    instead: dict[Var, Var] = {}
    for node in tape.nodes:
        node = node.with_inputs([instead.get(v, v) for v in node.inputs])
        body = node.params.get("body")
        if _is_loop(node) and (flat := inlined(node.params["body"])) is not body:
            node.params = {**node.params, "body": flat}
        if not _calls(node) or not isinstance(body, Tape) or len(body.inputs) != len(node.inputs):
            nodes.append(node)
            continue
        body = inlined(body)
        env: dict[Var, Var] = dict(zip(body.inputs, node.inputs, strict=True))
        for inner in body.nodes:
            copy = _copied(inner, env)
            copy.grad = node.grad or inner.grad
            nodes.append(copy)
        instead.update((v, env.get(out, out)) for v, out in zip(node.outputs, body.outputs, strict=True))
    outputs = tuple([instead.get(v, v) for v in tape.outputs])
    return dead_code(common_subexpressions(tape.replace(nodes=tuple(nodes), outputs=outputs)))


def _computed_again(nodes: Sequence[Node], needed: Iterable[Var], there: Callable[[Var], bool]) -> list[Node]:
    """The steps that make `needed` from the values that are there, in order."""
    wanted = {v for v in needed if not there(v)}
    again = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            again.append(node)
            wanted.update(v for v in node.inputs if not there(v))
    return again[::-1]


# -- the pass


class _Pass:
    """One plan: what is done again for a byte up to this price, in so many groups."""

    def __init__(self, price: float, groups: int) -> None:
        self.price, self.groups = price, groups
        self.again: Counter[str] = Counter()
        self.work = 0.0
        self.kept = self.plain = 0
        self.grouped = False
        self.times = 1
        self.bodies: dict[int, tuple[Tape, Tape]] = {}

    def run(self, tape: Tape) -> Tape:
        tape = tape.replace(nodes=tuple(map(self.inside, tape.nodes)))
        if any(node.grad for node in tape.nodes):
            tape = self.outside(self.loops(tape))
        return tape

    def inside(self, node: Node) -> Node:
        """A step with its bodies rematerialised, where they hold a gradient of their own."""
        if node.grad:
            return node
        changed = {}
        outer = self.times
        self.times *= int(node.params.get("length") or node.params.get("size") or 1)
        for key, value in node.params.items():
            parts = value if type(value) is tuple else (value,)
            if any(isinstance(part, Tape) for part in parts):
                new = tuple([self.body(part) if isinstance(part, Tape) else part for part in parts])
                if any(a is not b for a, b in zip(parts, new, strict=True)):
                    changed[key] = new if type(value) is tuple else new[0]
        self.times = outer
        if not changed:
            return node
        params = {**node.params, **changed}
        return Node(node.op, node.inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)

    def body(self, body: Tape) -> Tape:
        known = self.bodies.get(id(body))
        if known is None:
            before = sum(self.again.values())
            new = self.run(inlined(body))
            known = self.bodies[id(body)] = body, new if sum(self.again.values()) > before else body
        return known[1]

    def once(self, node: Node) -> bool:
        return _price(node) > self.price or only_once(node)

    def note(self, nodes: Sequence[Node], times: int = 1) -> None:
        times *= self.times
        self.again.update(node.op.name for node in nodes)
        self.work += times * sum(work_of(node) + sum(math.prod(v.aval.shape) for v in node.outputs) for node in nodes)

    # -- loops

    def loops(self, tape: Tape) -> Tape:
        """Of each loop and those that read what it stacks, the stacked values that the body's cut says."""
        if not any(map(_is_loop, tape.nodes)):
            return tape
        readers: dict[Var, list[tuple[Node, int]]] = {}
        for node in tape.nodes:
            for i, v in enumerate(node.inputs):
                readers.setdefault(v, []).append((node, i))
        results = set(tape.outputs)
        made = {v for node in tape.nodes for v in node.outputs}
        nodes: dict[int, Node] = {id(node): node for node in tape.nodes}
        for node in tape.nodes:
            if not _is_loop(node):
                continue
            first, length = node.params["carried"], node.params["length"]
            links: dict[int, list[tuple[Node, int]]] = {}
            for i in range(first, len(node.outputs)):
                v = node.outputs[i]
                reading = readers.get(v, [])
                if v not in results and reading and all(_scans(b, at, length) and b is not node for b, at in reading):
                    links[i] = reading
            if links and any(b.grad for reading in links.values() for b, _ in reading):
                self.pair(node, links, nodes, made)
        return dead_code(tape.replace(nodes=tuple([nodes[id(node)] for node in tape.nodes])))

    def pair(
        self, node: Node, links: dict[int, list[tuple[Node, int]]], nodes: dict[int, Node], made: set[Var]
    ) -> None:
        forward = nodes[id(node)]
        params = forward.params
        body, carried, length = params["body"], params["carried"], params["length"]
        constants = carried + params["scanned"]
        outer = dict(zip(body.inputs, forward.inputs, strict=True))
        carry, scanned = set(body.inputs[:carried]), set(body.inputs[carried:constants])
        readers = {id(b): b for reading in links.values() for b, _ in reading}
        read_there = {v for b in readers.values() for v in b.inputs}

        # What is stacked anyway, and what comes from outside and is held anyway, costs nothing.
        stacked = {
            v: forward.outputs[i] for i, v in enumerate(body.outputs) if i >= carried and i not in links
        }  # fmt: skip
        given = set(stacked) | {v for v, o in outer.items() if v not in carry and (o not in made or o in read_there)}

        def cost(v: Var) -> int:
            return bytes_of(v) if v not in outer or v in carry or v in scanned else bytes_of(v) // length

        needed = list(dict.fromkeys(body.outputs[i] for i in links))
        kept = cut(body.nodes, needed, given=given, once=self.once, cost=cost)
        self.plain += self.times * length * sum(map(bytes_of, needed))
        self.kept += self.times * length * sum(map(cost, kept))
        if set(kept) >= set(needed):
            return
        new = [v for v in kept if v not in outer or v in carry]
        rows = [_like(v, length) for v in new]
        stacked.update(zip(new, rows, strict=True))
        stay = [i for i in range(len(body.outputs)) if i not in links]
        outputs = (*[body.outputs[i] for i in stay], *new)
        nodes[id(node)] = Node(
            forward.op, forward.inputs, {**params, "body": dead_code(body.replace(outputs=outputs))},
            (*[forward.outputs[i] for i in stay], *rows), forward.code, forward.offset, forward.grad, forward.of,
        )  # fmt: skip

        for key, original in readers.items():
            lost = {
                original.params["body"].inputs[at]: body.outputs[i]
                for i, reading in links.items()
                for b, at in reading
                if b is original
            }
            places = {v: (outer[v], v in scanned) for v in outer if v not in carry}
            places |= {v: (rows, True) for v, rows in stacked.items()}
            nodes[key] = self.reader(nodes[key], lost, body, places)

    def reader(self, node: Node, lost: dict[Var, Var], body: Tape, places: dict[Var, tuple[Var, bool]]) -> Node:
        """A loop that computes again the inputs in `lost`, from what there is of the body of another loop.

        `places` says where each value of that body stands outside, and whether it is one of a stack.
        """
        params = node.params
        inner, carried = params["body"], params["carried"]
        constants = carried + params["scanned"]
        operand = dict(zip(inner.inputs, node.inputs, strict=True))
        slices = [v for v in inner.inputs[carried:constants] if v not in lost]
        fixed = list(inner.inputs[constants:])
        own = {(operand[v], True): v for v in slices} | {(operand[v], False): v for v in fixed}
        new: dict[Var, Var] = {}

        def there(v: Var) -> bool:
            if v.tape is None or v in new:
                return True
            if v not in places:
                return False
            place = places[v]
            if place not in own:
                own[place] = _like(v)
                operand[own[place]] = place[0]
                (slices if place[1] else fixed).append(own[place])
            new[v] = own[place]
            return True

        again = _computed_again(body.nodes, lost.values(), there)
        self.note(again, params["length"])
        steps = [_copied(step, new) for step in again]
        swap = {v: new.get(w, w) for v, w in lost.items()}
        steps += [step.with_inputs([swap.get(v, v) for v in step.inputs]) for step in inner.nodes]
        inner = inner.replace(
            inputs=(*inner.inputs[:carried], *slices, *fixed),
            nodes=tuple(steps),
            outputs=tuple([swap.get(v, v) for v in inner.outputs]),
        )
        params = {**params, "body": dead_code(common_subexpressions(inner)), "scanned": len(slices)}
        inputs = (*node.inputs[:carried], *[operand[v] for v in (*slices, *fixed)])
        return Node(node.op, inputs, params, node.outputs, node.code, node.offset, node.grad, node.of)

    # -- outside of loops

    def outside(self, tape: Tape) -> Tape:
        """What the gradient reads of the steps before it, computed again a group at a time."""
        start, where = next(i for i, node in enumerate(tape.nodes) if node.grad), _peak(tape)[1]
        if where > start + (len(tape.nodes) - start) // LATE:
            # The gradient of a gradient: most is held between the two.
            start = where
        first, rest = tape.nodes[:start], tape.nodes[start:]
        made = {v for node in first for v in node.outputs}
        there = {v for v in tape.outputs if v in made}
        needed = {v for node in rest for v in node.inputs if v in made} - there
        bounds = _bounds(first, needed, self.groups)
        self.plain += self.times * sum(map(bytes_of, needed))
        if not bounds:
            return tape
        self.grouped = True
        outside = {v for node in first for v in node.inputs} - made
        kept = {v for node in first[bounds[-1] :] for v in node.outputs if v in needed}
        groups: list[list[Node]] = []
        # What is left of the forward part when its gradient starts is needed at once.
        for end, begin in zip(bounds[::-1], [*bounds[-2::-1], 0], strict=True):
            part = first[begin:end]
            want = [v for node in part for v in node.outputs if v in needed and v not in there]
            found = cut(part, want, given=there | outside, once=self.once, cost=bytes_of)
            there.update(found)
            kept.update(found)
            groups.append(_computed_again(part, want, lambda v: v not in made or v in there))
        self.kept += self.times * sum(map(bytes_of, kept))
        return dead_code(tape.replace(nodes=(*first, *self.placed(rest, groups, made, tape.axes))))

    def placed(
        self, rest: Sequence[Node], groups: Sequence[Sequence[Node]], made: set[Var], axes: dict[str, int]
    ) -> list[Node]:
        """The steps of the gradient, with each group of others before the first that reads one of them."""
        group_of = {v: group for group in groups for node in group for v in node.outputs}
        new: dict[Var, Var] = {}
        done: set[int] = set()
        nodes: list[Node] = []
        before: set[Var] = set()
        for i, node in enumerate(rest):
            for v in node.inputs:
                group = group_of.get(v)
                if group is not None and id(group) not in done:
                    done.add(id(group))
                    tie = next((v for n in rest[i:] for v in n.inputs if v in before and _ties(v)), None)
                    # Where there is nothing to wait for, there is nothing to gain.
                    if tie is not None:
                        self.note(group)
                        steps, copies = _tied(group, tie, made, axes)
                        nodes += steps
                        new.update(copies)
            fresh = not new.keys().isdisjoint(node.inputs)
            nodes.append(node.with_inputs([new.get(v, v) for v in node.inputs]) if fresh else node)
            before.update(node.outputs)
        return nodes


def _bounds(nodes: Sequence[Node], needed: set[Var], groups: int) -> list[int]:
    """Where the groups end but the last: each with about the same bytes of `needed`, where few bytes go on."""
    last = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    passing, held = [], 0
    ends: Counter[int] = Counter()
    for i, node in enumerate(nodes):
        for v in node.outputs:
            if last.get(v, i) > i:
                held += bytes_of(v)
                ends[last[v]] += bytes_of(v)
        held -= ends[i]
        passing.append(held)
    weights = [sum(bytes_of(v) for v in node.outputs if v in needed) for node in nodes]
    most = sum(weights) / groups
    bounds: list[int] = []
    i, weight, best = 0, 0, -1
    while most and i < len(nodes):
        weight += weights[i]
        if weight >= most / 2 and (best < 0 or passing[i] <= passing[best]):
            best = i
        if weight >= most:
            bounds.append(best + 1)
            i, weight, best = best, 0, -1
        i += 1
    # What is left for the last group is needed as soon as the gradient starts: too little of it is no group.
    while bounds and sum(weights[bounds[-1] :]) < most / 2:
        bounds.pop()
    return bounds


def _ties(v: Var) -> bool:
    return v.aval.differentiable and 0 not in v.aval.shape


def _tied(group: Sequence[Node], tie: Var, made: set[Var], axes: dict[str, int]) -> tuple[list[Node], dict[Var, Var]]:
    """The steps of a group once more, none of which XLA can run before it has `tie`, or take for one that it has run.

    A barrier is not enough: on CPUs XLA removes it before it looks for what is computed twice. So what is read is
    selected by a predicate that is always true, computed from `tie`, of which XLA does not know that it is.
    """
    steps: list[Node] = []
    new: dict[Var, Var] = {}

    def record(fun: Callable[..., Any], *values: Var) -> Var:
        with Recording(blame=group[0], axes=axes) as recording:
            inputs = [new_input(recording, v.aval) for v in values]
            out = fun(*inputs)
            added = recording.nodes
        place: dict[Var, Var] = dict(zip(inputs, values, strict=True))
        for node in added:
            inner = node.with_inputs([place.get(v, v) for v in node.inputs])
            inner.grad = True
            steps.append(inner)
        return out  # type: ignore[no-any-return]

    def predicate(ct: Any) -> Any:
        shape = ct.aval.shape
        one = ops.reshape(
            ops.slice_(ct, start=(0,) * len(shape), limit=(1,) * len(shape), strides=(1,) * len(shape)), shape=()
        )
        one = ops.real(one) if one.aval.dtype.kind == "c" else one
        return ops.bitwise_or(ops.equal(one, one), ops.not_equal(one, one))

    true = record(predicate, tie)
    for node in group:
        if new.keys().isdisjoint(node.inputs):
            usable = [v for v in node.inputs if _selectable(v, true)]
            if usable:
                least = min(usable, key=lambda v: (v not in made, bytes_of(v)))
                new[least] = record(lambda p, x: ops.where(p, x, zeros_of(x)), true, least)
        steps.append(_copied(node, new))
    return steps, {v: new[v] for node in group for v in node.outputs}


def _selectable(v: Var, by: Var) -> bool:
    extended = jnp.issubdtype(v.aval.dtype, jax.dtypes.extended)
    return v.tape is not None and not extended and v.aval.varying >= by.aval.varying


def _calls(node: Node) -> bool:
    return frozenset(node.params) in _CALL


def _is_loop(node: Node) -> bool:
    return node.params.keys() >= {"body", "carried", "scanned", "length"}


def _scans(node: Node, at: int, length: int) -> bool:
    """Whether a step is a loop of this length that goes along its operand at this place."""
    if not _is_loop(node) or node.params["length"] != length:
        return False
    first = node.params["carried"]
    return bool(first <= at < first + node.params["scanned"])
