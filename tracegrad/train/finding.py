"""What there is to see in a loss: the outputs of its layers, its activations and its products with parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax

from ..backward import active_path
from ..body import Taps, record_body
from ..capture import tap_op
from ..errors import cell_of, name_of, source_position
from ..nn.layers import is_layer
from ..nn.watching import Made, Outputs
from ..ops import conv_op, dot_general, logistic, maximum, mul, relu, tanh
from ..recording import Recording, current, state
from ..tape import Node, Tape, Var
from ..tracer import Tracer

Loss = Callable[..., Any]


class Row(NamedTuple):
    """An array of which the statistics are taken.

    Attributes:
      name: of the tap.
      path: how it is called; `[*]` stands for the number of a layer of a `Stack`, which has a first axis.
      kind: the class of the layer, or what it is.
      weighted: whether parameters have to do with it directly.
      activation: `relu`, `tanh` or `sigmoid`, or empty.
      hidden: whether parameters follow, so that units that are dead or saturated let no gradient through.
      source: the file and the line, if it is no layer's.
    """

    name: str
    path: str
    kind: str
    weighted: bool
    activation: str = ""
    hidden: bool = False
    source: str = ""

    @property
    def depth(self) -> int:
        """How many first axes count the layers of a `Stack`."""
        return self.path.count("[*]")


class Plan:
    """What is seen of a loss with arguments of these types.

    Attributes:
      rows: in the order in which they are computed.
      output: the name of the last one that is not in a loop: what the model makes, as a rule.
      unused: the paths of the parameters from which no step leads to the loss.
      fixed: those from which no derivative does, as `stop_gradient` has it.
      shapes, parameters: the shapes of what is tapped, by name, and of the parameters, by path.
    """

    def __init__(self, rows: list[Row], unused: frozenset[str], fixed: frozenset[str]) -> None:
        self.rows = rows
        self.output = next((row.name for row in reversed(rows) if not row.depth), None)
        self.unused = unused
        self.fixed = fixed
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.parameters: dict[str, tuple[int, ...]] = {}


def path_of(params: Any, where: Any) -> str:
    """How a part of the parameters is called: `model.layers[0].kernel`, or `params['w1']`."""
    return ("model" if is_layer(params) else "params") + jax.tree_util.keystr(where)


def leaves_of(params: Any) -> list[tuple[str, Any]]:
    """The parameters, each with its path."""
    return [(path_of(params, where), x) for where, x in jax.tree_util.tree_flatten_with_path(params)[0]]


class Finder:
    """Runs a loss, and taps what there is to see, or of it what is wanted.

    What layers make is tapped as they make it. Activations and products outside layers are found on the tape, and a tap
    is put behind them when all that uses them has been recorded: it takes over the value that is used there.
    """

    def __init__(self, params: Any, wanted: Iterable[str] | None = None) -> None:
        self.wanted = None if wanted is None else set(wanted)
        layers = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_layer)[0]
        roots = [(path_of(params, where), x) for where, x in layers if is_layer(x)]
        self.outputs = Outputs(roots, inside=True, wanted=wanted, left=self._place_in_body)
        self.parameters: dict[Var, str] = {x: path for path, x in leaves_of(params) if isinstance(x, Tracer)}
        self.activations: dict[str, tuple[str, bool, str]] = {}
        self.sources: dict[str, str] = {}
        self.top: Recording | None = None

    def run(self, loss_fn: Loss, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.top = current()
        start = len(self.top.nodes)
        with self.outputs.watching():
            out = loss_fn(*args, **kwargs)
        self._place(self.top, start)
        return out[0] if isinstance(out, tuple) and len(out) == 2 else out

    def _place_in_body(self, tape: Recording, start: int) -> None:
        if tape is not self.top:
            self._place(tape, start)

    def _place(self, tape: Recording, start: int) -> None:
        nodes, top = tape.nodes[start:], tape is self.top
        origin: dict[Var, str] = dict(self.parameters) if top else {}
        active = set(origin) if top else {v for v in tape.inputs if v.aval.differentiable}
        active_path(nodes, active)
        users: dict[Var, list[Node]] = {}
        for node in nodes:
            for v in node.inputs:
                users.setdefault(v, []).append(node)
            from_one = {origin.get(v, "") for v in node.inputs if v.tape is not None}
            if len(from_one) == 1 and "" not in from_one:
                origin.update(dict.fromkeys(node.outputs, from_one.pop()))
        feeding = self._feeding(nodes, origin, active) if top else None
        placed: list[Node] = []
        for i, node in enumerate(nodes, start):
            name = None
            if not node.grad and len(node.outputs) == 1 and node.outputs[0].aval.differentiable:
                name = self._named(tape, i, node, origin, active, users, feeding)
            placed += [node] if name is None else self._tapped(node, name)
        tape.nodes[start:] = placed

    def _feeding(self, nodes: list[Node], origin: dict[Var, str], active: set[Var]) -> set[Var]:
        """The values that go into a product with a parameter, or a body with parameters, somewhere later."""
        feeding: set[Var] = set()
        for node in reversed(nodes):
            product = node.op in (dot_general, conv_op) and any(v in origin for v in node.inputs)
            body = any(isinstance(x, Tape) for x in node.params.values()) and any(v in origin for v in node.inputs)
            if product or body or any(v in feeding for v in node.outputs):
                feeding.update([v for v in node.inputs if v in active])
        return feeding

    def _named(
        self, tape: Recording, i: int, node: Node, origin: dict[Var, str], active: set[Var],
        users: dict[Var, list[Node]], feeding: set[Var] | None,
    ) -> str | None:  # fmt: skip
        """The name of the tap that is to be behind a node, if any is."""
        out, kind = node.outputs[0], activation_of(node)
        spans = [span for span in self.outputs.spans if span.tape is tape and span.start <= i < span.end]
        # The innermost call returned first.
        span = spans[0] if spans else None
        if kind and out in active:
            taps = [
                user for user in users.get(out, ()) if user.op is tap_op and user.params["name"] in self.outputs.made
            ]
            uses = [u for v in (out, *[t.outputs[0] for t in taps]) for u in users.get(v, ()) if u.op is not tap_op]
            gate = bool(uses) and all(_gates(use, {out, *[t.outputs[0] for t in taps]}, active) for use in uses)
            hidden = not gate and (feeding is None or out in feeding)
            for user in taps:
                self.activations[user.params["name"]] = (kind, hidden, "")
            if taps or gate:
                return None
            path, weighted = (f"{span.path}.{kind}" if span else kind), False
        elif span is None and tape is self.top and node.op in (dot_general, conv_op):
            weights = {origin[v] for v in node.inputs if v in origin}
            if len(weights) != 1 or out in origin:
                return None
            kind, hidden, path, weighted = "", False, weights.pop(), True
        else:
            return None
        name = self.outputs.name(path)
        what = kind or ("conv" if node.op is conv_op else "matmul")
        self.outputs.made[name] = Made(path, what, weighted)
        self.activations[name] = (kind, hidden, _line(node))
        return name if self.wanted is None or name in self.wanted else None

    def _tapped(self, node: Node, name: str) -> list[Node]:
        (out,) = node.outputs
        made = Tracer(out.aval, out.tape)
        before = Node(node.op, node.inputs, node.params, (made,), node.code, node.offset, node.grad)
        state.capture.add("value", name, out)
        return [before, Node(tap_op, [made], {"name": name}, (out,), node.code, node.offset, node.grad)]


def activation_of(node: Node) -> str:
    """Whether a node is one of the activations whose units can be dead or saturated, and which."""
    if node.op is relu or (node.op is maximum and any(v.tape is None and v.value == 0 for v in node.inputs)):
        return "relu"
    return "tanh" if node.op is tanh else "sigmoid" if node.op is logistic else ""


def _gates(node: Node, values: set[Var], active: set[Var]) -> bool:
    """Whether a node multiplies one of the values with something else that was computed from parameters."""
    return node.op is mul and any(v in active and v not in values for v in node.inputs)


def _line(node: Node) -> str:
    filename, line, _ = source_position(node.source)
    return f"{cell_of(filename) or os.path.basename(filename)}:{line}"


def plan(loss_fn: Loss, params: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
    """What there is to see in a loss. It is recorded for that, and nothing is computed."""
    found: list[tuple[Finder, Any, list[str]]] = []

    def run(params: Any, *args: Any, **kwargs: Any) -> Any:
        finder = Finder(params)
        before, state.capture = state.capture, Taps()
        try:
            loss = finder.run(loss_fn, (params, *args), kwargs)
            # What was tapped in a branch or a `while_loop` does not come out of it.
            names = [name for kind, name, _, tape in state.capture.entries if kind == "value" and tape is finder.top]
        finally:
            state.capture = before
        found.append((finder, loss, names))
        return loss

    tape, _ = record_body(run, (params, *args), kwargs, name_of(loss_fn))
    ((finder, loss, kept),) = found
    rows: list[Row] = []
    counts: dict[str, int] = {}
    for name in dict.fromkeys(_taps(tape)):
        if name not in kept:
            continue
        made = finder.outputs.made[name]
        count = counts[made.path] = counts.get(made.path, -1) + 1
        path = f"{made.path}#{count}" if count else made.path
        rows.append(Row(name, path, made.kind, made.weighted, *finder.activations.get(name, ())))
    unused, fixed = (
        {path for v, path in finder.parameters.items() if v not in reached} for reached in _reached(tape, loss)
    )
    return Plan(rows, frozenset(unused), frozenset(fixed))


def _taps(tape: Tape) -> Iterable[str]:
    for node in tape.nodes:
        if node.op is tap_op:
            yield node.params["name"]
        for value in node.params.values():
            if isinstance(value, Tape):
                yield from _taps(value)


def _reached(tape: Tape, loss: Any) -> tuple[set[Var], set[Var]]:
    """The values from which the loss is computed, and those through which derivatives flow."""
    reached, flowing = {loss}, {loss}
    for node in reversed(tape.nodes):
        if any(v in reached for v in node.outputs):
            reached.update(node.inputs)
        if any(v in flowing for v in node.outputs) and node.op.vjp is not None:
            rules = node.op.vjp if isinstance(node.op.vjp, tuple) else [True] * len(node.inputs)
            flowing.update([v for v, rule in zip(node.inputs, rules, strict=True) if rule is not None])
    return reached, flowing


__all__ = ["Finder", "Loss", "Plan", "Row", "leaves_of", "path_of", "plan"]
