"""Row updates: what a step changes in a few rows of a table is computed for these rows alone.

The gradient of `table[ids]` is 0 but for the rows that were looked up, and so is what most optimizers make of it. The
pass follows such values through arithmetic, element by element, and where the program returns a table that differs from
another in these rows alone, it returns that one with the rows written: no array of the table's size is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..ops.gather import Spec, gather, scatter
from ..ops.shape import splat, zeros_of
from ..recording import Recording
from ..tape import Node, Tape, Var, make_aval
from ..tracer import new_input
from .dead_code import dead_code

FEW = 8
"""Rows of a table are few if there are so many times more in it: else the whole is as quick."""

LARGE = 1 << 16
"""How many elements a table has at least."""

_POINTWISE = frozenset([ops.alias, ops.astype, ops.integer_pow])
_OF_ZERO = frozenset([
    ops.abs_, ops.alias, ops.astype, ops.conj, ops.neg, ops.real, ops.sign, ops.sqrt, ops.square,
])  # fmt: skip
"""Functions that are 0 at 0."""

_REDUCTIONS = frozenset([ops.reduce_sum, ops.reduce_any, ops.reduce_max, ops.reduce_min])
"""Reductions that are 0 where all is 0."""


@dataclass(eq=False)
class _Lookup:
    """A zero table with numbers added at rows, which may be named twice: what the gradient of a lookup is at first."""

    ids: Var
    updates: Var
    size: int


@dataclass(eq=False)
class _Rows:
    """A value that differs from `base` in some rows alone.

    Attributes:
      index: which rows: each once, and for what is left numbers beyond the last row.
      rows: their values.
      base: the value elsewhere: a `Var`, `0`, or `None` where it is not computed.
    """

    index: Var
    rows: Var
    base: Var | int | None


def touched_rows(tape: Tape) -> Tape:
    """`tape`, with the tables that it changes in a few rows changed there alone."""
    if not any(_is_lookup(node) for node in tape.nodes):
        return tape
    return _Pass(tape).run()


def _is_lookup(node: Node) -> bool:
    """Whether this may be the gradient of a lookup of few rows."""
    if node.op is not scatter or node.params["kind"] != "add":
        return False
    spec, (table, updates, *indices) = node.params["spec"], node.inputs
    return (
        spec.axes == (0,)
        and spec.at == 0
        and not spec.batch
        and table.aval.dtype.kind in "fc"
        and math.prod(table.aval.shape) >= LARGE
        and 0 < FEW * math.prod(indices[0].aval.shape) <= table.aval.shape[0]
        and 0 not in updates.aval.shape
    )


class _Pass:
    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.nodes: list[Node] = []
        self.made = {v: node for node in tape.nodes for v in node.outputs}
        self.known: dict[Var, _Lookup | _Rows] = {}
        self.instead: dict[Var, Var] = {}
        self.read: dict[tuple[Var, Var], Var | None] = {}

    def run(self) -> Tape:
        for node in self.tape.nodes:
            node = node.with_inputs([self.instead.get(v, v) for v in node.inputs])
            self.nodes.append(node)
            if len(node.outputs) == 1:
                found = self.follow(node)
                if found is not None:
                    self.known[node.outputs[0]] = found
        outputs = [self.written(v) for v in self.tape.outputs]
        if all(a is b for a, b in zip(outputs, self.tape.outputs, strict=True)) and not self.instead:
            return self.tape
        return dead_code(self.tape.replace(nodes=tuple(self.nodes), outputs=tuple(outputs)))

    def record(self, like: Node, fun: Callable[..., Any], *values: Any) -> Any:
        """The results of `fun`, a function over ops, recorded as the nodes of another node's line."""
        with Recording(blame=like) as recording:
            inputs = [v if v.tape is None else new_input(recording, v.aval) for v in values]
            out = fun(*inputs)
            nodes = recording.nodes
        place = dict(zip(inputs, values, strict=True))
        for node in nodes:
            node = node.with_inputs([place.get(v, v) for v in node.inputs])
            node.grad, node.of = like.grad, like.of
            self.nodes.append(node)
        return out

    # -- what values are known to be

    def follow(self, node: Node) -> _Lookup | _Rows | None:
        """What the result of a node is known to be; `None` for nothing better than itself."""
        out = node.outputs[0]
        if _is_lookup(node) and self.is_zero(node.inputs[0]):
            return self.lookup(node)
        if not any(v in self.known for v in node.inputs):
            return None
        if node.op is ops.add and all(isinstance(self.known.get(v), _Lookup) for v in node.inputs):
            return self.joined(node)
        if node.op not in _REDUCTIONS and not _fits(node, self.known):
            return None
        found = [self.rows(node, v) if v in self.known else None for v in node.inputs]
        first = next(r for r in found if r is not None)
        if any(r is not None and r.index is not first.index for r in found):
            return None
        size = first.rows.aval.shape[0]
        if node.op in _REDUCTIONS:
            return self.reduced(node, first)
        if node.op is ops.reshape:
            shape = out.aval.shape
            rows = self.record(node, lambda x: ops.reshape(x, shape=(size, *shape[1:])), first.rows)
            return _Rows(first.index, rows, 0 if _zero(first.base) else None)
        if not _pointwise(node):
            return None
        operands = [self.rows_of(v, first.index, out.aval.shape) for v in node.inputs]
        if any(x is None for x in operands):
            return None
        rows = self.record(node, lambda *xs: node.op(*xs, **node.params), *operands)
        if rows.aval != make_aval((size, *out.aval.shape[1:]), out.aval.dtype, out.aval.weak_type, out.aval.varying):
            return None
        return _Rows(first.index, rows, self.base(node, found))

    def is_zero(self, v: Var) -> bool:
        while (node := self.made.get(v)) is not None and node.op in (ops.broadcast_in_dim, ops.astype, ops.alias):
            v = node.inputs[0]
        return _literally(v, 0)

    def lookup(self, node: Node) -> _Lookup:
        """The gradient of one lookup, its indices counted from the start, and beyond the end if they are dropped."""
        (table, updates, indices), mode = node.inputs, node.params["spec"].mode
        size, rest = table.aval.shape[0], table.aval.shape[1:]
        count = math.prod(indices.aval.shape)

        def flat(i: Any, u: Any) -> Any:
            i = ops.reshape(i, shape=(count,))
            if i.aval.dtype.kind == "u" or i.aval.dtype.itemsize < 4:
                i = ops.astype(i, dtype=np.dtype(np.int32))
            if mode == "wrap":
                i = ops.remainder(i, size)
            elif mode != "promise_in_bounds":
                i = ops.where(ops.less(i, 0), ops.add(i, size), i)
                if mode == "clip":
                    i = ops.minimum(ops.maximum(i, 0), size - 1)
                else:
                    i = ops.where(ops.less(i, 0), size, ops.minimum(i, size))
            return i, ops.reshape(u, shape=(count, *rest))

        ids, numbers = self.record(node, flat, indices, updates)
        return _Lookup(ids, numbers, size)

    def joined(self, node: Node) -> _Lookup | None:
        """The sum of the gradients of two lookups."""
        a, b = (self.known[v] for v in node.inputs)
        assert isinstance(a, _Lookup) and isinstance(b, _Lookup)
        count = sum(x.ids.aval.shape[0] for x in (a, b))
        same = [(x.ids.aval.dtype, x.updates.aval.dtype, x.size) for x in (a, b)]
        if same[0] != same[1] or FEW * count > a.size:
            return None

        def both(i: Any, j: Any, u: Any, v: Any) -> Any:
            return ops.concatenate(i, j, axis=0), ops.concatenate(u, v, axis=0)

        ids, updates = self.record(node, both, a.ids, b.ids, a.updates, b.updates)
        return _Lookup(ids, updates, a.size)

    def rows(self, node: Node, v: Var) -> _Rows:
        """What is known of a value, with each row once."""
        found = self.known[v]
        if isinstance(found, _Rows):
            return found
        count, size = found.ids.aval.shape[0], found.size
        spec = Spec(axes=(0,), mode="promise_in_bounds")

        def summed(ids: Any, updates: Any) -> Any:
            # Equal indices stand together in order: the place of one is how many others came before.
            order = ops.argsort(ids)
            ordered = gather(ids, order, spec=spec)
            new = ops.not_equal(ordered, ops.pad(ordered, -1, config=((1, -1, 0),)))
            place = ops.sub(ops.cumsum(ops.astype(new, dtype=np.dtype(np.int32)), axis=0), 1)
            place = scatter(zeros_of(place), place, order, kind="set", spec=spec._replace(unique=True))
            index = scatter(splat((count,), size, ids.aval.dtype), ids, place, kind="set", spec=spec)
            return index, scatter(zeros_of(updates), updates, place, kind="add", spec=spec)

        index, rows = self.record(node, summed, found.ids, found.updates)
        result = self.known[v] = _Rows(index, rows, 0)
        return result

    def rows_of(self, v: Var, index: Var, shape: tuple[int, ...]) -> Var | None:
        """The rows `index` of an operand of a pointwise op with a result of this shape, as few as there are."""
        if not v.aval.shape or len(v.aval.shape) < len(shape) or v.aval.shape[0] == 1:
            return v
        key = v, index
        if key not in self.read:
            self.read[key] = self.gathered(v, index)
        return self.read[key]

    def gathered(self, v: Var, index: Var) -> Var | None:
        found = self.known.get(v)
        if isinstance(found, _Rows) and found.index is index:
            return found.rows
        node = self.made.get(v)
        if node is not None and node.op is ops.broadcast_in_dim and not node.inputs[0].aval.shape:
            shape = (*index.aval.shape, *v.aval.shape[1:])
            return self.record(node, lambda x: ops.broadcast_in_dim(x, shape=shape, dims=()), node.inputs[0])  # type: ignore[no-any-return]
        if node is not None and _pointwise(node):
            # What is computed of a table is computed of the rows of the table.
            operands = [self.rows_of(self.instead.get(x, x), index, v.aval.shape) for x in node.inputs]
            if all(x is not None for x in operands):
                return self.record(node, lambda *xs: node.op(*xs, **node.params), *operands)  # type: ignore[no-any-return]
        like = node or self.nodes[-1]
        return self.record(like, lambda x, i: gather(x, i, spec=Spec(axes=(0,))), v, index)  # type: ignore[no-any-return]

    def base(self, node: Node, found: Sequence[_Rows | None]) -> Var | int | None:
        """What a pointwise result is outside the rows."""
        bases: list[Var | int | None] = [v if r is None else r.base for v, r in zip(node.inputs, found, strict=True)]
        zero = [_zero(b) for b in bases]
        op, out = node.op, node.outputs[0].aval

        def like_out(b: Var | int | None) -> Var | int | None:
            return b if not isinstance(b, Var) or b.aval == out else None

        if op in _OF_ZERO and all(zero):
            return 0
        if (op in (ops.mul, ops.mul_no_nan_op, ops.mul_either_op) and any(zero)) or (
            op in (ops.div, ops.div_no_nan_op) and zero[0]
        ):
            return 0
        if op is ops.integer_pow and all(zero):
            return 0 if node.params["n"] > 0 else None
        if op is ops.add and any(zero):
            return like_out(bases[zero.index(True) ^ 1])
        if op is ops.sub and zero[1]:
            return like_out(bases[0])
        if op in (ops.not_equal, ops.less, ops.greater) and all(zero):
            return 0
        if op is ops.where and zero[1] and zero[2]:
            return 0
        if op is ops.where and zero[0]:
            return 0 if zero[2] else like_out(bases[2])
        return None

    def reduced(self, node: Node, found: _Rows) -> _Rows | None:
        """Over the other axes, rows of the result; over all rows, what they and zeros have."""
        axes, out = node.params["axes"], node.outputs[0]
        if not _zero(found.base):
            return None
        if 0 in axes and node.op is not ops.reduce_sum:
            return None
        rows = self.record(node, lambda x: node.op(x, **node.params), found.rows)
        if 0 not in axes:
            return _Rows(found.index, rows, 0)
        if rows.aval == out.aval:
            self.instead[out] = rows
        return None

    # -- what is returned

    def written(self, v: Var) -> Var:
        """A table that the program returns, as another one with its rows written."""
        v = self.instead.get(v, v)
        found = self.known.get(v)
        if not isinstance(found, _Rows) or not isinstance(found.base, Var) or found.base in self.made:
            return v
        spec = Spec(axes=(0,), mode="fill", unique=True)
        return self.record(  # type: ignore[no-any-return]
            self.made[v], lambda x, u, i: scatter(x, u, i, kind="set", spec=spec), found.base, found.rows, found.index
        )


def _literally(v: Var, number: float) -> bool:
    return v.tape is None and v.value == number


def _zero(base: Var | int | None) -> bool:
    return isinstance(base, int) or (isinstance(base, Var) and _literally(base, 0))


def _pointwise(node: Node) -> bool:
    return len(node.outputs) == 1 and (node.op.numbers or node.op in _POINTWISE)


def _fits(node: Node, known: Container[Var]) -> bool:
    """Whether the first axis of the result is that of the tables among the operands of a node."""
    shape, reshape = node.outputs[0].aval.shape, node.op is ops.reshape
    tables = [v.aval.shape for v in node.inputs if v in known]
    return all(shape[:1] == s[:1] and (reshape or len(shape) == len(s)) for s in tables)
