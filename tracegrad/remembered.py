"""Gradients that are found again: of a program differentiated before, the gradient is one step. Uses backward, bodies.

A function that is not compiled is recorded at every call, and most calls record what an earlier one has. Then the rules
need not be asked again: the steps that they appended before are the body of one node, put back in line by
`passes.inlined` where a program is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from .backward import backward, ones
from .body import call
from .caches import Cache
from .inference import TYPED, output_types
from .op import Op
from .passes import compiled, fresh
from .passes.inlined import InLine
from .recording import Recording, state
from .tape import Aval, Node, Tape, Var, structure
from .tracer import Tracer

gradient_op: Op = InLine(
    "gradient", lambda *xs, body: compiled(body)(*xs), call.vjp, shape=output_types, multiple=True, axes=TYPED
)
"""What `backward` appended, as one node."""

Place = tuple[int, int]
"""Where a value of a recording comes from: a node and its output, or -1 and the leaf of its structure."""


class Gradient(NamedTuple):
    """The gradient of a program of some structure.

    Attributes:
      body: from the values at `reads` to gradients.
      reads: the values of the program that it takes.
      results: for each gradient which output of the body it is, which value of the program, or `None` for zero.
      extended: nodes of the program that return more values for it: which, their parameters, the types.
    """

    body: Tape
    reads: tuple[Place, ...]
    results: tuple[int | Place | Var | None, ...]
    extended: tuple[tuple[int, dict[str, Any], tuple[Aval, ...]], ...]


_gradients = Cache(512)


def gradient(tape: Recording, output: Var, wrt: Sequence[Var], start: int) -> list[Any]:
    """`backward` from a scalar `output` through the nodes from `start` on, appended to `tape`, which is recording.

    It is remembered for all that a recording which runs at its end has; where nothing of it has run, nobody asks for
    what happens inside, and all rules are the package's own.
    """
    asked = (state.capture, state.cotangents, state.examine, tape.examine)
    plain = start or not tape.lazy or tape.done or tape.axes or state.wrt or any(x is not None for x in asked)
    nodes = tape.nodes[:]
    if plain or not all(node.op.ours for node in nodes):
        return backward(tape, [output], [ones(output)], wrt, start)
    steps, leaves = structure(nodes, [output, *wrt])
    key = (steps, tuple([v.aval for v in leaves]), tape.x64, state.no_nan, tape.unbounded)
    known = _gradients.get(key)
    if known is None:
        count = [len(node.outputs) for node in nodes]
        grads = backward(tape, [output], [ones(output)], wrt, 0)
        known = _gradients.keep(key, _remembered(tape, nodes, count, leaves, grads) or False)
        if not known:
            return grads
        del tape.nodes[len(nodes) :]
    elif not known:
        return backward(tape, [output], [ones(output)], wrt, 0)
    else:
        for i, params, avals in known.extended:
            nodes[i].extend(params, [Tracer(aval, tape) for aval in avals])

    def at(place: Place) -> Var:
        i, j = place
        return leaves[j] if i < 0 else nodes[i].outputs[j]

    body = known.body
    outputs = tuple([Tracer(v.aval, tape) for v in body.outputs])
    if outputs:
        reads, last = [at(place) for place in known.reads], nodes[-1]
        tape.nodes.append(Node(gradient_op, reads, {"body": body}, outputs, last.code, last.offset, True, output))
    return [outputs[r] if type(r) is int else at(r) if type(r) is tuple else r for r in known.results]


def _remembered(
    tape: Recording, nodes: Sequence[Node], count: Sequence[int], leaves: Sequence[Var], grads: Sequence[Any]
) -> Gradient | None:
    """What `backward` has appended after `nodes`, which had so many outputs; `None` if it may be another next time."""
    if tape.done:
        return None
    appended = tape.nodes[len(nodes) :]
    places: dict[Var, Place] = {v: (-1, j) for j, v in enumerate(leaves)}
    places |= {v: (i, j) for i, node in enumerate(nodes) for j, v in enumerate(node.outputs)}
    made = {v for node in appended for v in node.outputs}
    read = [v for node in appended for v in node.inputs if v.tape is not None and v not in made]
    given = [g for g in grads if g is not None and g not in made and g.tape is not None]
    if not appended or any(v not in places for v in (*read, *given)):
        return None
    inputs, outputs = tuple(dict.fromkeys(read)), tuple(dict.fromkeys([g for g in grads if g in made]))
    which = {g: i for i, g in enumerate(outputs)}
    return Gradient(
        fresh(Tape(inputs, tuple(appended), outputs, "gradient")),
        tuple([places[v] for v in inputs]),
        tuple([which.get(g, places.get(g, g)) for g in grads]),
        tuple([
            (i, node.params, tuple([v.aval for v in node.outputs[n:]]))
            for i, (node, n) in enumerate(zip(nodes, count, strict=True))
            if len(node.outputs) > n
        ]),
    )  # fmt: skip
