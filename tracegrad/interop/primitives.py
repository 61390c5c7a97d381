"""What each primitive of JAX is recorded as: a function that takes its operands and parameters and records ops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import lax as tlax
from .. import ops
from ..control import scan, switch, while_loop
from ..jaxpr import PRIMITIVES, import_jaxpr, name_op, record_jaxpr, run_jaxpr
from ..op import Op
from ..ops import linalg, special
from ..remat import checkpoint_op
from ..spectrum import eigh_op
from ..tape import Node, aval_of, make_aval
from ..tracer import Literal
from .custom import custom_jvp_call, custom_linear_solve, custom_vjp_call

Rule = Callable[..., Any]


def _ints(values: Any) -> tuple[int, ...]:
    return tuple(map(int, values))


# Operands that the primitive takes in the same order, and parameters that say nothing about the value.
_ELEMENTWISE: dict[str, Op] = {
    "abs": ops.abs_, "acos": ops.arccos, "acosh": ops.arccosh, "add": ops.add, "add_any": ops.add,
    "and": ops.bitwise_and, "asin": ops.arcsin, "asinh": ops.arcsinh, "atan": ops.arctan,
    "atan2": ops.arctan2, "atanh": ops.arctanh, "bessel_i0e": ops.i0e, "bessel_i1e": ops.i1e,
    "cbrt": ops.cbrt, "ceil": ops.ceil, "clz": ops.clz,
    "complex": ops.complex_, "copy": ops.alias, "copy_p": ops.alias, "cos": ops.cos, "cosh": ops.cosh,
    "digamma": ops.digamma, "eq": ops.equal, "erf": ops.erf, "erf_inv": ops.erf_inv, "erfc": ops.erfc, "exp": ops.exp,
    "exp2": ops.exp2, "expm1": ops.expm1, "floor": ops.floor, "ge": ops.greater_equal, "gt": ops.greater,
    "igamma": special.gammainc, "igamma_grad_a": special.gammainc_grad_a, "igammac": special.gammaincc,
    "imag": ops.imag, "is_finite": ops.isfinite, "le": ops.less_equal, "lgamma": ops.lgamma, "log": ops.log,
    "log1p": ops.log1p, "log2": ops.log2, "logistic": ops.logistic, "lt": ops.less, "max": ops.maximum,
    "min": ops.minimum, "ne": ops.not_equal, "neg": ops.neg, "not": ops.bitwise_not, "or": ops.bitwise_or,
    "polygamma": ops.polygamma,
    "population_count": ops.population_count, "pow": ops.pow_, "real": ops.real,
    "regularized_incomplete_beta": special.betainc, "rem": ops.fmod, "rsqrt": ops.rsqrt, "shift_left": ops.left_shift,
    "shift_right_arithmetic": ops.shift_right_arithmetic, "shift_right_logical": ops.shift_right_logical,
    "sign": ops.sign, "sin": ops.sin, "sinh": ops.sinh, "sqrt": ops.sqrt, "square": ops.square,
    "sub": ops.sub, "tan": ops.tan, "tanh": ops.tanh, "xor": ops.bitwise_xor,
    "zeta": special.zeta,
}  # fmt: skip


def _elementwise(op: Op) -> Rule:
    return lambda *xs, **params: op(*xs)


def _mul(x: Any, y: Any, *, out_dtype: Any = None) -> Any:
    if out_dtype is not None and np.dtype(out_dtype) != aval_of(x).dtype:
        return NotImplemented
    return ops.mul(x, y)


def _conj(x: Any, **params: Any) -> Any:
    return ops.conj(x) if aval_of(x).dtype.kind == "c" else NotImplemented


def _select_n(which: Any, *cases: Any) -> Any:
    return NotImplemented if len(cases) < 2 else tlax.select_n(which, *cases)


# -- dtypes


def _convert_element_type(x: Any, *, new_dtype: Any, weak_type: bool = False, **params: Any) -> Any:
    aval = aval_of(x)
    if not isinstance(new_dtype, np.dtype) or new_dtype == jax.dtypes.float0:
        return NotImplemented
    if (aval.dtype, aval.weak_type) == (new_dtype, weak_type):
        return ops.alias(x)
    if not weak_type:
        return ops.astype(x, dtype=new_dtype)
    if isinstance(x, Literal) and aval.dtype == new_dtype:
        return Literal(make_aval((), new_dtype, True), None, x.value)
    return ops.weak_op(x, dtype=new_dtype)


# -- shapes


def _broadcast_in_dim(x: Any, *dynamic: Any, shape: Any, broadcast_dimensions: Any, **params: Any) -> Any:
    return NotImplemented if dynamic else ops.broadcast_in_dim(x, shape=_ints(shape), dims=_ints(broadcast_dimensions))


def _reshape(x: Any, *dynamic: Any, new_sizes: Any, dimensions: Any = None, **params: Any) -> Any:
    return NotImplemented if dynamic else tlax.reshape(x, _ints(new_sizes), dimensions)


def _starts(starts: Sequence[Any]) -> list[Any]:
    """Starts of windows, which the primitive clamps; our ops count negative ones from the end."""
    return [
        i if aval_of(i).dtype.kind == "u" or (isinstance(i, Literal) and i.value >= 0) else ops.maximum(i, 0)
        for i in starts
    ]


def _dynamic_slice(x: Any, *starts: Any, slice_sizes: Any) -> Any:
    return ops.dynamic_slice_op(x, *_starts(starts), sizes=_ints(slice_sizes))


def _dynamic_update_slice(x: Any, update: Any, *starts: Any) -> Any:
    return ops.dynamic_update_slice_op(x, update, *_starts(starts))


def _iota(*dynamic: Any, dtype: Any, shape: Any, dimension: int, **params: Any) -> Any:
    return NotImplemented if dynamic else ops.iota(dtype=np.dtype(dtype), shape=_ints(shape), axis=int(dimension))


def _device_put(*xs: Any, devices: Any, **params: Any) -> Any:
    return list(xs) if all(d is None for d in devices) else NotImplemented


# -- indexing


def _scatter(function: Rule) -> Rule:
    def rule(
        x: Any, indices: Any, updates: Any, *, dimension_numbers: Any, indices_are_sorted: bool, unique_indices: bool,
        mode: Any, **params: Any,
    ) -> Any:  # fmt: skip
        return function(
            x, indices, updates, dimension_numbers,
            indices_are_sorted=indices_are_sorted, unique_indices=unique_indices, mode=mode,
        )  # fmt: skip

    return rule


# -- reductions and windows


def _reduce(op: Op) -> Rule:
    return lambda x, *, axes, **params: op(x, axes=_ints(axes))


def _reduce_bool(op: Op) -> Rule:
    return lambda x, *, axes, **params: op(x, axes=_ints(axes)) if aval_of(x).dtype == np.bool_ else NotImplemented


def _window(combine: Op, neutral: Callable[[Any], Any]) -> Rule:
    def rule(
        x: Any, *, window_dimensions: Any, window_strides: Any, padding: Any, base_dilation: Any, window_dilation: Any
    ) -> Any:
        return tlax.reduce_window(
            x,
            neutral(aval_of(x).dtype),
            combine,
            window_dimensions,
            window_strides,
            padding,
            base_dilation,
            window_dilation,
        )

    return rule


def _least(dtype: Any) -> Any:
    return -math.inf if jnp.issubdtype(dtype, np.inexact) else int(jnp.iinfo(dtype).min)  # type: ignore[no-untyped-call]


def _greatest(dtype: Any) -> Any:
    return math.inf if jnp.issubdtype(dtype, np.inexact) else int(jnp.iinfo(dtype).max)  # type: ignore[no-untyped-call]


def _sort(*xs: Any, dimension: int, is_stable: bool, num_keys: int) -> Any:
    if not any(aval_of(x).differentiable for x in xs):
        return NotImplemented
    return ops.sort_op(*xs, axis=int(dimension), descending=False, stable=is_stable, keys=num_keys)[:-1]


def _approx_top_k(
    x: Any, *, k: int, reduction_dimension: int, is_max_k: bool, reduction_input_size_override: int, **options: Any
) -> Any:
    return ops.approx_top_k_op(
        x, k=int(k), axis=int(reduction_dimension) % aval_of(x).ndim, largest=is_max_k,
        reduction_input_size_override=reduction_input_size_override, **options,
    )  # fmt: skip


# -- products


def _dot_general(
    x: Any, y: Any, *, dimension_numbers: Any, precision: Any, preferred_element_type: Any, **params: Any
) -> Any:
    (xc, yc), (xb, yb) = dimension_numbers
    options: dict[str, Any] = {} if precision is None else {"precision": precision}
    if preferred_element_type is not None and preferred_element_type != aval_of(x).dtype:
        options["dtype"] = np.dtype(preferred_element_type)
    return ops.dot_general(x, y, dims=((_ints(xc), _ints(yc)), (_ints(xb), _ints(yb))), **options)


def _conv(
    x: Any, kernel: Any, *, padding: Any, dimension_numbers: Any, window_strides: Any, lhs_dilation: Any,
    rhs_dilation: Any, feature_group_count: int, batch_group_count: int, precision: Any, preferred_element_type: Any,
    **params: Any,
) -> Any:  # fmt: skip
    return ops.conv_op(
        x,
        kernel,
        window_strides=_ints(window_strides),
        padding=tuple(map(_ints, padding)),
        lhs_dilation=_ints(lhs_dilation),
        rhs_dilation=_ints(rhs_dilation),
        dimension_numbers=jax.lax.ConvDimensionNumbers(*map(_ints, dimension_numbers)),
        feature_group_count=int(feature_group_count),
        batch_group_count=int(batch_group_count),
        precision=precision,
        dtype=preferred_element_type,
    )


def _fft(x: Any, *, fft_type: Any, fft_lengths: Any) -> Any:
    return ops.fft_op(x, kind=fft_type.name.lower(), lengths=_ints(fft_lengths))


# -- linear algebra


def _eigh(x: Any, *, lower: bool, sort_eigenvalues: bool, subset_by_index: Any, **params: Any) -> Any:
    if not sort_eigenvalues or subset_by_index is not None:
        return NotImplemented
    return eigh_op(x if lower else linalg.adjoint(x))


def _eig(x: Any, *, compute_left_eigenvectors: bool, compute_right_eigenvectors: bool, **params: Any) -> Any:
    return NotImplemented if compute_left_eigenvectors else linalg.eig_op(x, vectors=compute_right_eigenvectors)


def _svd(x: Any, *, full_matrices: bool, compute_uv: bool, subset_by_index: Any, **params: Any) -> Any:
    if subset_by_index is not None:
        return NotImplemented
    return linalg.svd_op(x, full_matrices=full_matrices, compute_uv=compute_uv)


def _qr(x: Any, *, pivoting: bool, full_matrices: bool, **params: Any) -> Any:
    return linalg.qr_op(x, full_matrices=full_matrices, pivoting=pivoting)


# -- random numbers


def _random_gamma_vjp(ct: Any, out: Any, key: Any, alpha: Any, *, log_space: bool) -> Any:
    sample = ops.exp(out) if log_space else out
    grad = _gamma_grad(alpha, sample)
    return ops.mul(ct, ops.div(grad, sample) if log_space else grad)


def _no_second(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    raise NotImplementedError(
        "from_jax: the second derivative of a random number of the gamma distribution by its parameter is not known. "
        "Use jax.lax.stop_gradient where it is not needed."
    )


_gamma_grad: Op = Op("random_gamma_grad", jax.lax.random_gamma_grad, _no_second, shape=lambda alpha, sample: alpha)


def _gamma(key: Any, alpha: Any, *, log_space: bool) -> Any:
    return (jax.random.loggamma if log_space else jax.random.gamma)(key, alpha, dtype=alpha.dtype)


_random_gamma: Op = Op(
    "random_gamma",
    _gamma,
    (None, _random_gamma_vjp),
    shape=lambda key, alpha, *, log_space: make_aval(alpha.shape, alpha.dtype),
)

# -- nested jaxprs


def _jit(*xs: Any, jaxpr: Any, name: str = "jit", **params: Any) -> Any:
    return run_jaxpr(jaxpr, xs, name)


def _closed_call(*xs: Any, call_jaxpr: Any, **params: Any) -> Any:
    return run_jaxpr(call_jaxpr, xs, "call")


@dataclass(frozen=True)
class _Policy:
    """A policy of `jax.checkpoint_policies`, asked about nodes of a tape."""

    policy: Callable[..., Any]

    def __call__(self, node: Node) -> bool:
        primitive, params = jax.lax.add_p, {}
        if node.op is ops.dot_general:
            primitive, params = jax.lax.dot_general_p, {"dimension_numbers": node.params["dims"]}
        elif node.op is ops.conv_op:
            primitive = jax.lax.conv_general_dilated_p
        elif node.op is name_op:
            primitive, params = node.params["eqn"].primitive, node.params["eqn"].params
        saved = self.policy(primitive, *[v.aval.struct() for v in node.inputs], **params)
        # Besides True and False there are objects for "saved", "saved on the host" and "computed again".
        return saved is True or not (saved is False or type(saved).__name__.startswith("Recompute"))


def _checkpoint(*xs: Any, jaxpr: Any, prevent_cse: Any = True, policy: Any = None, **params: Any) -> Any:
    body, consts = record_jaxpr(jaxpr, "checkpoint", [aval_of(x) for x in xs])
    kept = None if policy is None else _Policy(policy)
    return checkpoint_op(*xs, *consts, body=body, policy=kept, prevent_cse=prevent_cse is not False)


def _scan(*xs: Any, jaxpr: Any, length: int, reverse: bool, unroll: Any, **params: Any) -> Any:
    if "ft_in" in params:  # how JAX 0.11 says what the operands are
        num_consts, num_carry = (len(part) for part in params["ft_in"].unpack()[:2])
    else:
        num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts, init = xs[:num_consts], xs[num_consts : num_consts + num_carry]

    def step(carry: Any, x: Any) -> Any:
        outs = import_jaxpr(jaxpr, [*consts, *carry, *x])
        return tuple(outs[:num_carry]), tuple(outs[num_carry:])

    carry, ys = scan(step, tuple(init), tuple(xs[num_consts + num_carry :]), int(length), reverse, unroll)
    return [*carry, *ys]


def _while(*xs: Any, cond_jaxpr: Any, cond_nconsts: int, body_jaxpr: Any, body_nconsts: int) -> Any:
    start = cond_nconsts + body_nconsts
    for_cond, for_body = xs[:cond_nconsts], xs[cond_nconsts:start]

    def test(carry: Any) -> Any:
        return import_jaxpr(cond_jaxpr, [*for_cond, *carry])[0]

    def step(carry: Any) -> Any:
        return tuple(import_jaxpr(body_jaxpr, [*for_body, *carry]))

    batch = cond_jaxpr.out_avals[0].shape
    if not batch:
        return while_loop(test, step, tuple(xs[start:]))

    # What jax.vmap has made of a loop goes on while any element does; those that are done stay as they are.
    def step_some(carry: Any) -> Any:
        going = test(carry)
        new = step(carry)
        return tuple(ops.where(ops.reshape(going, shape=(*batch, *[1] * (n.ndim - len(batch)))), n, o)
                     for n, o in zip(new, carry, strict=True))  # fmt: skip

    return while_loop(lambda c: ops.reduce_any(test(c), axes=tuple(range(len(batch)))), step_some, tuple(xs[start:]))


def _cond(index: Any, *xs: Any, branches: Any, **params: Any) -> Any:
    def branch(jaxpr: Any) -> Any:
        return lambda *inner: tuple(import_jaxpr(jaxpr, inner))

    return switch(index, [branch(jaxpr) for jaxpr in branches], *xs)


# Named as the functions and ops that they are recorded as.
_SCATTERS = ("", "_add", "_sub", "_mul", "_min", "_max")
_REDUCTIONS = ("reduce_max", "reduce_min", "reduce_prod", "reduce_sum")

PRIMITIVES.update(
    {
        **{name: _elementwise(op) for name, op in _ELEMENTWISE.items()},
        **{f"scatter{kind}": _scatter(getattr(tlax, f"scatter{kind}")) for kind in _SCATTERS},
        **{name: _reduce(getattr(ops, name)) for name in _REDUCTIONS},
        "approx_top_k": _approx_top_k,
        "bitcast_convert_type": tlax.bitcast_convert_type,
        "broadcast_in_dim": _broadcast_in_dim,
        "checkpoint": _checkpoint,
        "cholesky": lambda x, **params: linalg.cholesky_op(x),
        "clamp": tlax.clamp,
        "closed_call": _closed_call,
        "composite": _jit,
        "concatenate": lambda *xs, dimension: ops.concatenate(*xs, axis=int(dimension)),
        "cond": _cond,
        "conj": _conj,
        "conv_general_dilated": _conv,
        "convert_element_type": _convert_element_type,
        "core_call": _closed_call,
        "cumlogsumexp": tlax.cumlogsumexp,
        "cummax": tlax.cummax,
        "cummin": tlax.cummin,
        "cumprod": tlax.cumprod,
        "cumsum": tlax.cumsum,
        "custom_jvp_call": custom_jvp_call,
        "custom_linear_solve": custom_linear_solve,
        "custom_vjp_call": custom_vjp_call,
        "device_put": _device_put,
        "div": tlax.div,
        "dot_general": _dot_general,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
        "eig": _eig,
        "eigh": _eigh,
        "eval_jaxpr": _jit,
        "fft": _fft,
        "gather": tlax.gather,
        "one_minus_square": tlax.one_minus_square,
        "integer_pow": lambda x, *, y: ops.integer_pow(x, n=int(y)),
        "iota": _iota,
        "jit": _jit,
        "lu": lambda x, **params: linalg.lu_op(x),
        "mul": _mul,
        "optimization_barrier": lambda *xs: ops.optimization_barrier_op(*xs),
        "pad": tlax.pad,
        "pjit": _jit,
        "qr": _qr,
        "random_gamma": lambda key, alpha, *, log_space, **params: _random_gamma(key, alpha, log_space=log_space),
        "random_gamma_grad": lambda alpha, sample, **params: _gamma_grad(alpha, sample),
        "reduce_and": _reduce_bool(ops.reduce_all),
        "reduce_or": _reduce_bool(ops.reduce_any),
        "reduce_precision": tlax.reduce_precision,
        "reduce_window_max": _window(tlax.max, _least),
        "reduce_window_min": _window(tlax.min, _greatest),
        "reduce_window_sum": _window(tlax.add, lambda dtype: 0),
        "remat2": _checkpoint,
        "reshape": _reshape,
        "rev": tlax.rev,
        "scan": _scan,
        "select_n": _select_n,
        "slice": tlax.slice,
        "sort": _sort,
        "split": tlax.split,
        "squeeze": tlax.squeeze,
        "stack": lambda *xs, axis: tlax.stack(xs, int(axis)),
        "svd": _svd,
        "tile": tlax.tile,
        "top_k": lambda x, *, k, axis, **params: ops.top_k(x, int(k), axis=int(axis)),
        "transpose": tlax.transpose,
        "triangular_solve": lambda a, b, **params: linalg.triangular_solve_op(a, b, **params),
        "unstack": tlax.unstack,
        "while": _while,
    }
)
"""The primitives of JAX that are recorded as ops of ours, by name; any other is bound as it is.

A rule returns `NotImplemented` for parameters that it does not know.
"""
