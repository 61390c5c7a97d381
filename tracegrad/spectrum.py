"""Spectra of Hermitian matrices: rules that look at what became of the eigenvalues. Uses backward, and ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .backward import backward
from .op import Op
from .ops import abs_, bitwise_or, div, div_no_nan, greater, iota, mul, mul_no_nan_op, reduce_max, sub, where, zeros_of
from .ops.linalg import (
    adjoint,
    column,
    conjugate,
    differences,
    on_diagonal,
    product,
    real_dtype,
    row,
    square_matrices,
    swap,
)
from .recording import Recording, state
from .tape import Aval, Node, make_aval
from .tracer import literal

Cotangents = Sequence[Any]


def _eigh_types(x: Aval) -> tuple[Aval, ...]:
    square_matrices(x)
    return make_aval(x.shape, x.dtype), make_aval(x.shape[:-1], real_dtype(x.dtype))


def _eigh_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    outputs: Sequence[Any] = node.outputs
    v, w = outputs
    ct_v, ct_w = cts
    if ct_v is None:
        tape = state.tape
        # In a body, which is split in two when this is done, `ct_w` will not lead back to `w`.
        known = tape is not None and tape.run is None and tape.captured is None and w.tape is tape
        slope = (_own_slope(tape, ct_w, w),) if known else ()
        return [from_spectrum_op(node.inputs[0], v, w, ct_w, *slope)]
    inner = on_diagonal(product(adjoint(v), conjugate(ct_v)), 0.0)
    # Not 0 where eigenvalues are the same: the vectors have no derivative there, and a 0 would hide it.
    inner = div_no_nan(inner, differences(w))
    inner = product(v, inner if ct_w is None else on_diagonal(inner, row(ct_w)))
    return [conjugate(product(inner, adjoint(v)))]


# A function of eigenvalues alone meets their vectors in two products, which are each other's transposes. Each takes
# the matrix too, whose cotangent its rule gives directly: the derivative of the vectors alone is not finite where
# eigenvalues are the same, while that of the products is, if the function is one in which they may change places.


def _spectral_types(a: Aval, v: Aval, w: Aval, q: Aval, *slope: Aval) -> Aval:
    return make_aval(a.shape, np.result_type(a.dtype, q.dtype))


def _from_spectrum(a: Any, v: Any, w: Any, q: Any, *slope: Any) -> Any:
    v = jnp.conj(v)
    return jnp.matmul(v * q[..., None, :], jnp.conj(jnp.swapaxes(v, -1, -2)), precision=lax.Precision.HIGHEST)


def _from_spectrum_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    a, v, w, q, *slope = node.inputs
    ct_a = None
    if needs[0]:
        ct_a = _turned(v, w, cts[0], q, slope[0] if slope else _own_slope(node.outputs[0].tape, q, w))
    ct_q = along_spectrum_op(a, v, w, cts[0]) if needs[3] else None
    return [ct_a, None, None, ct_q, *[None] * len(slope)]


def _along_spectrum(a: Any, v: Any, w: Any, g: Any) -> Any:
    return jnp.sum(jnp.real(jnp.conj(v) * jnp.matmul(g, v, precision=lax.Precision.HIGHEST)), -2)


def _along_spectrum_vjp(node: Node, cts: Cotangents, needs: Sequence[bool]) -> Cotangents:
    a, v, w, g = node.inputs
    ct_g = from_spectrum_op(a, v, w, cts[0]) if needs[3] else None
    ct_a = _turned(v, w, g, cts[0], _own_slope(node.outputs[0].tape, cts[0], w)) if needs[0] else None
    return [ct_a, None, None, ct_g]


def _turned(v: Any, w: Any, g: Any, q: Any, slope: Any) -> Any:
    """The cotangent of the matrix, through its vectors `v`, of the real part of `tr(g v diag(q) v^H)`."""
    inner = product(product(adjoint(v), g), v)
    change, gaps = sub(row(q), column(q)), differences(w)
    # Where two eigenvalues are the same up to rounding, the limit of change / gap is how much more one element of `q`
    # follows its own eigenvalue than the other. It explains the change, unless the two may not change places.
    limit = div(sub(row(slope), column(slope)), differences(iota(dtype=w.dtype, shape=w.shape[-1:], axis=0)))
    tolerance = math.sqrt(float(np.finfo(w.dtype).eps))
    far = greater(abs_(on_diagonal(gaps, 0.0)), mul(_largest(w), tolerance))
    far = bitwise_or(far, greater(abs_(sub(change, mul(limit, gaps))), mul(_largest(q), tolerance)))
    quotient = div_no_nan(mul(inner, change), where(far, gaps, 1.0))
    inner = on_diagonal(where(far, quotient, mul(inner, limit)), 0.0)
    return swap(product(product(v, inner), adjoint(v)))


def _largest(q: Any) -> Any:
    """The largest magnitude in each vector, as a matrix of one element."""
    return column(reduce_max(abs_(row(q)), axes=(q.ndim,))) if q.shape[-1] else column(q)


def _own_slope(tape: Recording | None, q: Any, w: Any) -> Any:
    """The derivative of `0 q[0] + 1 q[1] + 2 q[2] + ...` in the eigenvalues `w`, by what the tape has recorded.

    Between two eigenvalues that are the same it differs as `q` does with its own and not with the other, for each
    step between their places. It is NaN if the way from `w` to `q` is not all on the tape, or has no derivative.
    """
    nodes = tape.nodes if tape is not None else []
    start = next((i for i in reversed(range(len(nodes))) if nodes[i].outputs[-1] is w), None)
    if tape is None or start is None:
        return mul_no_nan_op(q, literal(math.nan))
    steps = iota(dtype=w.dtype, shape=w.shape, axis=w.ndim - 1)
    try:
        (slope,) = backward(tape, [q], [steps], [w], start + 1)
    except NotImplementedError:
        return mul_no_nan_op(q, literal(math.nan))
    return zeros_of(w) if slope is None else slope


from_spectrum_op: Op = Op("from_spectrum", _from_spectrum, _from_spectrum_vjp, shape=_spectral_types)
"""`conj(v diag(q) v^H)`, for the eigenvectors `v` and eigenvalues `w` of `a`."""

along_spectrum_op: Op = Op(
    "along_spectrum", _along_spectrum, _along_spectrum_vjp,
    shape=lambda a, v, w, g: make_aval(w.shape, real_dtype(np.result_type(a.dtype, g.dtype))),
)  # fmt: skip
"""The real part of the diagonal of `v^H g v`: how the eigenvalues of `a` change as it does by `g`."""


def _eigh(x: Any) -> Any:
    return tuple(lax.linalg.eigh(x, symmetrize_input=False))


eigh_op: Op = Op("eigh", _eigh, _eigh_vjp, shape=_eigh_types, multiple=True)
"""The eigenvectors of Hermitian matrices, and the eigenvalues; it reads the lower triangle, as `cholesky` does."""
