"""The ops of rolled programs: a loop that reads and writes its arrays in place, and what feeds it. Uses ops, and lower.

None of them has a derivative, for programs are rolled after they are differentiated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...inference import TYPED
from ...op import Op
from ...ops.shape import weak_op
from ...tape import Aval, Tape, aval_of, make_aval
from ...varying import marked
from ..outline import program


@dataclass(frozen=True, slots=True)
class Window:
    """In turn `i`, the part of an array of these sizes that starts at `start + i * step`."""

    source: int
    start: tuple[int, ...]
    step: tuple[int, ...]
    sizes: tuple[int, ...]

    def read(self, arrays: Sequence[Any], i: Any) -> Any:
        at = _position(self.start, self.step, i)
        return lax.dynamic_slice(arrays[self.source], at, self.sizes, allow_negative_indices=False)


@dataclass(frozen=True, slots=True)
class Row:
    """In turn `i`, what an array has at `first + i * step` of its first axis."""

    source: int
    first: int
    step: int

    def read(self, arrays: Sequence[Any], i: Any) -> Any:
        array = arrays[self.source]
        return lax.dynamic_index_in_dim(array, self.first + i * self.step, 0, False, allow_negative_indices=False)


@dataclass(frozen=True, slots=True)
class Table:
    """In turn `i`, number `i` of these."""

    numbers: tuple[Any, ...]
    dtype: Any

    def read(self, arrays: Sequence[Any], i: Any) -> Any:
        table = jnp.asarray(np.array(self.numbers, self.dtype))
        return lax.dynamic_index_in_dim(table, i, 0, False, allow_negative_indices=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the turns write: turn `i` at `start + i * step` of an array of this shape, which is zero elsewhere."""

    shape: tuple[int, ...]
    start: tuple[int, ...]
    step: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """In turn `i`, number `i` of these arrays: they are not copied into one, which would take their memory again."""

    sources: tuple[int, ...]


Read = Window | Row | Table | Choice


def _position(start: Sequence[int], step: Sequence[int], i: Any) -> list[Any]:
    return [i * d + s if d else np.int32(s) for s, d in zip(start, step, strict=True)]


def typed(x: Any, aval: Aval) -> Any:
    """`x`, as weakly typed as this type is, and as varying."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return marked(x, aval.varying)
    x = weak_op.lower(x, dtype=aval.dtype) if aval.weak_type else lax.convert_element_type(x, aval.dtype)
    return marked(x, aval.varying)


def strong(aval: Aval, shape: tuple[int, ...] | None = None) -> Aval:
    """This type, not weak, in this shape."""
    return make_aval(aval.shape if shape is None else shape, aval.dtype, False, aval.varying)


def _run_loop(
    *operands: Any, turn: Tape, carried: int, sources: int, reads: tuple[Read, ...],
    places: tuple[Place, ...], length: int, unroll: int,
) -> Any:  # fmt: skip
    first, arrays, consts = operands[:carried], operands[carried:][:sources], operands[carried + sources :]
    run = program(turn)
    stacked = len(turn.outputs) - len(places)
    types = [strong(v.aval) for v in turn.inputs[:carried]]
    written = [strong(v.aval, p.shape) for v, p in zip(turn.outputs[stacked:], places, strict=True)]

    def step(state: Any, _: None) -> Any:
        i, carry, buffers = state
        picked = iter(_chosen([read for read in reads if isinstance(read, Choice)], arrays, i))
        parts = [next(picked) if isinstance(read, Choice) else read.read(arrays, i) for read in reads]
        values = [*carry, *parts]
        outs = run(*[typed(x, v.aval) for x, v in zip(values, turn.inputs, strict=False)], *consts)
        parts = [typed(x, strong(v.aval)) for x, v in zip(outs[carried:], turn.outputs[carried:], strict=True)]
        buffers = tuple([
            lax.dynamic_update_slice(b, x, _position(p.start, p.step, i), allow_negative_indices=False)
            for b, x, p in zip(buffers, parts[stacked - carried :], places, strict=True)
        ])  # fmt: skip
        carry = tuple([typed(x, a) for x, a in zip(outs, types, strict=False)])
        return (i + np.int32(1), carry, buffers), tuple(parts[: stacked - carried])

    start = tuple([typed(x, a) for x, a in zip(first, types, strict=True)])
    zeros = tuple([typed(jnp.zeros(a.shape, a.dtype), a) for a in written])
    (count, carry, buffers), rows = lax.scan(step, (jnp.int32(0), start, zeros), None, length=length, unroll=unroll)
    return (*carry, *rows, *buffers, count)


def _loop_types(
    *avals: Aval, turn: Tape, carried: int, places: tuple[Place, ...], length: int, **params: Any
) -> list[Aval]:
    outputs = [v.aval for v in turn.outputs]
    stacked = len(outputs) - len(places)
    return [
        *[strong(v.aval) for v in turn.inputs[:carried]],
        *[strong(a, (length, *a.shape)) for a in outputs[carried:stacked]],
        *[strong(a, p.shape) for a, p in zip(outputs[stacked:], places, strict=True)],
        make_aval((), np.dtype(np.int32)),
    ]


def _chosen(choices: list[Choice], arrays: Sequence[Any], i: Any) -> Sequence[Any]:
    """What each choice is in this turn: of all of them by one branch."""
    if not choices:
        return ()

    def branch(*sources: int) -> Any:
        return lambda: tuple([lax.convert_element_type(x, x.dtype) for x in map(arrays.__getitem__, sources)])

    branches = [branch(*sources) for sources in zip(*[choice.sources for choice in choices], strict=True)]
    return lax.switch(i, branches)  # type: ignore[no-any-return]


loop: Op = Op("loop", _run_loop, shape=_loop_types, multiple=True, axes=TYPED)
"""Runs a body, `turn`, so many times.

Operands are the first carry, the arrays that turns read parts of (`reads`), and what is the same in each turn. The body
takes carry, parts and the rest; it returns the next carry, what is stacked along a new first axis, and what is written
into an array (`places`), and how many turns there were.
"""


def _numbers(count: Any, *, turns: int) -> Any:
    return lax.cond(count > 0, lambda: [jnp.int32(i) for i in range(turns)], lambda: [count] * turns)


numbers: Op = Op("numbers", _numbers, shape=lambda count, *, turns: [count] * turns, multiple=True)
"""The numbers of the turns, given how many there were.

XLA compiles a function for each row that it takes from an array at a number that it knows, and one for all whose
numbers it does not; each takes it longer to compile than a product of matrices.
"""

row: Op = Op(
    "row",
    lambda x, index: lax.dynamic_index_in_dim(x, index, 0, False, allow_negative_indices=False),
    shape=lambda x, index: make_aval(x.shape[1:], x.dtype, x.weak_type),
)
"""One element of the first axis."""

stacked: Op = Op(
    "stacked",
    lambda *xs: jnp.concatenate([jnp.expand_dims(x, 0) for x in xs]),
    shape=lambda *xs: make_aval((len(xs), *xs[0].shape), xs[0].dtype),
)
"""Values of one type along a new first axis."""


def _joined(*xs: Any, shape: tuple[int, ...], starts: tuple[tuple[int, ...], ...]) -> Any:
    part = xs[0].shape
    axes = [a for a, (n, m) in enumerate(zip(shape, part, strict=True)) if n != m]
    if len(axes) != 1:
        return _filled(typed(jnp.zeros(shape, xs[0].dtype), aval_of(xs[0])), *xs, starts=starts)
    (axis,) = axes
    parts, end = [], 0
    for start, x in sorted(zip([s[axis] for s in starts], xs, strict=True), key=lambda pair: pair[0]):
        parts += [*_gap(x, axis, start - end), x]
        end = start + part[axis]
    return jnp.concatenate([*parts, *_gap(xs[0], axis, shape[axis] - end)], axis)


def _gap(like: Any, axis: int, size: int) -> list[Any]:
    shape = tuple([size if a == axis else n for a, n in enumerate(like.shape)])
    return [jnp.zeros(shape, like.dtype)] if size else []


joined: Op = Op("joined", _joined, shape=lambda *xs, shape, starts: make_aval(shape, xs[0].dtype, xs[0].weak_type))
"""Zeros, with values of one shape at these places: the sum of the cotangents of parts of an array."""


def _filled(x: Any, *parts: Any, starts: tuple[tuple[int, ...], ...]) -> Any:
    for part, start in zip(parts, starts, strict=True):
        x = lax.dynamic_update_slice(x, part, start)
    return x


filled: Op = Op("filled", _filled, shape=lambda x, *parts, starts: x)
"""An array with other values at these places."""
