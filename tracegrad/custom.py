"""Derivatives of the user's own, in JAX's protocol. Uses bodies, and backward."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from .backward import body_cotangents
from .body import called_backward, record_body, without_static
from .errors import describe, describe_source, here, name_of
from .inference import TYPED, output_types
from .op import Op, more_outputs
from .ops import zeros_of
from .passes import compiled, optimize
from .recording import current, state
from .tape import Node, Tape, aval_of
from .tracer import Tracer, operand

tree_flatten, tree_unflatten, keystr = jax.tree.flatten, jax.tree.unflatten, jax.tree_util.keystr


@dataclass(frozen=True)
class Rule:
    """The derivative of one call: who has it, its non-differentiable arguments, and the structures."""

    owner: custom_vjp
    static: tuple[Any, ...]
    in_tree: Any
    out_tree: Any
    arguments: int
    forward: Callable[..., Any] = field(compare=False)


def _custom_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    rule: Rule = node.params["rule"]
    count = rule.out_tree.num_leaves
    grads: list[Any] = [None] * len(node.inputs)
    if any(needs[rule.arguments :]):
        raise TypeError(
            f"{rule.owner.name}, called at {describe_source(node.source)}, has a derivative of its own and closes "
            "over a value that is differentiated. Pass that value as an argument."
        )
    if any(ct is not None for ct in cts[count:]):
        # The residuals have cotangents in derivatives of higher order: those of the forward function as it is written.
        lin, operands = body_cotangents(node, [None] * count + list(cts[count:]), needs)
        grads = called_backward(node, lin, operands)
    if any(ct is not None for ct in cts[:count]):
        values = zip(node.outputs[:count], cts[:count], strict=True)
        own = _own_rule(node, rule, [zeros_of(v) if ct is None else ct for v, ct in values])
        # The constants that the forward function alone closes over have become operands of the node, after these.
        own = own[: len(grads)]
        grads = [a if b is None else b if a is None else a + b for a, b in zip(grads, own, strict=True)]
    return grads


def _own_rule(node: Node, rule: Rule, cts: list[Any]) -> list[Any]:
    owner, count = rule.owner, rule.out_tree.num_leaves
    if len(node.outputs) == count:
        avals = [v.aval for v in node.inputs[: rule.arguments]]
        given = list(node.inputs[rule.arguments :])
        forward, captured = record_body(
            rule.forward, tree_unflatten(rule.in_tree, avals), {}, name_of(owner.fwd), given=given
        )
        value_tree = _forward_structure(rule, forward)
        for (path, v), expected in zip(
            jax.tree_util.tree_flatten_with_path(tree_unflatten(value_tree, forward.outputs[:count]))[0],
            node.outputs,
            strict=True,
        ):
            if (v.aval.shape, v.aval.dtype) != (expected.aval.shape, expected.aval.dtype):
                raise TypeError(
                    f"custom_vjp: the forward function {name_of(owner.fwd)} returns {v.aval} for value{keystr(path)}, "
                    f"{owner.name} returns {expected.aval} {here()}. They must be the same."
                )
        node.extend(node.params, (), _operands(captured))
        residuals, both = list(more_outputs(node, body=optimize(forward))), forward.out_tree
    else:
        both = node.params["body"].out_tree
        # After these, what the derivative of the forward function reads.
        residuals = list(node.outputs[count : both.num_leaves])
    residuals = tree_unflatten(both.children()[1], residuals)
    result = owner.bwd(*rule.static, residuals, tree_unflatten(rule.out_tree, cts))
    return _checked(node, rule, result)


def _operands(values: list[Any]) -> list[Any]:
    return [operand(current(), x) for x in values]


def _forward_structure(rule: Rule, forward: Tape) -> Any:
    children = forward.out_tree.children()
    if len(children) != 2 or children[0] != rule.out_tree:
        raise TypeError(
            f"custom_vjp: the forward function {name_of(rule.owner.fwd)} must return (value, residuals), with a value "
            f"of structure {rule.out_tree} as {rule.owner.name} returns; it returned {forward.out_tree} {here()}."
        )
    return children[0]


def _checked(node: Node, rule: Rule, result: Any) -> list[Any]:
    name = name_of(rule.owner.bwd)
    args = tree_unflatten(rule.in_tree, list(node.inputs[: rule.arguments]))
    if not isinstance(result, (tuple, list)) or len(result) != len(args):
        raise TypeError(
            f"custom_vjp: the backward function {name} must return a tuple with a cotangent for each of the "
            f"{len(args)} arguments of {rule.owner.name}, it returned {describe(result)} {here()}."
        )
    grads: list[Any] = []
    for i, (arg, ct) in enumerate(zip(args, result, strict=True)):
        paths, tree = jax.tree_util.tree_flatten_with_path(arg, is_leaf=lambda x: x is None)
        if ct is None:
            grads += [None] * sum(v is not None for _, v in paths)
            continue
        leaves, found = jax.tree.flatten(ct, is_leaf=lambda x: x is None)
        expected: Any = jax.tree.structure(arg, is_leaf=lambda x: x is None)
        if found != expected:
            raise TypeError(
                f"custom_vjp: the backward function {name} returned structure {found} for argument {i} of "
                f"{rule.owner.name}, which has {tree} {here()}. Return the same structure, or None for no gradient."
            )
        for (path, v), g in zip(paths, leaves, strict=True):
            if v is None:
                continue
            if g is None or not v.aval.differentiable:
                grads.append(None)
                continue
            aval = aval_of(g)
            if aval.shape != v.aval.shape or (aval.dtype != v.aval.dtype and not aval.weak_type):
                raise TypeError(
                    f"custom_vjp: the backward function {name} returned {aval} for argument {i}{keystr(path)} of "
                    f"{rule.owner.name}, which is {v.aval} {here()}. A cotangent has its argument's shape and dtype."
                )
            grads.append(g if isinstance(g, Tracer) else _operands([g])[0])
    return grads + [None] * (len(node.inputs) - len(grads))


custom_op: Op = Op(
    "custom_vjp",
    lambda *xs, body, rule: compiled(body)(*xs),
    _custom_vjp,
    shape=output_types,
    multiple=True,
    axes=TYPED,
)
custom_op.ours = False  # It runs a function of the user's.


class custom_vjp:
    """A function with a derivative of the user's own.

    Args:
      fun: takes and returns pytrees of arrays.
      nondiff_argnums: arguments that are Python values: they come first in the backward function.

    `defvjp(fwd, bwd)` gives the derivative: `fwd(*args)` returns `(value, residuals)`, and
    `bwd(*nondiff, residuals, ct)` returns a tuple with a cotangent for each other argument (`None` for zero).

    Raises:
      TypeError: if `bwd` returns another structure, shape or dtype than the arguments have; the message names the leaf.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> @tg.custom_vjp
      ... def clipped(x):
      ...     return x
      >>> clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1.0, 1.0),))
      >>> float(tg.grad(lambda x: 5.0 * clipped(x))(2.0))
      1.0
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()) -> None:
        if not callable(fun):
            raise TypeError(f"custom_vjp: fun is {describe(fun)}, which is not a function {here()}")
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.name = name_of(fun)
        self.nondiff = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        self.fwd: Any = None
        self.bwd: Any = None

    def defvjp(
        self,
        fwd: Callable[..., Any],
        bwd: Callable[..., Any],
        symbolic_zeros: bool = False,
        optimize_remat: bool = False,
    ) -> None:
        """Sets the forward and the backward function."""
        if symbolic_zeros:
            raise NotImplementedError(
                f"custom_vjp: symbolic_zeros=True {here()}: cotangents that are zero come as zeros. Leave it out."
            )
        for name, f in (("fwd", fwd), ("bwd", bwd)):
            if not callable(f):
                raise TypeError(f"custom_vjp: {name} is {describe(f)}, which is not a function {here()}")
        self.fwd, self.bwd = fwd, bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fwd is None:
            raise AttributeError(
                f"custom_vjp: {self.name} has no derivative yet {here()}. Call {self.name}.defvjp(fwd, bwd)."
            )
        if kwargs:
            bound = inspect.signature(self.fun).bind(*args, **kwargs)
            bound.apply_defaults()
            if bound.kwargs:
                raise TypeError(f"custom_vjp: {self.name} has keyword-only arguments {list(bound.kwargs)} {here()}.")
            args = bound.args
        if state.tape is None:
            return self.fun(*args)
        static = [i % len(args) for i in self.nondiff]
        fun, dynamic = without_static(self.fun, args, static)
        leaves, in_tree = tree_flatten(dynamic)
        body, captured = record_body(fun, dynamic, {}, self.name)
        forward, _ = without_static(self.fwd, args, static)
        rule = Rule(self, tuple(args[i] for i in static), in_tree, body.out_tree, len(leaves), forward)
        outs = custom_op(*leaves, *captured, body=optimize(body), rule=rule)
        return tree_unflatten(body.out_tree, outs)


__all__ = ["custom_vjp"]
