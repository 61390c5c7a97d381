"""Which values differ from device to device, and what that means for their cotangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax import lax

from .tape import Node, Tape, Var

NOWHERE: frozenset[str] = frozenset()


def varying_axes(tape: Tape, v: Var) -> frozenset[str]:
    """The mapped axes along which `v` may differ between devices; along the others it is replicated."""
    if v.tape is not None and v.tape is not tape and v.tape.axes:
        tape = v.tape  # a pullback that is recorded in a body reads values of the recording around it
    done, known = tape.varying
    nodes = tape.nodes
    for i in range(done, len(nodes)):
        node = nodes[i]
        axes = _axes_of(node, known)
        for o in node.outputs:
            known[o] = axes
    tape.varying = (len(nodes), known)
    return known[v] if v in known else _manual(v.value)


def mapped_by_jax() -> dict[str, int]:
    """The axes, with their sizes, of a `jax.shard_map` around this that keeps track of what differs along them.

    With `check_vma=False` it does not, and neither can we: what is replicated cannot be told from what is not.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = mesh.manual_axes
    return {name: mesh.shape[name] for name in names} if names and _manual(lax.axis_index(names[0])) else {}


def _manual(value: Any) -> frozenset[str]:
    """The axes of `jax.shard_map` along which JAX says that a value varies."""
    if not isinstance(value, jax.core.Tracer):
        return NOWHERE
    return frozenset(jax.typeof(value).manual_axis_type.varying)


def varying_alike(xs: Sequence[Any], of: Sequence[Any]) -> tuple[Any, ...]:
    """`xs`, marked for `jax.shard_map` as varying wherever one of `of` does: what a loop or branch returns must be."""
    axes = NOWHERE.union(*map(_manual, of))
    if not axes:
        return tuple(xs)
    return tuple(lax.pcast(x, tuple(axes - _manual(x)), to="varying") if axes - _manual(x) else x for x in xs)


def _axes_of(node: Node, known: dict[Var, frozenset[str]]) -> frozenset[str]:
    axes = NOWHERE.union(*[known[v] if v in known else _manual(v.value) for v in node.inputs])
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
