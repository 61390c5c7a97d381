"""`vmap`: one body for each element along an axis, all at once. Uses bodies, and runs by transforms' rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .arguments import Arguments, arguments_of
from .backward import body_cotangents
from .body import leaf_aval, put, put_gradients, record_body, taken
from .errors import describe, here, name_of, need_function
from .inference import TYPED
from .op import Op
from .ops import move_axis, reduce_sum, transpose, vary
from .passes import optimize, program
from .tape import NOWHERE, Aval, Node, Tape, Var, make_aval
from .tracer import Tracer
from .transforms import define_by_run

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def argument_axes(tree: Any, in_axes: Any, transform: str) -> list[int | None]:
    """One axis a leaf of `(args, kwargs)` of this structure, from one an argument, or one for all of them."""
    count = len(tree.children()[0].children())
    if not isinstance(in_axes, (tuple, list)):
        in_axes = (in_axes,) * count
    if len(in_axes) != count:
        raise ValueError(
            f"{transform}: in_axes has {len(in_axes)} entries, and the function was called with {count} positional "
            f"arguments {here()}. Give one for each, None for what is not mapped."
        )
    return leaf_axes(tree, (tuple(in_axes), 0), transform)


def leaf_axes(tree: Any, spec: Any, transform: str) -> list[int | None]:
    """One axis a leaf of `tree`, from a prefix of it in which `None` is a leaf too."""
    wrong = [a for a in jax.tree.leaves(spec) if not isinstance(a, int)]
    if wrong:
        raise TypeError(f"{transform}: {describe(wrong[0])} is no axis {here()}. Give integers, and None for no axis.")
    none = object()
    spec = jax.tree.map(lambda a: none if a is None else a, spec, is_leaf=lambda a: a is None)
    whole = jax.tree.unflatten(tree, list(range(tree.num_leaves)))
    try:
        full = jax.tree.map(lambda a, part: [a] * len(jax.tree.leaves(part)), spec, whole)
    except ValueError as error:
        raise ValueError(
            f"{transform}: in_axes or out_axes do not fit the structure of what they map {here()}: {error}"
        ) from None
    return [None if a is none else a for a in jax.tree.leaves(full)]


def split_mapped(
    leaves: Sequence[Any],
    axes: Sequence[int | None],
    transform: str,
    arguments: Arguments,
    axis_size: int | None = None,
    name: str | None = None,
) -> tuple[int, list[Any], list[Aval]]:
    """The size of the mapped axes, the arrays with them in front, and the types without them.

    What is mapped varies along the axis of this `name`, if it has one.

    `call` is whose arguments they are, for messages: a function, `args` and `kwargs`.

    Raises:
      ValueError: if no array is mapped, or one lacks the axis, or they differ in size.
    """
    moved, inner = [], []
    sizes: dict[int, tuple[int, tuple[int, ...]]] = {}
    for i, (x, axis) in enumerate(zip(leaves, axes, strict=True)):
        aval = leaf_aval(x, f"{transform}'s function", arguments, i)
        if axis is None:
            moved.append(x)
            inner.append(aval)
            continue
        shape = aval.shape
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"{transform}: argument {arguments.names()[i]} has shape {shape} and no axis {axis} to map over "
                f"{here()}. Give it that axis, or in_axes=None to pass it whole."
            )
        axis %= len(shape)
        sizes[i] = (shape[axis], shape)
        rest = tuple(a for a in range(len(shape)) if a != axis)
        moved.append(transpose(x, axes=(axis, *rest)) if axis else x)
        varying = aval.varying if name is None else aval.varying | {name}
        inner.append(make_aval(tuple(shape[a] for a in rest), aval.dtype, aval.weak_type, varying))
    if not sizes and axis_size is not None:
        return axis_size, moved, inner
    if not sizes:
        raise ValueError(f"{transform}: no argument is mapped: all in_axes are None {here()}")
    if axis_size is not None and any(n != axis_size for n, _ in sizes.values()):
        size = next(iter(sizes.values()))[0]
        raise ValueError(f"{transform}: axis_size={axis_size}, and the mapped axes have size {size} {here()}")
    if len({n for n, _ in sizes.values()}) > 1:
        names = arguments.names()
        found = ", ".join(f"{n} ({names[i]}, of shape {shape})" for i, (n, shape) in sizes.items())
        raise ValueError(
            f"{transform}: the mapped axes differ in size: {found} {here()}. Give in_axes=None for what is not mapped."
        )
    return next(iter(sizes.values()))[0], moved, inner


def told_apart(out: Any, out_axes: Any, transform: str, name: str) -> Any:
    """A body's results: where there is one for each along the axis of this name, each has a cotangent of its own."""
    leaves, tree = tree_flatten(out)
    axes = frozenset({name})
    spread = [
        vary(v, axes) if axis is not None and isinstance(v, Tracer) else v
        for v, axis in zip(leaves, leaf_axes(tree, out_axes, transform), strict=True)
    ]
    return tree_unflatten(tree, spread)


def vmap(
    fun: Callable[..., Any] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: str | None = None,
    axis_size: int | None = None,
) -> Callable[..., Any]:
    """A function that applies `fun` to each element along an axis, as one batched program.

    Args:
      fun: takes and returns pytrees of arrays.
      in_axes: the mapped axis of each positional argument, or of each leaf; `None` for one that is shared.
      out_axes: where the mapped axis is put in the results.
      axis_name: a name by which `psum`, `pmean` and `axis_index` inside `fun` know the axis.
      axis_size: the size of the mapped axis; needed only where no argument is mapped.

    Raises:
      ValueError: if mapped axes differ in size, or no argument is mapped.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.vmap(lambda x, y: x @ y, in_axes=(0, None))(np.ones((3, 2)), np.ones(2)).tolist()
      [2.0, 2.0, 2.0]
    """
    if fun is None:
        return functools.partial(vmap, in_axes=in_axes, out_axes=out_axes, axis_name=axis_name, axis_size=axis_size)
    need_function(fun, "vmap")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, tree = tree_flatten((args, kwargs))
            axes = argument_axes(tree, in_axes, "vmap")
            size, moved, inner = split_mapped(leaves, axes, "vmap", arguments_of(fun, tree), axis_size, axis_name)
            in_args, in_kwargs = tree_unflatten(tree, inner)
            named = {axis_name: size} if axis_name is not None else None

            @functools.wraps(fun)
            def tapped(*args: Any, **kwargs: Any) -> Any:
                out = fun(*args, **kwargs)
                return out if axis_name is None else told_apart(out, out_axes, "vmap", axis_name), taken()

            body, captured = record_body(tapped, in_args, in_kwargs, name_of(fun), axes=named, lifts=True)
            batched = tuple(axis is not None for axis in axes) + (False,) * len(captured)
            outs = vmap_op(*moved, *captured, body=optimize(body), batched=batched, size=size, axis_name=axis_name)
            out, taps = tree_unflatten(body.out_tree, outs)
            put(taps)
            outs, out_tree = tree_flatten(out)
            positions = leaf_axes(out_tree, out_axes, "vmap")
            named_apart = {v for v in body.outputs if axis_name in v.aval.varying}
            differ = named_apart if axis_name is not None else _reached(body, batched)
            for i, (o, a) in enumerate(zip(outs, positions, strict=True)):
                if a is None and body.outputs[i] in differ:
                    raise ValueError(
                        f"vmap: result {i} has out_axes=None, and differs along the mapped axis ({o.aval} in all) "
                        f"{here()}. Reduce it, or give it an axis."
                    )
                if a is not None and not -o.aval.ndim <= a < o.aval.ndim:
                    raise ValueError(
                        f"vmap: out_axes puts the mapped axis of result {i} at {a}, and with it the result is {o.aval} "
                        f"{here()}. Use one from {-o.aval.ndim} to {o.aval.ndim - 1}."
                    )
            outs = [o[0] if a is None else move_axis(o, 0, a) if a else o for o, a in zip(outs, positions, strict=True)]
            return tree_unflatten(out_tree, outs)

        return define_by_run(fun, run, args, kwargs)

    return wrapped


def _reached(body: Tape, flags: Sequence[bool]) -> set[Var]:
    """The values of a body that the inputs with these flags take part in."""
    found = {v for v, flag in zip(body.inputs, flags, strict=True) if flag}
    for node in body.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


def _run_batched(*xs: Any, body: Tape, batched: tuple[bool, ...], size: int, axis_name: str | None) -> Any:
    in_axes = tuple(0 if b else None for b in batched)
    return jax.vmap(program(body), in_axes=in_axes, axis_size=size, axis_name=axis_name)(*xs)


def _batched_types(*avals: Aval, body: Tape, size: int, axis_name: str | None, **params: Any) -> list[Aval]:
    return [
        make_aval((size, *v.aval.shape), v.aval.dtype, v.aval.weak_type, v.aval.varying - {axis_name})
        for v in body.outputs
    ]


def _vmap_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    batched, name = node.params["batched"], node.params["axis_name"]
    lin, operands = body_cotangents(node, cts, needs, NOWHERE if name is None else frozenset({name}))
    flags = lin.read(batched, [True] * len(node.outputs), [True] * len(operands)) + [True] * len(lin.cts)
    for i, v in enumerate(lin.backward.inputs):
        if name is not None and flags[i] and name not in v.aval.varying:
            # There are copies of what is one for all: any of them is it, and its cotangent is theirs together.
            saved = i < len(lin.saved)
            operands[i], flags[i] = operands[i][0] if saved else reduce_sum(operands[i], axes=(0,)), False
    outs = vmap_op(*operands, **{**node.params, "body": lin.backward, "batched": tuple(flags)})
    put_gradients(lin, outs)
    grads: list[Any] = [None] * len(node.inputs)
    for i, g in zip(lin.grads, outs, strict=False):
        if not batched[i]:
            # Along a named axis, differentiation has summed the cotangents of what is shared: all are the sum.
            g = reduce_sum(g, axes=(0,)) if name is None else g[0]
        grads[i] = g
    return grads


vmap_op: Op = Op("vmap", _run_batched, _vmap_vjp, shape=_batched_types, multiple=True, axes=TYPED)
"""Runs a body for each element along the first axis of the batched operands, all at once."""
