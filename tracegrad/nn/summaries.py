"""A table of the layers of a model: what each makes of an input, what it has to learn, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from ..body import record_body
from ..errors import describe
from ..names import listed
from ..ops import conv_op, dot_general
from ..recording import state as recording
from ..tape import Node, Tape
from .layers import Run, count, init_state, need_layer, sublayers


class Row(NamedTuple):
    """A call of a layer.

    Attributes:
      path: where in the model it is.
      kind: its class.
      output: the shape and dtype that it made; of a pytree, those of its leaves.
      parameters: how many it has.
      multiply_adds: of its products with matrices and its convolutions, once forward.
    """

    path: str
    kind: str
    output: str
    parameters: int
    multiply_adds: int


class Summary(tuple[Row, ...]):
    """The rows of a summary, which prints as a table. The first is the whole model; the others are in order of call."""

    __slots__ = ()

    def __repr__(self) -> str:
        head = ("layer", "kind", "output", "parameters", "multiply-adds")
        return table(head, [(*row[:3], f"{row.parameters:,}", f"{row.multiply_adds:,}") for row in self], "lllrr")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> str:
    """Rows under a head as text, each column to the side, left or right, that its letter says."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        words = [w.ljust(n) if side == "l" else w.rjust(n) for w, n, side in zip(line, widths, sides, strict=True)]
        lines.append("  ".join(words).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def multiply_adds(nodes: Iterable[Node]) -> int:
    """How many multiply-adds the products and the convolutions of a program take.

    The body of a loop counts as often as it runs, where that is known, that of `while_loop` once; of branches the
    dearest counts.
    """
    return sum(_cost(node) for node in nodes)


def _cost(node: Node) -> int:
    if node.op is dot_general:
        (contracted, _), _ = node.params["dims"]
        x = node.inputs[0].aval.shape
        return math.prod(node.outputs[0].aval.shape) * math.prod([int(x[i]) for i in contracted])
    if node.op is conv_op:
        kernel, out = node.inputs[1].aval.shape, node.outputs[0].aval.shape
        each = math.prod(kernel) // max(1, kernel[node.params["dimension_numbers"].rhs_spec[0]])
        # Between the elements of a dilated input there is nothing to multiply.
        return int(math.prod(out) * each // math.prod(node.params["lhs_dilation"]))
    total = 0
    for value in node.params.values():
        if isinstance(value, Tape):
            total += multiply_adds(value.nodes) * node.params.get("length", 1)
        elif isinstance(value, tuple) and value and all(isinstance(part, Tape) for part in value):
            total += max(multiply_adds(part.nodes) for part in value)
    return total


def summary(model: Any, *args: Any, state: Any = None) -> Summary:
    """What each layer of a model makes of an input, in inference, with its parameters and its multiply-adds.

    Nothing is computed: the arguments may be `jax.ShapeDtypeStruct`s. The layers inside a `Stack`, which are one loop,
    are counted in its row.

    Args:
      model: a layer.
      *args: what it is called with, the run apart.
      state: of the model; by default `init_state(model)`.

    Returns:
      A tuple of rows, which prints as a table.

    Raises:
      TypeError: if the model is not a layer.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> model = nn.Sequential([nn.Linear.init(random.key(0), 4, 16), nn.relu, nn.Linear.init(random.key(1), 16, 3)])
      >>> print(nn.summary(model, np.ones((8, 4), np.float32)))
      layer            kind        output     parameters  multiply-adds
      -----------------------------------------------------------------
      model            Sequential  f32[8,3]          131            896
      model.layers[0]  Linear      f32[8,16]          80            512
      model.layers[1]  Function    f32[8,16]           0              0
      model.layers[2]  Linear      f32[8,3]           51            384
    """
    need_layer(model)
    rows: list[Row | None] = []

    def recorded(model: Any, state: Any, args: tuple[Any, ...]) -> Any:
        run = Run(model, state)
        known = {id(part) for part in _all(model)}

        def watch(call: Any, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            tape = recording.tape
            if id(layer) not in known or tape is None:
                return call(layer, *args, **kwargs)
            i, start = len(rows), len(tape.nodes)
            rows.append(None)
            out = call(layer, *args, **kwargs)
            made = ", ".join([describe(x) for x in jax.tree.leaves(out)])
            rows[i] = Row(run.path(layer), type(layer).__name__, made, count(layer), multiply_adds(tape.nodes[start:]))
            return out

        before, recording.watch = recording.watch, watch
        try:
            return model(*args, run=run)
        finally:
            recording.watch = before

    record_body(recorded, (model, init_state(model) if state is None else state, args), {}, type(model).__name__)
    return Summary(row for row in rows if row is not None)


def _all(model: Any) -> Sequence[Any]:
    return [model, *[inner for _, part in sublayers(model) for inner in _all(part)]]


__all__ = ["summary"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
