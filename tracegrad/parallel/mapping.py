"""`pmap`: one program on many devices, each with one element of the arguments."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from .. import numpy as tnp
from ..arguments import arguments_of
from ..batching import argument_axes, leaf_axes, split_mapped
from ..body import BodyCache, put, taken, without_static
from ..compile import jit
from ..errors import describe, here, need_function
from ..recording import state
from ..tape import Var, aval_of
from .processes import check_alike, check_mesh, check_program
from .sharding import STACKED, axis_sizes, mapped_op, not_nested, told_apart

pmap_op = mapped_op("pmap")

_COMPARED = 1000
"""After so many calls several processes compare the arguments that all of them give; also before the first."""


def pmap(
    fun: Callable[..., Any] | None = None,
    axis_name: str | None = None,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    static_broadcasted_argnums: int | Sequence[int] = (),
    devices: Sequence[Any] | None = None,
    backend: str | None = None,
    axis_size: int | None = None,
    donate_argnums: int | Sequence[int] = (),
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
      static_broadcasted_argnums: arguments that are Python values, part of the program; hashable. Their `in_axes`
        are `None`, or are not read where all have the same.
      devices: the devices to use; by default as many of `jax.devices()` as the mapped axis is long.
      backend: the platform of these devices, such as "cpu".
      axis_size: the size of the mapped axis; needed only where no argument is mapped.
      donate_argnums: arguments whose memory the result may take over; they are gone after the call.

    Returns:
      A compiled function of the same arguments. Argument arrays have the mapped axis, as long as there are
      devices; the batch is split with `split_batch`. Of several processes each gives arrays for its own devices
      (or for all, the same in each); what all give is compared at the first call and every 1,000th.

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
        options = {
            "in_axes": in_axes, "out_axes": out_axes, "static_broadcasted_argnums": static_broadcasted_argnums,
            "devices": devices, "backend": backend, "axis_size": axis_size, "donate_argnums": donate_argnums,
        }  # fmt: skip
        return functools.partial(pmap, axis_name=axis_name, **options)
    need_function(fun, "pmap")
    if devices is not None and backend is not None:
        raise ValueError(f"pmap: devices and backend are both given {here()}. Give one of them.")
    name = axis_name if axis_name is not None else "devices"
    bodies = BodyCache(fun)
    argnums = static_broadcasted_argnums
    statics = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(fun)
    def mapped(*args: Any, **kwargs: Any) -> Any:
        not_nested("pmap")
        static = compiled.jitted.is_static(args)
        fixed = tuple((i, args[i]) for i in sorted(static))
        merged, others = without_static(fun, args, static)
        axes_of = in_axes
        if static and isinstance(in_axes, (tuple, list)) and len(in_axes) == len(args):
            axes_of = tuple(a for i, a in enumerate(in_axes) if i not in static)
        leaves, tree = jax.tree.flatten((others, kwargs))
        axes = argument_axes(tree, axes_of, "pmap")
        size, moved, inner = split_mapped(leaves, axes, "pmap", arguments_of(merged, tree), axis_size, name=name)
        mesh = Mesh(np.array(_devices(size, devices, backend)), (name,))
        in_args, in_kwargs = jax.tree.unflatten(tree, inner)

        def complain(i: int, v: Var) -> None:
            raise ValueError(
                f"pmap: result {i} of {bodies.name} ({v.aval}) has out_axes=None and differs from device to "
                f"device {here()}. Combine the devices' values with psum, pmean or sum_gradients, or return "
                "them all with out_axes=0."
            )

        @functools.wraps(fun)
        def checked(*args: Any, **kwargs: Any) -> Any:
            results, out_tree = jax.tree.flatten(merged(*args, **kwargs))
            specs = [P() if axis is None else STACKED for axis in leaf_axes(out_tree, out_axes, "pmap")]
            return jax.tree.unflatten(out_tree, told_apart(results, specs, mesh, complain)), taken()

        body, extra = bodies.get(checked, in_args, in_kwargs, static=fixed, axes=axis_sizes(mesh))
        out_tree, taps_tree = body.out_tree.children()
        positions = leaf_axes(out_tree, out_axes, "pmap") + [0] * taps_tree.num_leaves
        outs = pmap_op(
            *moved,
            *extra,
            body=body,
            mesh=mesh,
            in_specs=(*[P() if axis is None else STACKED for axis in axes], *[P()] * len(extra)),
            out_specs=tuple(P() if axis is None else STACKED for axis in positions),
        )
        outs = [tnp.moveaxis(o, 0, a) if a else o for o, a in zip(outs, positions, strict=True)]
        out, taps = jax.tree.unflatten(body.out_tree, outs)
        put(taps)
        return out

    calls = itertools.count()

    def together(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments that several processes give: parts put together, and others compared; at first the program, too."""
        static = compiled.jitted.is_static(args)
        original, given = args, [None if i in static else x for i, x in enumerate(args)]
        axes_of = [None if i in static else a for i, a in enumerate(in_axes)] if isinstance(in_axes, tuple) else in_axes
        leaves, tree = jax.tree.flatten((tuple(given), kwargs))
        axes = argument_axes(tree, tuple(axes_of) if isinstance(axes_of, list) else axes_of, "pmap")
        pool = list(devices) if devices is not None else jax.devices(backend)
        count, local = len(pool), sum(d.process_index == jax.process_index() for d in pool)
        whole, put_together = [], []
        for x, axis in zip(leaves, axes, strict=True):
            own = not isinstance(x, jax.Array) or x.is_fully_addressable
            if axis is not None and own and local < count and np.ndim(x) and np.shape(x)[axis] == local:
                spec = P(*[None] * (axis % np.ndim(x)), name)
                x = jax.make_array_from_process_local_data(
                    NamedSharding(Mesh(np.array(pool), (name,)), spec), np.asarray(x)
                )
            else:
                whole.append(x)
            put_together.append(x)
        call = next(calls)
        if call % _COMPARED == 0:
            check_alike(f"the arguments of {bodies.name} that are not split over the processes", whole)
        args, kwargs = jax.tree.unflatten(tree, put_together)
        args = tuple(original[i] if i in static else x for i, x in enumerate(args))
        if call == 0:
            check_program(f"the program of {bodies.name}", compiled.lower(*args, **kwargs))
        return args, kwargs

    compiled: Any = jit(mapped, static_argnums=statics or None, donate_argnums=donate_argnums)

    # XLA's CPU client starts programs ahead of their turn, and with more devices than cores the collectives of two that
    # do not depend on each other may wait for each other for ever.
    @functools.wraps(fun)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if state.tape is not None:
            return mapped(*args, **kwargs)
        if jax.process_count() > 1:
            args, kwargs = together(args, kwargs)
        out = compiled(*args, **kwargs)
        return jax.block_until_ready(out) if jax.default_backend() == "cpu" else out

    wrapper.lower = compiled.lower  # type: ignore[attr-defined]
    return wrapper


def _devices(size: int, devices: Sequence[Any] | None, backend: str | None) -> list[Any]:
    """The devices along a mapped axis of this size.

    Raises:
      ValueError: if there are not so many, or they leave out a process of several.
    """
    pool = list(devices) if devices is not None else jax.devices(backend)
    if size > len(pool) or (devices is not None and size != len(pool)):
        raise ValueError(
            f"pmap: the mapped axis has size {size}, and there are {len(pool)} devices {here()}. Split the batch "
            f"with split_batch(batch, {len(pool)}), which gives it the shape ({len(pool)}, batch // {len(pool)}, ...)."
        )
    check_mesh(pool[:size])
    return pool[:size]


def split_batch(batch: Any, devices: int | None = None) -> Any:
    """A batch in one share a device: each array of shape `(n, ...)` becomes `(devices, n // devices, ...)`.

    Args:
      batch: a pytree of arrays with the same first axis.
      devices: how many; by default all of this process, whose part of the batch it is.

    Raises:
      ValueError: if the batch does not divide evenly.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.parallel.split_batch(np.zeros((8, 3)), 4).shape
      (4, 2, 3)
    """
    count = jax.local_device_count() if devices is None else devices
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
