"""Which values differ from device to device, and what that means for their cotangents."""

from __future__ import annotations

from typing import Any

from .tape import Node, Tape, Var

NOWHERE: frozenset[str] = frozenset()


def varying_axes(tape: Tape, v: Var) -> frozenset[str]:
    """The mapped axes along which `v` may differ between devices; along the others it is replicated."""
    done, known = tape.varying
    nodes = tape.nodes
    for i in range(done, len(nodes)):
        node = nodes[i]
        axes = _axes_of(node, known)
        for o in node.outputs:
            known[o] = axes
    tape.varying = (len(nodes), known)
    return known.get(v, NOWHERE)


def _axes_of(node: Node, known: dict[Var, frozenset[str]]) -> frozenset[str]:
    axes = NOWHERE.union(*[known.get(v, NOWHERE) for v in node.inputs])
    change = AXES_RULES.get(node.op.name)
    return change(axes, node.params["axis_name"]) if change is not None else axes


AXES_RULES: dict[str, Any] = {
    "psum": lambda axes, names: axes - set(names),
    "pmax": lambda axes, names: axes - set(names),
    "pmin": lambda axes, names: axes - set(names),
    "axis_index": lambda axes, names: axes | set(names),
}


def sum_over_missing_axes(tape: Tape, ct: Any, v: Var, source: Var) -> Any:
    """The cotangent of `v`, summed over the axes along which `ct` varies and `v` does not.

    A replicated value used on every device owes its cotangent to all of them. This is the one place
    where that sum is taken, so that it is taken exactly once. `ct` comes from the cotangent of `source`,
    which is each device's own along the axes where `source` varies, even if it is 1 on all of them.
    """
    axes = (varying_axes(tape, ct) | varying_axes(tape, source)) - varying_axes(tape, v)
    if not axes:
        return ct
    from .parallel.collectives import psum_op

    return psum_op(ct, axis_name=tuple(sorted(axes)))
