"""The values inside loops, branches and maps, for whoever looks at a tape. Uses loops, and maps.

Each runs its bodies as its op does, and returns, besides the results, all values of the bodies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .batching import vmap_op
from .control import scan_op, switch_op, while_op
from .inspection import RUNNERS, Found, Part, Runner, run_body, with_carried
from .lower import evaluate
from .parallel.mapping import pmap_op
from .parallel.sharding import all_specs, axes_in, joined_by, shard_map_op, split_by
from .tape import Node, Tape

MOST_BYTES = 1 << 28
"""Of a loop whose turns together compute more than this, the values of the last turn alone are kept."""


def _retyped(outs: Sequence[Any], body: Tape) -> list[Any]:
    """What goes round a loop, no more weakly typed than what went in."""
    return [
        x if v.aval.weak_type else lax.convert_element_type(x, v.aval.dtype)
        for x, v in zip(outs, body.inputs, strict=False)
    ]


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def _scan(node: Node, *operands: Any) -> Found:
    params = node.params
    body, carried, length = params["body"], params["carried"], params["length"]
    count = carried + params["scanned"]
    init, xs, consts = list(operands[:carried]), operands[carried:count], operands[count:]

    def turn(carry: list[Any], x: Sequence[Any], kind: str) -> tuple[list[Any], list[Any], Part]:
        shared = range(count, len(body.inputs))
        outs, part = run_body(body, [*carry, *x, *consts], kind, length, shared)
        own = carry if kind == "turns" else [*carry, *x]
        return _retyped(outs[:carried], body), list(outs[carried:]), with_carried(part, own)

    shapes = jax.eval_shape(lambda: turn(init, [x[0] for x in xs], "turns")) if length else None
    if shapes is None or length * sum(_bytes(x) for x in jax.tree.leaves(shapes[2])) <= MOST_BYTES:

        def all_turns(carry: list[Any], x: Sequence[Any]) -> tuple[list[Any], tuple[list[Any], Part]]:
            final, ys, part = turn(carry, x, "turns")
            return final, (ys, part)

        final, (ys, part) = lax.scan(all_turns, init, xs, length=length, reverse=params["reverse"])
    else:

        def one_turn(carry: tuple[list[Any], Part], x: Sequence[Any]) -> tuple[tuple[list[Any], Part], list[Any]]:
            final, ys, part = turn(carry[0], x, "last turn")
            return (final, part), ys

        start = _zeros(jax.eval_shape(lambda: turn(init, [x[0] for x in xs], "last turn")[2]))
        (final, part), ys = lax.scan(one_turn, (init, start), xs, length=length, reverse=params["reverse"])
    return [*final, *ys], [part]


def _bytes(x: Any) -> int:
    return int(math.prod(x.shape) * x.dtype.itemsize)


def _while(node: Node, *operands: Any) -> Found:
    params = node.params
    body, test, carried, tested = params["body"], params["cond"], params["carried"], params["tested"]
    init = list(operands[:carried])
    for_test, for_body = operands[carried : carried + tested], operands[carried + tested :]

    def turn(carry: list[Any]) -> tuple[list[Any], Part]:
        outs, part = run_body(body, [*carry, *for_body], "last turn")
        return _retyped(outs, body), with_carried(part, carry)

    def go(carry: tuple[list[Any], Part, Any]) -> tuple[list[Any], Part, Any]:
        return (*turn(carry[0]), carry[2] + 1)

    start = _zeros(jax.eval_shape(lambda: turn(init)[1]))
    # Values that are weakly typed stay so on their way round.
    final, part, count = lax.while_loop(
        lambda carry: evaluate(test.nodes, test.outputs, dict(zip(test.inputs, [*carry[0], *for_test], strict=True)))[
            0
        ],
        go,
        (_retyped(init, body), start, jnp.int32(0)),
    )
    ended = with_carried(run_body(test, [*final, *for_test], "end")[1], final)
    last = replace(part, count=count)
    # In the order in which they stand among the parameters.
    parts = {"cond": ended, "body": last}
    return final, [parts[name] for name in params if name in parts]


def _branch_values(body: Tape, *inputs: Any) -> Part:
    return run_body(body, inputs, "branch")[1]


def _switch(node: Node, index: Any, *operands: Any) -> Found:
    branches = node.params["branches"]
    which = jnp.clip(jnp.asarray(index).astype(np.int32), 0, len(branches) - 1)
    shapes = [jax.eval_shape(functools.partial(_branch_values, b), *operands) for b in branches]

    def branch(i: int) -> Callable[..., Any]:
        def run(*xs: Any) -> Any:
            outs, part = run_body(branches[i], xs, "branch")
            outs = [
                o if a.weak_type else lax.convert_element_type(o, a.dtype)
                for o, a in zip(outs, (v.aval for v in node.outputs), strict=True)
            ]
            return outs, [part if j == i else _zeros(shape) for j, shape in enumerate(shapes)]

        return run

    outs, parts = lax.switch(which, [branch(i) for i in range(len(branches))], *operands)
    taken = [which == i for i in range(len(branches))]
    return outs, [replace(p, count=t) for p, t in zip(parts, taken, strict=True)]


def _mapped(node: Node, *operands: Any) -> Found:
    params = node.params
    size, batched = params["size"], params["batched"]
    shared = [i for i, b in enumerate(batched) if not b]
    # `jax.vmap` wants an argument to map over.
    in_axes = (0, *[0 if b else None for b in batched])
    outs, part = jax.vmap(
        lambda _, *xs: run_body(params["body"], xs, "elements", size, shared), in_axes, axis_name=params["axis_name"]
    )(np.zeros(size, np.int8), *operands)
    return outs, [part]


def _on_devices(node: Node, *operands: Any) -> Found:
    """A map for each axis of the mesh, on one device."""
    body, mesh, in_specs = node.params["body"], node.params["mesh"], node.params["in_specs"]
    sizes = dict(mesh.shape)
    apart = [axes_in(spec, mesh) for spec in in_specs]
    shared = [i for i, names in enumerate(apart) if len(names) < len(sizes)]

    def run(_: Any, *xs: Any) -> Any:
        return run_body(body, xs, "devices", mesh.size, shared)

    for name in reversed(sizes):
        in_axes = (0, *[0 if name in names else None for names in apart])
        run = jax.vmap(run, in_axes, axis_name=name)
    parts = [split_by(x, spec, mesh) if a else x for x, spec, a in zip(operands, in_specs, apart, strict=True)]
    outs, part = run(np.zeros(tuple(sizes.values()), np.int8), *parts)
    whole = []
    for x, spec in zip(outs, all_specs(body, node.params["out_specs"]), strict=True):
        names = axes_in(spec, mesh)
        own = x[tuple(slice(None) if name in names else 0 for name in sizes)]
        whole.append(joined_by(own, spec, mesh) if names else own)
    return whole, [part]


RUNNERS.update(
    {
        scan_op: Runner(_scan),
        while_op: Runner(_while, derivative=False),
        switch_op: Runner(_switch),
        vmap_op: Runner(_mapped),
        pmap_op: Runner(_on_devices),
        shard_map_op: Runner(_on_devices),
    }
)
