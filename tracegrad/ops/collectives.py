"""Collectives: what the devices along a mapped axis tell each other, and what each may call its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax

from ..errors import here
from ..op import Op
from ..tape import Aval, Tape, aval_of, make_aval
from ..tracer import literal
from ..varying import mapped_by_jax, marked
from .elementwise import astype, div, equal, mul
from .shape import dynamic_slice

Names = tuple[str, ...]


def _same(x: Aval, *, axis_name: Names) -> Aval:
    return x


def _combined(axes: frozenset[str], *, axis_name: Names, **shares: int) -> frozenset[str]:
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


def _extreme_vjp(ct: Any, out: Any, x: Any, *, axis_name: Names) -> Any:
    # As that of a maximum over an array: in equal parts to those devices that have it.
    ct = _psum_vjp(ct, out, x, axis_name=axis_name)
    chosen = astype(equal(x, out), dtype=x.aval.dtype)
    return div(mul(ct, chosen), psum_op(chosen, axis_name=axis_name))


pmax_op: Op = Op("pmax", lambda x, *, axis_name: lax.pmax(x, axis_name), (_extreme_vjp,), shape=_same, axes=_combined)
pmin_op: Op = Op("pmin", lambda x, *, axis_name: lax.pmin(x, axis_name), (_extreme_vjp,), shape=_same, axes=_combined)


# What moves parts of arrays between the devices along one axis, in shares along an axis that is there. Each is linear,
# and its derivative is another of them. What it returns is each device's own, as in JAX, even if all have the same.


def _gathered(x: Aval, *, axis_name: Names, size: int, axis: int) -> Aval:
    return make_aval((*x.shape[:axis], x.shape[axis] * size, *x.shape[axis + 1 :]), x.dtype, x.weak_type)


def _scattered(x: Aval, *, axis_name: Names, size: int, axis: int) -> Aval:
    return make_aval((*x.shape[:axis], x.shape[axis] // size, *x.shape[axis + 1 :]), x.dtype, x.weak_type)


def _exchanged(x: Aval, *, axis_name: Names, size: int, split_axis: int, concat_axis: int) -> Aval:
    shape = list(x.shape)
    shape[split_axis] //= size
    shape[concat_axis] *= size
    return make_aval(tuple(shape), x.dtype, x.weak_type)


def _permuted(x: Any, *, axis_name: Names, perm: tuple[tuple[int, int], ...]) -> Any:
    try:
        return lax.ppermute(x, axis_name, perm)
    except AssertionError:
        # JAX's own limit, which it does not put into words.
        raise NotImplementedError(
            f"ppermute: perm={list(perm)} leaves positions out, and inside vmap every one has to send {here()}. Let "
            "the others send too, such as round a ring, and multiply what is not wanted by 0; pmap takes it as it is."
        ) from None


all_gather_op: Op = Op(
    "all_gather",
    lambda x, *, axis_name, size, axis: lax.all_gather(x, axis_name, axis=axis, tiled=True),
    (lambda ct, out, x, **params: psum_scatter_op(ct, **params),),
    shape=_gathered,
)


def _gather_alike(x: Any, *, axis_name: Names, size: int, axis: int) -> Any:
    # Only where JAX keeps track of what varies does it have a gather that says that all devices have the same.
    tracked = mapped_by_jax().keys() & set(axis_name)
    return lax.all_gather(x, axis_name, axis=axis, tiled=True, to="invarying" if tracked else "varying")


def _gather_alike_vjp(ct: Any, out: Any, x: Any, *, axis_name: Names, size: int, axis: int) -> Any:
    if axis_name[0] not in x.aval.varying:
        # As with psum: where a mapping of JAX's does not say what varies, that of all devices' results together.
        return psum_scatter_op(ct, axis_name=axis_name, size=size, axis=axis)
    starts: list[Any] = [literal(0)] * x.aval.ndim
    starts[axis] = mul(axis_index_op(axis_name=axis_name), literal(x.aval.shape[axis]))
    return dynamic_slice(ct, starts, x.aval.shape)


all_gather_alike_op: Op = Op("all_gather_alike", _gather_alike, (_gather_alike_vjp,), shape=_gathered, axes=_combined)
"""A gather along one axis, whose result is one value for all devices, with one cotangent."""

psum_scatter_op: Op = Op(
    "psum_scatter",
    lambda x, *, axis_name, size, axis: lax.psum_scatter(x, axis_name, scatter_dimension=axis, tiled=True),
    (lambda ct, out, x, **params: all_gather_op(ct, **params),),
    shape=_scattered,
)
all_to_all_op: Op = Op(
    "all_to_all",
    lambda x, *, axis_name, size, split_axis, concat_axis: lax.all_to_all(
        x, axis_name, split_axis, concat_axis, tiled=True
    ),
    (
        lambda ct, out, x, *, axis_name, size, split_axis, concat_axis: all_to_all_op(
            ct, axis_name=axis_name, size=size, split_axis=concat_axis, concat_axis=split_axis
        ),
    ),
    shape=_exchanged,
)
ppermute_op: Op = Op(
    "ppermute",
    _permuted,
    (
        lambda ct, out, x, *, axis_name, perm: ppermute_op(
            ct, axis_name=axis_name, perm=tuple((to, source) for source, to in perm)
        ),
    ),
    shape=lambda x, *, axis_name, perm: make_aval(x.shape, x.dtype, x.weak_type),
)
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


_COLLECTIVES = frozenset(
    [psum_op, pmax_op, pmin_op, all_gather_op, all_gather_alike_op, psum_scatter_op, all_to_all_op, ppermute_op]
)


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


__all__ = [
    "all_gather_alike_op", "all_gather_op", "all_to_all_op", "axis_index_op", "communicates", "pmax_op", "pmin_op",
    "ppermute_op", "psum_op", "psum_scatter_op", "vary", "vary_op",
]  # fmt: skip
