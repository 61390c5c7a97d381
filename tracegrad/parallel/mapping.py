"""`pmap`: one program on many devices, each with its share of the arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from .. import numpy as tnp
from ..arguments import arguments_of
from ..backward import body_cotangents
from ..batching import argument_axes, leaf_axes, split_mapped, told_apart
from ..body import BodyCache, BodyOp, put, put_gradients, taken
from ..errors import describe, here, need_function
from ..inference import TYPED
from ..lower import evaluate
from ..op import Op
from ..recording import state
from ..tape import Aval, Node, Tape, aval_of, make_aval, with_axes
from ..tracer import Tracer


def _run_mapped(
    *xs: Any,
    body: Tape,
    batched: tuple[bool, ...],
    whole: tuple[bool, ...],
    axis_name: str,
    devices: tuple[Any, ...],
) -> Any:
    flags = _is_whole(body, whole)

    def run(*shards: Any) -> list[Any]:
        values = [lax.squeeze(x, (0,)) if b else x for x, b in zip(shards, batched, strict=True)]
        outs = evaluate(body.nodes, body.outputs, dict(zip(body.inputs, values, strict=True)))
        return [o if w else lax.expand_dims(o, (0,)) for o, w in zip(outs, flags, strict=True)]

    def spec(split: bool) -> PartitionSpec:
        return PartitionSpec(axis_name) if split else PartitionSpec()

    mesh = Mesh(np.array(devices), (axis_name,))
    in_specs, out_specs = tuple(map(spec, batched)), [spec(not w) for w in flags]
    return jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(*xs)


def _is_whole(body: Tape, whole: tuple[bool, ...]) -> list[bool]:
    """Whether each output is one array for all devices; the residuals, after the others, never are."""
    return [*whole, *[False] * (len(body.outputs) - len(whole))]


def _mapped_types(
    *avals: Aval,
    body: Tape,
    batched: tuple[bool, ...],
    whole: tuple[bool, ...],
    axis_name: str,
    devices: tuple[Any, ...],
) -> list[Aval]:
    types = [with_axes(v.aval, v.aval.varying - {axis_name}) for v in body.outputs]
    return [
        a if w else make_aval((len(devices), *a.shape), a.dtype, a.weak_type, a.varying)
        for a, w in zip(types, _is_whole(body, whole), strict=True)
    ]


def _mapped_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    batched, whole, name = node.params["batched"], node.params["whole"], node.params["axis_name"]
    flags = _is_whole(node.params["body"], whole)
    lin, operands = body_cotangents(node, cts, needs, frozenset({name}))
    split = lin.read(batched, [not w for w in flags], [True] * len(operands))
    params = {
        **node.params,
        "body": lin.backward,
        "batched": tuple(split + [not flags[i] for i in lin.cts]),
        # The gradient of a replicated operand is summed over the devices, and is one for all.
        "whole": tuple(not batched[i] for i in lin.grads) + (False,) * len(lin.taps),
    }
    grads: list[Any] = [None] * len(node.inputs)
    outs = pmap_op(*operands, **params)
    put_gradients(lin, outs)
    for i, g in zip(lin.grads, outs, strict=False):
        grads[i] = g
    return grads


pmap_op: Op = BodyOp("pmap", _run_mapped, _mapped_vjp, shape=_mapped_types, multiple=True, axes=TYPED)


def pmap(
    fun: Callable[..., Any] | None = None,
    axis_name: str | None = None,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    devices: Sequence[Any] | None = None,
) -> Callable[..., Any]:
    """A function that runs `fun` on several devices at once, each on one element along the mapped axis.

    Args:
      fun: takes and returns pytrees of arrays; inside it `psum`, `pmean`, `axis_index` and `sum_gradients`
        speak of the devices by `axis_name`.
      axis_name: the name of the mapped axis.
      in_axes: the mapped axis of each positional argument, or of each leaf; `None` for one that every device
        gets whole.
      out_axes: where the mapped axis is put in the results; `None` for those that are the same on every
        device, to get them once.
      devices: the devices to use; by default as many of `jax.devices()` as the mapped axis is long.

    Returns:
      A compiled function of the same arguments. Argument arrays have the mapped axis, as long as there are
      devices; the batch is split with `split_batch`.

    The gradient is that of what is returned. For an argument mapped over the devices, `grad` inside `fun`
    gives each device its own share, to be added up with `sum_gradients`. For an argument with `in_axes=None`,
    of which there is only one, it gives the sum over all devices at once.

    Raises:
      ValueError: if mapped axes differ in size, or are longer than there are devices, or a result with
        `out_axes=None` differs between devices.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> n = jax.device_count()
      >>> total = tg.pmap(lambda x: tg.psum(x, "i"), axis_name="i")(np.ones(n))
      >>> total.tolist() == [float(n)] * n
      True
    """
    if fun is None:
        return functools.partial(pmap, axis_name=axis_name, in_axes=in_axes, out_axes=out_axes, devices=devices)
    need_function(fun, "pmap")
    name = axis_name if axis_name is not None else "devices"
    bodies = BodyCache(fun)

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        axes = argument_axes(tree, in_axes, "pmap")
        size, moved, inner = split_mapped(leaves, axes, "pmap", arguments_of(fun, tree), name=name)
        pool = tuple(devices) if devices is not None else tuple(jax.devices())
        count = len(pool)
        if size > count or (devices is not None and size != count):
            raise ValueError(
                f"pmap: the mapped axis has size {size}, and there are {count} devices {here()}. Split the batch with "
                f"split_batch(batch, {count}), which gives it the shape ({count}, batch // {count}, ...)."
            )
        in_args, in_kwargs = jax.tree.unflatten(tree, inner)

        @functools.wraps(fun)
        def checked(*args: Any, **kwargs: Any) -> Any:
            out = fun(*args, **kwargs)
            results, out_tree = jax.tree.flatten(out)
            for i, (v, axis) in enumerate(zip(results, leaf_axes(out_tree, out_axes, "pmap"), strict=True)):
                if axis is None and isinstance(v, Tracer) and name in v.aval.varying:
                    raise ValueError(
                        f"pmap: result {i} of {bodies.name} ({v.aval}) has out_axes=None and differs from device to "
                        f"device {here()}. Combine the devices' values with psum, pmean or sum_gradients, or return "
                        "them all with out_axes=0."
                    )
            return told_apart(out, out_axes, "pmap", name), taken()

        body, extra = bodies.get(checked, in_args, in_kwargs, axes={name: size})
        out_tree, taps_tree = body.out_tree.children()
        positions = leaf_axes(out_tree, out_axes, "pmap") + [0] * taps_tree.num_leaves
        outs = pmap_op(
            *moved,
            *extra,
            body=body,
            batched=tuple(axis is not None for axis in axes) + (False,) * len(extra),
            whole=tuple(axis is None for axis in positions),
            axis_name=name,
            devices=pool[:size],
        )
        if state.tape is None and pool[0].platform == "cpu" and size > 1:
            # XLA's CPU client starts programs ahead of their turn, and with more devices than cores their
            # collectives then wait for each other for ever.
            jax.block_until_ready(outs)
        outs = [tnp.moveaxis(o, 0, a) if a else o for o, a in zip(outs, positions, strict=True)]
        out, taps = jax.tree.unflatten(body.out_tree, outs)
        put(taps)
        return out

    return wrapped


def split_batch(batch: Any, devices: int | None = None) -> Any:
    """A batch in one share a device: each array of shape `(n, ...)` becomes `(devices, n // devices, ...)`.

    Args:
      batch: a pytree of arrays with the same first axis.
      devices: how many; by default all.

    Raises:
      ValueError: if the batch does not divide evenly.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.parallel.split_batch(np.zeros((8, 3)), 4).shape
      (4, 2, 3)
    """
    count = jax.device_count() if devices is None else devices
    if not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"split_batch: devices={devices!r} {here()}. Give how many there are, 1 at least.")

    def one(path: Any, x: Any) -> Any:
        shape = aval_of(x).shape
        if not shape or shape[0] % count:
            which = f"batch{jax.tree_util.keystr(path)}"
            if not shape:
                raise ValueError(
                    f"split_batch: {which} is {describe(x)}, which has no axis to split {here()}. Leave it out of the "
                    "batch, and pass it to pmap with in_axes=None."
                )
            size = shape[0]
            raise ValueError(
                f"split_batch: {which} has {size} examples (its shape is {shape}), which do not divide over {count} "
                f"devices {here()}. Use a batch size that is a multiple of {count} (such as "
                f"{max(count, size - size % count)}), drop or pad the last examples, or pass devices=n."
            )
        return tnp.reshape(x, (count, shape[0] // count, *shape[1:]))

    return jax.tree_util.tree_map_with_path(one, batch)
