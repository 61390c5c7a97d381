"""Define-by-run: a recording runs as compiled calls that are found again by its structure. Uses passes, and lower."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .buffers import noted
from .caches import Cache
from .explain import History, explain_miss, steps
from .lower import evaluate
from .passes import dead_code, fold, fresh, inlined, optimize, program
from .recording import Recording, in_trace
from .tape import Node, Tape, Var, structure
from .verify import verified

LONG = 3_000
"""Nodes beyond which a program runs op by op: XLA's compile time grows faster than its length."""

LONG_TINY, TINY = 800, 8
"""The same for nodes with so few elements: XLA makes one function of them, and its compile time grows fastest."""

ONE_OP = 20
"""What compiling one op by itself costs, in nodes of a program compiled whole (about 1 ms each)."""

CACHE_SIZE = 512
"""How many compiled programs are kept."""

_compiled_alone = Cache(8 * CACHE_SIZE)
_wanted = Cache(8 * CACHE_SIZE)
_programs = Cache(CACHE_SIZE)


def run_pending(tape: Recording, history: History | None = None, outputs: Sequence[Var] | None = None) -> None:
    """Computes what `tape` recorded since it last ran, and stores the values of `outputs` on them.

    Without `outputs`, every value is kept, for whatever is recorded next. Inside a JAX trace, where values are JAX's
    tracers, the nodes are lowered into that trace; so they are without a `history`, which says what was compiled.
    """
    nodes = tape.nodes[tape.done :]
    if outputs is None:
        outputs = [v for node in nodes for v in node.outputs]
    outputs = [v for v in outputs if v.value is None]
    if not outputs:
        tape.done = len(tape.nodes)
        return
    nodes_key, leaves = structure(nodes, outputs)
    values = [v.value for v in leaves]
    # A value may be asked for inside a transformation of JAX's that the recorded function has entered: it is not that
    # one's, and must outlive it.
    with in_trace(tape.trace):
        if history is None or any(isinstance(value, jax.core.Tracer) for value in values):
            inline = verified(optimize(tape.part(inlined(nodes), outputs)))
            results = evaluate(inline.nodes, inline.outputs, {})
        else:
            key = (nodes_key, tuple([v.aval for v in leaves]), jax.config.jax_enable_x64)  # type: ignore[attr-defined]
            compiled = find_program(key, nodes, outputs, leaves, tape.name, history)
            try:
                results = compiled(*values) if compiled is not None else run_by_op(nodes, outputs)
            except jax.errors.JaxRuntimeError as error:
                raise noted(error, tape.part(inlined(nodes), outputs, leaves)) from None
    for v, value in zip(outputs, results, strict=True):
        v.value = value
    tape.done = len(tape.nodes)


def find_program(
    key: Any, nodes: Sequence[Node], outputs: Sequence[Var], leaves: list[Var], name: str, history: History
) -> Callable[..., Any] | None:
    """The compiled call for a program of this structure, or `None` when it should run op by op."""
    known = _programs.use(key)
    if known is not None:
        return known  # type: ignore[no-any-return]
    nodes = inlined(nodes)
    if key not in _programs:
        _programs.keep(key, None)
        # Ops that were compiled alone before cost nothing more: a structure that is new at every call soon
        # runs on them. It is compiled whole when it comes a second time.
        alone = {_alone(node) for node in nodes} - _compiled_alone.keys()
        # The more structures have wanted an op, the more are likely to share what compiling it alone costs.
        by_op = _too_long(nodes) or sum(ONE_OP / (1 + _wanted.get(op, 0)) for op in alone) < len(nodes)
        for op in alone:
            _wanted.keep(op, _wanted.get(op, 0) + 1)
        history.events.append(explain_miss(key, nodes, history) + (" (run op by op)" if by_op else ""))
        history.last = (key, steps(nodes))
        if by_op:
            return None
    elif _too_long(nodes):
        return None
    else:
        history.events.append(f"{len(nodes)} nodes: seen a second time, compiled whole")
    tape = fresh(optimize(Tape(tuple(leaves), tuple(nodes), tuple(outputs), name or "tracegrad")))
    history.compiled += 1
    return _programs.keep(key, jax.jit(program(tape)))  # type: ignore[no-any-return]


def _too_long(nodes: Sequence[Node]) -> bool:
    """Whether compiling a program whole takes longer than anyone who did not ask for it would wait."""
    if len(nodes) > LONG:
        return True
    return len(nodes) > LONG_TINY < sum(math.prod(n.outputs[0].aval.shape) <= TINY for n in nodes)


def _alone(node: Node) -> Any:
    """What an op is compiled for when it runs by itself."""
    return (node.op, tuple(node.params.items()), tuple([v.aval for v in node.inputs]))


def run_by_op(nodes: Sequence[Node], outputs: Sequence[Var]) -> list[Any]:
    """Runs the nodes one at a time, each as its own cached compiled call."""
    needed = dead_code(fold(Tape((), tuple(inlined(nodes)), tuple(outputs))))
    nodes, outputs = needed.nodes, needed.outputs
    last_use = {v: i for i, node in enumerate(nodes) for v in node.inputs}
    keep = set(outputs)
    env: dict[Var, Any] = {}
    for i, node in enumerate(nodes):
        op = node.op
        values = []
        for v in node.inputs:
            value = env.get(v)
            if value is None:
                value = v.value if v.tape is not None or v.aval.weak_type else np.asarray(v.value, v.aval.dtype)
            values.append(value)
        out = op.compiled(node.params)(*values)
        _compiled_alone.keep(_alone(node), True)
        if op.multiple:
            env.update(zip(node.outputs, out, strict=True))
        else:
            env[node.outputs[0]] = out
        for v in node.inputs:
            if last_use[v] == i and v not in keep:
                env.pop(v, None)
    return [env.get(v, v.value) for v in outputs]
