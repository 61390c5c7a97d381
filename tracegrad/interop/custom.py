"""Derivatives that JAX code brings along: `jax.custom_jvp`, `jax.custom_vjp` and `jax.lax.custom_linear_solve`.

A function with a rule of its own becomes one node that holds its body and the rule. When it is differentiated the rule,
plain JAX code itself, is traced and imported, so that its result can be differentiated again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..backward import backward, body_cotangents
from ..body import call, called_backward
from ..errors import describe_source, here
from ..inference import TYPED, output_types
from ..jaxpr import INLINE, import_jaxpr, make_jaxpr, record_function, record_jaxpr
from ..lower import replay
from ..op import Op, more_outputs
from ..ops import add, alias, neg, vary, xlog1py, xlogy, zeros_of
from ..passes import program
from ..recording import current
from ..tape import Node, Tape, Var, aval_of, make_aval


class ImportedRule:
    """A function's own derivative, as an equation of JAX has it: a static parameter that compares by identity."""

    __slots__ = ("__name__", "identity", "params", "parts")

    def __init__(self, name: str, params: dict[str, Any], identity: Any) -> None:
        self.__name__ = name
        self.params = params
        self.identity = identity
        self.parts: Any = None

    def __hash__(self) -> int:
        return id(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImportedRule) and self.identity is other.identity

    def __repr__(self) -> str:
        return self.__name__


def _run_body(*xs: Any, body: Tape, rule: ImportedRule) -> tuple[Any, ...]:
    return tuple(program(body)(*xs))


def _name(jaxpr: Any) -> str:
    return str(getattr(jaxpr, "jaxpr", jaxpr).debug_info.func_name)


# -- custom_jvp


_OURS: dict[str, Op] = {"xlogy": xlogy, "xlog1py": xlog1py}
"""Functions of JAX's whose rules fail where one operand is an integer."""


def custom_jvp_call(*xs: Any, call_jaxpr: Any, jvp_jaxpr_fun: Any, num_consts: int, symbolic_zeros: bool) -> Any:
    name = _name(call_jaxpr)
    where = str(getattr(call_jaxpr, "jaxpr", call_jaxpr).debug_info.func_src_info).replace(os.sep, "/")
    if name in _OURS and "/jax/_src/scipy/special.py" in where:
        return (_OURS[name](*xs),)
    body, consts = record_jaxpr(call_jaxpr, name, [aval_of(x) for x in xs])
    kept = {"jvp": jvp_jaxpr_fun, "consts": num_consts, "inputs": len(xs), "symbolic_zeros": symbolic_zeros}
    rule = ImportedRule(name, kept, jvp_jaxpr_fun)
    return custom_jvp_op(*xs, *consts, body=body, rule=rule)


def _custom_jvp_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    """The transpose of the rule, which is linear in the tangents: its reverse at tangents of 0."""
    params, tape = node.params["rule"].params, current()
    first, last = params["consts"], params["inputs"]
    primals, wanted = node.inputs[first:last], needs[first:last]
    left_out = [params["symbolic_zeros"] and not need for need in wanted]
    jaxpr, consts, zeros = params["jvp"].call_wrapped(*left_out)
    tangents = [_tangent(v, need) for v, need in zip(primals, wanted, strict=True)]
    start = len(tape.nodes)
    given = [t for t, left in zip(tangents, left_out, strict=True) if not left]
    outs = iter(import_jaxpr(jaxpr, [*primals, *given], consts)[len(zeros) :])
    changes = [None if zero else next(outs) for zero in zeros]
    pairs = [(t, ct) for t, ct in zip(changes, cts, strict=True) if isinstance(t, Var) and ct is not None]
    grads = iter(
        backward(
            tape,
            [t for t, _ in pairs],
            [ct for _, ct in pairs],
            [t for t, need in zip(tangents, wanted, strict=True) if need],
            start,
            len(tape.nodes),
        )
    )
    found = [next(grads) if need else None for need in wanted]
    return [None] * first + found + [None] * (len(node.inputs) - last)


def _tangent(v: Any, need: bool) -> Any:
    if not v.aval.differentiable:
        return np.zeros(v.aval.shape, jax.dtypes.float0)
    return vary(alias(zeros_of(v)), v.aval.varying) if need else zeros_of(v)


custom_jvp_op: Op = Op("custom_jvp", _run_body, _custom_jvp_vjp, shape=output_types, multiple=True, axes=TYPED)


# -- custom_vjp


def custom_vjp_call(
    *xs: Any, call_jaxpr: Any, fwd_jaxpr_thunk: Any, bwd: Any, num_consts: int, out_trees: Any, **params: Any
) -> Any:
    name = _name(call_jaxpr)
    body, consts = record_jaxpr(call_jaxpr, name, [aval_of(x) for x in xs])
    rule = ImportedRule(
        name,
        {"fwd": fwd_jaxpr_thunk, "bwd": bwd, "trees": out_trees, "consts": num_consts, "inputs": len(xs)},
        fwd_jaxpr_thunk,
    )
    return custom_vjp_op(*xs, *consts, body=body, rule=rule)


class _Held:
    """An array that is part of a program."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_constant: Op = Op("constant", lambda *, held: jax.numpy.asarray(held.value), None)


class _Split:
    """The rule of a `custom_vjp` function in two.

    `forward` takes the inputs and returns the outputs, then `count` residuals. `backward` takes what `sources` says
    (the position of an input, or None for the next residual), then a cotangent for each of `given`, then `captured`,
    and returns the cotangents of the inputs `grads`.
    """

    def __init__(self, rule: ImportedRule, node: Node) -> None:
        params = rule.params
        first, last = params["consts"], params["inputs"]
        avals = [v.aval for v in node.inputs]
        outs = [v.aval for v in node.params["body"].outputs]
        self.outputs = len(outs)
        jaxpr, consts = params["fwd"].call_wrapped(*[a.differentiable for a in avals[first:last]])
        _, res_tree, forwarded = params["trees"]()
        self.sources: list[int | None] = list(forwarded)
        self.count = res_tree.num_leaves - sum(f is not None for f in forwarded)

        def forward(*xs: Any) -> list[Any]:
            values = import_jaxpr(jaxpr, xs[first:last], [_constant(held=_Held(c)) for c in consts])
            return values[self.count :] + values[: self.count]

        self.forward, _ = record_function(forward, avals, rule.__name__)
        residuals = iter([v.aval for v in self.forward.outputs[self.outputs :]])
        saved = [next(residuals) if f is None else avals[f] for f in self.sources]
        self.given = [i for i, a in enumerate(outs) if a.differentiable]
        self.grads: list[int] = []

        def backward(*xs: Any) -> list[Any]:
            cts = iter(xs[len(saved) :])
            full = [next(cts) if a.differentiable else np.zeros(a.shape, jax.dtypes.float0) for a in outs]
            found = params["bwd"].call_wrapped(*xs[: len(saved)], *full)
            if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], (list, tuple)):
                found = found[0]  # newer versions of JAX return a log too
            self.grads[:] = [
                i for i, g in enumerate(found, first) if isinstance(g, _ARRAYS) and avals[i].differentiable
            ]
            return [found[i - first] for i in self.grads]

        types = saved + [make_aval(outs[i].shape, outs[i].dtype, False, outs[i].varying) for i in self.given]
        self.backward, self.captured = record_jaxpr(make_jaxpr(backward, types), f"{rule.__name__}_backward", types)


_ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def _custom_vjp_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    rule = node.params["rule"]
    if any(needs[: rule.params["consts"]]):
        raise TypeError(
            f"from_jax: the gradient goes through a value that {rule.__name__}, a jax.custom_vjp function, closes "
            f"over, and its rule does not say how; recorded at {describe_source(node.source)}. Pass the value to it as "
            "an argument."
        )
    if rule.parts is None:
        rule.parts = _Split(rule, node)
    split: _Split = rule.parts
    count, result = split.outputs, [None] * len(node.inputs)
    if any(ct is not None for ct in cts[count:]):
        # Of the residuals, in a derivative of higher order: that of the forward function as it is written.
        result = called_backward(node, *body_cotangents(node, [None] * count + list(cts[count:]), needs))
    if all(ct is None for ct in cts[:count]):
        return result
    if len(node.outputs) == count:
        residuals = more_outputs(node, body=split.forward)
    else:
        residuals = tuple(node.outputs[count : count + split.count])
    kept = iter(residuals)
    values = [next(kept) if f is None else node.inputs[f] for f in split.sources]
    given = [zeros_of(node.outputs[i]) if cts[i] is None else cts[i] for i in split.given]
    grads = run_body(split.backward, [*values, *given, *split.captured])
    for i, g in zip(split.grads, grads, strict=True):
        result[i] = g if result[i] is None else add(result[i], g)
    return result


def run_body(body: Tape, xs: Sequence[Any]) -> Sequence[Any]:
    if len(body) <= INLINE:
        return replay(current(), body, xs)
    return call(*xs, body=body)  # type: ignore[no-any-return]


custom_vjp_op: Op = Op("custom_vjp", _run_body, _custom_vjp_vjp, shape=output_types, multiple=True, axes=TYPED)


# -- custom_linear_solve


def custom_linear_solve(*xs: Any, const_lengths: Any, jaxprs: Any) -> Any:
    return _solve(xs, tuple(const_lengths), tuple(jaxprs))


def _solve(xs: Sequence[Any], lengths: tuple[int, ...], jaxprs: tuple[Any, ...]) -> Any:
    """`jaxprs` are matvec, vecmat, solve and transpose_solve; `lengths`, how many constants of each lead `xs`."""
    start, end = lengths[0] + lengths[1], sum(lengths)
    rule = ImportedRule("solve", {"lengths": lengths, "jaxprs": jaxprs}, jaxprs[2])

    def solve(*values: Any) -> Any:
        return import_jaxpr(jaxprs[2], [*values[start : start + lengths[2]], *values[end:]])

    body, consts = record_function(solve, [aval_of(x) for x in xs], "solve")
    return linear_solve_op(*xs, *consts, body=body, rule=rule)


def _linear_solve_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    """For A x = b: the cotangent of b is the solution y of the transposed system, that of A is -y x'."""
    params, tape = node.params["rule"].params, current()
    lengths, (matvec, vecmat, solve, transposed) = params["lengths"], params["jaxprs"]
    if transposed is None:
        raise NotImplementedError(
            f"from_jax: a jax.lax.custom_linear_solve without transpose_solve has no gradient {here()}; it was "
            f"recorded at {describe_source(node.source)}. Give it one, or symmetric=True."
        )
    ends = list(itertools.accumulate(lengths, initial=0))
    groups = [list(node.inputs[a:b]) for a, b in itertools.pairwise(ends)]
    count = len(getattr(matvec, "jaxpr", matvec).outvars)
    xs = node.outputs[:count]
    ct = [zeros_of(v) if c is None else c for v, c in zip(xs, cts, strict=False)]
    back = _solve(
        [*groups[1], *groups[0], *groups[3], *groups[2], *ct],
        (lengths[1], lengths[0], lengths[3], lengths[2]),
        (vecmat, matvec, transposed, solve),
    )[:count]
    result: list[Any] = [None] * len(node.inputs)
    result[ends[-1] : ends[-1] + count] = back
    wanted = [i for i in range(lengths[0]) if needs[i]]
    if wanted:
        matrices = [alias(v) if i in wanted else v for i, v in enumerate(groups[0])]
        start = len(tape.nodes)
        products = import_jaxpr(matvec, [*matrices, *xs])
        grads = backward(tape, products, [neg(y) for y in back], [matrices[i] for i in wanted], start, len(tape.nodes))
        for i, g in zip(wanted, grads, strict=True):
            result[i] = g
    return result


linear_solve_op: Op = Op("linear_solve", _run_body, _linear_solve_vjp, shape=output_types, multiple=True, axes=TYPED)
