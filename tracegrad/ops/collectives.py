"""Collectives: what the devices along a mapped axis tell each other, and what each may call its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from ..op import Op
from ..tape import Aval, Tape, aval_of, make_aval
from ..varying import marked

Names = tuple[str, ...]


def _same(x: Aval, *, axis_name: Names) -> Aval:
    return x


def _combined(axes: frozenset[str], *, axis_name: Names) -> frozenset[str]:
    return axes - set(axis_name)


def _told_apart(axes: frozenset[str], *, axis_name: Names) -> frozenset[str]:
    return axes | set(axis_name)


def _psum_vjp(ct: Any, out: Any, x: Any, *, axis_name: Names) -> Any:
    # Along an axis where the term is each device's own, all of them have the cotangent of the sum. Along another it
    # is a multiple of the term. Where a mapping of JAX's does not say which, it is the derivative of the sum of all
    # devices' results, as that of jax.lax.psum.
    same = tuple(name for name in axis_name if name not in x.aval.varying)
    return psum_op(ct, axis_name=same) if same else ct


psum_op: Op = Op(
    "psum",
    lambda x, *, axis_name: lax.psum(x, axis_name),
    (_psum_vjp,),
    shape=lambda x, *, axis_name: make_aval(x.shape, x.dtype),
    axes=_combined,
)
pmax_op: Op = Op("pmax", lambda x, *, axis_name: lax.pmax(x, axis_name), None, shape=_same, axes=_combined)
pmin_op: Op = Op("pmin", lambda x, *, axis_name: lax.pmin(x, axis_name), None, shape=_same, axes=_combined)
axis_index_op: Op = Op(
    "axis_index",
    lambda *, axis_name: lax.axis_index(axis_name[0]),
    None,
    shape=lambda *, axis_name: make_aval((), np.dtype(np.int32)),
    axes=_told_apart,
)


def _vary(x: Any, *, axis_name: Names) -> Any:
    return marked(x, frozenset(axis_name))


vary_op: Op = Op("vary", _vary, (lambda ct, out, x, *, axis_name: ct,), shape=_same, axes=_told_apart)
"""What is the same on all devices as each device's own. Its cotangent is summed, as that of any such value is."""


def vary(x: Any, axes: frozenset[str]) -> Any:
    """`x`, as something that varies along these axes too."""
    missing = axes - aval_of(x).varying
    return vary_op(x, axis_name=tuple(sorted(missing))) if missing else x


_COLLECTIVES = frozenset([psum_op, pmax_op, pmin_op])


def communicates(body: Tape) -> frozenset[str]:
    """The axes over which a body, or one that it runs, has collectives."""
    found: set[str] = set()
    for node in body.nodes:
        if node.op in _COLLECTIVES:
            found.update(node.params["axis_name"])
        for value in node.params.values():
            for part in value if type(value) is tuple else (value,):
                if isinstance(part, Tape):
                    found |= communicates(part)
    return frozenset(found)


__all__ = ["axis_index_op", "communicates", "pmax_op", "pmin_op", "psum_op", "vary", "vary_op"]
