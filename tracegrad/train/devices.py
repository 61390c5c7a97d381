"""`data_parallel`: a step of training on one device as a step on many, each with its part of the batch."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from .. import numpy as tnp
from ..batching import vmap
from ..compile import jit
from ..errors import called, describe, here, name_of, need_function
from ..ops import communicates
from ..optimizers import GradientTransformation
from ..optimizers.base import need_optimizer
from ..parallel import (
    AllReduce,
    GradientSum,
    Ordered,
    axis_index,
    check_alike,
    check_mesh,
    gradient_sum,
    pcast,
    shard_axis,
    shard_map,
)
from ..parallel.processes import check_program
from ..recording import current
from ..tape import aval_of
from ..transforms import value_and_grad
from .checkpoints import CheckpointError
from .placing import AXIS, copy_on, is_global, is_split, of_all, own_part, put_on, replicated, side_by_side, spec_of
from .shards import accumulated, joined, looped, means, parted, times
from .stepping import TrainState, named_after, point_of, updating, value_at
from .weights import named_leaves


class SummedState(NamedTuple):
    """optimizer: the optimizer's state; sums: what each device keeps of its own for the next sum of gradients."""

    optimizer: Any
    sums: Any


def data_parallel(
    step_or_loss: Callable[..., Any],
    optimizer: GradientTransformation | None = None,
    *,
    devices: int | Sequence[Any] | None = None,
    gradients: str | GradientSum = "all_reduce",
    microbatches: int = 1,
    weight: Callable[..., Any] | None = None,
    average: GradientTransformation | None = None,
    stop_on_nonfinite: bool = True,
    donate: bool = True,
    check_every: int = 1000,
) -> DataParallel:
    """A step of training on many devices: `step(state, *batch) -> (state, loss)`, as that of `make_step` on one.

    The arrays of a batch are split along their first axis, one share a device; what has no axes is given whole. The
    state is on every device. The loss is taken to be a mean over examples: the gradient is that of the mean over the
    whole batch, exactly, also where the batch does not divide (each share is counted by its number of examples). The
    examples that are left over are then computed by themselves, which a loss that has collectives cannot be.

    With several processes each gives its own part of the batch, or global arrays.

    Args:
      step_or_loss: as for `fit`: a loss, `loss(params, *batch)`; with `model_state` and `key` as `make_step` has it,
        where the key is another on each share. Layers that combine their statistics over the devices have
        `axis_name="data"`; a new `model_state` that differs from share to share is averaged, its floating-point arrays
        by the examples; others are those of the first share. Or, without `optimizer`, a step of one's own,
        `step(state, *batch)`, which then runs as it is on arrays that are split over the devices: XLA finds where they
        have to be summed.
      optimizer: any of `optimizers`.
      devices: how many, or which; by default all.
      gradients: how they are summed: "all_reduce", "bucketed", "bfloat16" and "int8" (with error feedback), "sharded"
        (the optimizer's state is split over the devices) or "ordered" (the same bits on any number of devices); or one
        of the modules of `parallel`, with its arguments.
      microbatches: in how many parts a device computes its share, one after another: the memory is that of one.
      weight: `weight(*batch)` of a share, which its loss is a mean over, where it is not its number of examples: such
        as `lambda x, y, w: w.sum()`.
      average: of the parameters: `optimizers.ema(0.999)`.
      stop_on_nonfinite: as in `make_step`.
      donate: whether the new state takes the memory of the old one.
      check_every: after how many steps several processes compare their parameters, and what else has to be the same,
        bit for bit; also before and after the first. It takes as long as SHA-256 of them. The shapes of a batch and the
        program are compared where a batch has other shapes than those before.

    Returns:
      A `DataParallel`: call it as a step, on a state that its `place` has put on the devices.

    Raises:
      ValueError: if there are not so many devices, or the batch's arrays differ in length.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers, train
      >>> optimizer = optimizers.sgd(0.5)
      >>> step = train.data_parallel(lambda w, x: ((w - x) ** 2).mean(), optimizer)
      >>> state = step.place(train.TrainState.create(np.zeros(1, np.float32), optimizer))
      >>> state, value = step(state, np.arange(16, dtype=np.float32))
      >>> round(float(state.params[0]), 4), round(float(value), 4)
      (7.5, 77.5)

    Bits: "ordered" computes S shards of the batch, each with its own random key, by programs that do not depend on how
    many devices there are. `terms` says what else the bits depend on.
    """
    return DataParallel(
        step_or_loss, optimizer, devices, gradients, microbatches, weight, average, stop_on_nonfinite, donate,
        check_every,
    )  # fmt: skip


class DataParallel:
    """What `data_parallel` returns.

    Attributes:
      mesh: the devices, along the axis "data".
      gradients: the module that sums gradients.
      shards: in how many shards a batch is computed.
    """

    def __init__(
        self,
        step_or_loss: Callable[..., Any],
        optimizer: GradientTransformation | None,
        devices: int | Sequence[Any] | None,
        gradients: str | GradientSum,
        microbatches: int,
        weight: Callable[..., Any] | None,
        average: GradientTransformation | None,
        stop_on_nonfinite: bool,
        donate: bool,
        check_every: int,
    ) -> None:
        need_function(step_or_loss, "data_parallel", "step_or_loss", "data_parallel(loss, optimizer)")
        for name, value in (("microbatches", microbatches), ("check_every", check_every)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{called()}: {name} is {value!r} {here()}. Give a number of 1 or more.")
        if weight is not None:
            need_function(weight, "data_parallel", "weight", "weight=lambda x, y, w: w.sum()")
        self.loss, self.optimizer = step_or_loss, optimizer
        self.mesh = Mesh(np.array(_devices(devices)), (AXIS,))
        self.gradients = gradient_sum(gradients)
        self.strict = isinstance(self.gradients, Ordered) and self.gradients.mode == "strict"
        ordered = self.gradients.shards
        if optimizer is None:
            self._need_optimizer(gradients=self.gradients != AllReduce(), microbatches=microbatches != 1,
                                 weight=weight is not None, average=average is not None)  # fmt: skip
        else:
            need_optimizer(optimizer, "data_parallel(loss, optimizer)")
        if ordered is not None and microbatches != 1:
            raise ValueError(
                f"{called()}: microbatches={microbatches} with gradients={self.gradients} {here()}. Its shards are "
                "computed one after another: give it more shards."
            )
        size = self.mesh.size
        self.shards: int = microbatches * size if ordered is None else ordered
        self.held = -(-self.shards // size)
        self.rows, self.whole = NamedSharding(self.mesh, P(AXIS)), NamedSharding(self.mesh, P())
        self._local = [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]
        self._processes = jax.process_count()
        if self._processes > 1 and self.shards % self._processes | (self.shards // self._processes) % len(self._local):
            raise ValueError(
                f"{called()}: {self.shards} shards do not divide over {self._processes} processes of "
                f"{len(self._local)} devices {here()}. Give a number of shards that does."
            )
        self._weight, self._average, self._guard = weight, average, stop_on_nonfinite
        self._donate, self._every, self._calls = donate, check_every, 0
        self._seen: set[Any] = set()
        self._made: dict[Any, Any] = {}
        self._whole_batches: dict[Any, Callable[..., Any]] = {}
        # Known only when the step runs: see `looped`.
        self._count = None if ordered is None else put_on(np.int32(self.held), self.whole)

    def _need_optimizer(self, **given: bool) -> None:
        if wrong := [name for name, there in given.items() if there]:
            raise ValueError(
                f"{called()}: {wrong[0]}= goes with a loss and an optimizer, and there is no optimizer {here()}. A "
                "step of your own sums its gradients itself."
            )

    def __repr__(self) -> str:
        return f"DataParallel({name_of(self.loss)}, {self.mesh.size} devices, {self.gradients})"

    @property
    def terms(self) -> dict[str, Any]:
        """What the bits of a training depend on, besides its program and its data."""
        device = self.mesh.devices.flat[0]
        threads = max(int(os.environ.get("NPROC", 0)) or os.cpu_count() or 1, jax.local_device_count())
        return {
            "shards": self.shards,
            "gradients": str(self.gradients),
            "jaxlib": jaxlib.version.__version__,
            "device": f"{device.platform} {device.device_kind} {platform.machine()}",
            "threads": threads if device.platform == "cpu" else 0,
        }

    def compare(self, terms: Mapping[str, Any]) -> None:
        """Says what of the terms of a checkpoint, as `terms` gave them, is different now. Process 0 alone says it.

        Args:
          terms: none for a checkpoint of a training without `parallel=`.

        Raises:
          CheckpointError: if the same bits are promised, and the shards or the module are others.
        """
        now = self.terms
        other = [f"{k}: {terms[k]!r} then, {now[k]!r} now" for k in now if k in terms and terms[k] != now[k]]
        if self.gradients.shards is None or (terms and not other):
            return
        how = f"under other terms ({'; '.join(other)})" if other else f"without parallel=, and not by {self.gradients}"
        text = f"{called()}: the checkpoint was trained {how} {here()}"
        if other and any(terms.get(name) != now[name] for name in ("shards", "gradients")):
            raise CheckpointError(f"{text}. Give the gradients= that it was trained with.")
        if jax.process_index() == 0:
            print(f"{text}. It goes on, and the bits are not those that an uninterrupted training would have.",
                  file=sys.stderr)  # fmt: skip

    @property
    def alone(self) -> Callable[..., Any]:
        """The loss on one device: collectives of the axis "data" in it are over that one."""
        options: dict[str, Any] = {"in_axes": None, "out_axes": None, "axis_name": AXIS, "axis_size": 1}

        @functools.wraps(self.loss)
        def alone(*args: Any, **kwargs: Any) -> Any:
            return vmap(functools.partial(self.loss, **kwargs), **options)(*args)

        return alone

    # -- the state

    def place(self, state: Any) -> Any:
        """The state on all devices: what the step takes. Arrays that are there stay.

        With a module that keeps something of its own, the optimizer's state becomes a `SummedState`.
        """
        if isinstance(state, TrainState) and self.optimizer is not None:
            state = self._with_sums(state)
        return jax.tree.map(put_on, state, self._shardings(state))

    def _with_sums(self, state: TrainState) -> TrainState:
        if isinstance(state.opt_state, SummedState):
            return state
        size = self.mesh.size
        own = self.gradients.init(point_of(state.params), size)
        if type(own) is tuple:
            return state
        each = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x), (size, *jnp.shape(x))), own)
        return state._replace(opt_state=SummedState(state.opt_state, each))

    def _shardings(self, state: Any) -> Any:
        if not isinstance(state, TrainState) or self.optimizer is None:
            return jax.tree.map(lambda x: self.whole, state)
        split = any(axis is not None for axis in self._split_axes(state.params))
        sums = isinstance(state.opt_state, SummedState)
        opt_state = state.opt_state.optimizer if sums else state.opt_state
        placed = jax.tree.map(lambda x: self._share(np.shape(x)) if split else self.whole, opt_state)
        if sums:
            placed = SummedState(placed, jax.tree.map(lambda x: self.rows, state.opt_state.sums))
        return jax.tree.map(lambda x: self.whole, state)._replace(opt_state=placed)

    def _split_axes(self, params: Any) -> list[int | None]:
        like = point_of(params)
        axes = self.gradients.split_axes(like, self.mesh.size)
        # Parameters may have `None` where there is nothing, as a layer without a bias.
        return jax.tree.structure(like).flatten_up_to(axes)  # type: ignore[no-any-return, attr-defined]

    def _share(self, shape: tuple[int, ...]) -> NamedSharding:
        """Of an array of the optimizer's state: as a gradient of this shape is split."""
        return NamedSharding(self.mesh, spec_of(shard_axis(shape, self.mesh.size)))

    def local(self, state: Any) -> Any:
        """The state as one device has it, with what it has a part of as it is: to evaluate a model with."""

        def one(x: Any) -> Any:
            if isinstance(x, jax.Array) and x.is_fully_replicated and len(x.sharding.device_set) > 1:
                return x.addressable_data(0)
            return x

        return jax.tree.map(one, state)

    # -- the step

    def __call__(self, state: Any, *batch: Any) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(batch)
        types = tuple([(getattr(x, "shape", None), getattr(x, "dtype", None)) for x in leaves])
        known = (jax.tree.structure(state), tree, types)
        step = self._whole_batches.get(known)
        if step is not None:
            return self._done(step(state, batch, None, None, self._count))
        new = self._processes > 1 and self._check(state, tree, leaves, [x for x in leaves if not is_split(x)])
        self._calls += 1
        step, args = self._arranged(state, batch, new)
        if new and not self.strict:
            check_program("the program of a step", step.lower(*args))  # type: ignore[attr-defined]
        if self._processes == 1 and args[0] is state and args[1] is batch:
            # The next one of these types goes straight there.
            self._whole_batches[known] = step
        return self._done(step(*args))

    def lower(self, state: Any, *batch: Any) -> Any:
        """JAX's `Lowered` of the step for arguments of these types: `.compile()` gives the program, and what it takes.

        Raises:
          ValueError: with `Ordered(mode="strict")`, whose step is several programs.
        """
        if self.strict:
            raise ValueError(
                f"{called()}: with {self.gradients} a step is several programs {here()}. There is one with "
                'Ordered(mode="fused").'
            )
        step, args = self._arranged(state, batch)
        return step.lower(*args)  # type: ignore[attr-defined]

    def _arranged(
        self, state: Any, batch: tuple[Any, ...], new: bool = False
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What computes the step, and its arguments; `new` if batches of these types are."""
        leaves, tree = jax.tree.flatten(batch)
        split = tuple(map(is_split, leaves))
        rows = [x for x, s in zip(leaves, split, strict=True) if s]
        wholes = [x for x, s in zip(leaves, split, strict=True) if not s]
        how = (tree, split)
        if self.optimizer is None:
            return self._by_annotation(state, rows, wholes, how)
        if self.strict:
            rows = [own_part(x) for x in rows]
        main, rest, flags = self._layout(rows, self._examples(rows, batch))
        if self.strict:
            return self._strict, (state, main, rest, flags, wholes, how, new)
        if main is not rows:
            batch = joined(main, wholes, how)
        if self._processes > 1:
            batch = joined(of_all(main, self.rows), wholes, how)
            rest, flags = of_all(rest, self.rows), of_all(flags, self.rows)
        if isinstance(state, TrainState):
            state = self._with_sums(state)
        return self._step(state, *how), (state, batch, rest, flags, self._count)

    def _done(self, found: tuple[Any, Any]) -> tuple[Any, Any]:
        """What a step has found. On a CPU of several devices two steps at a time may wait for each other for ever."""
        if len(self._local) > 1 and self._local[0].platform == "cpu":
            jax.block_until_ready(found[1])
        return found

    def _check(self, state: Any, tree: Any, leaves: list[Any], wholes: list[Any]) -> bool:
        """Compares what several processes give; whether a batch is the first of its kind."""
        types = tuple((np.shape(x), str(aval_of(x).dtype)) for x in leaves)
        new = (tree, types) not in self._seen
        if new:
            self._seen.add((tree, types))
            check_alike("the shapes and dtypes of the batch", [str(tree), types])
        # Also after the first step: that is what another optimizer or learning rate differs by.
        if self._calls == 1 or self._calls % self._every == 0:
            compared = state._replace(opt_state=(), average=None) if isinstance(state, TrainState) else state
            check_alike(f"the state before step {self._calls + 1} of this run", compared)
            check_alike("what of the batch is given whole", wholes)
        return new

    def _examples(self, rows: list[Any], batch: Any) -> int:
        """How many examples of a batch are this process's."""
        sizes = {np.shape(x)[0] for x in rows}
        if len(sizes) != 1:
            names = {name: np.shape(x) for name, x in named_leaves(batch).items()}
            raise ValueError(
                f"{called()}: the arrays of a batch are split along their first axes, which differ: {names} {here()}."
                if sizes
                else f"{called()}: a batch has no array with examples along its first axis: {describe(batch)} {here()}."
            )
        count = sizes.pop()
        return int(count) // self._processes if is_global(rows[0]) else int(count)

    def _layout(self, rows: list[Any], count: int) -> tuple[list[Any], list[Any] | None, Any]:
        """The rows of all shards of one size, those that are left over, one a shard, and which shards have one."""
        own = self.shards // self._processes
        slots = self.held * len(self._local)
        each, left = divmod(count, own)
        if not left and slots == own:
            return rows, None, None
        # Where each shard begins: alike in however many processes the batch is, if it divides over them.
        starts = np.arange(own + 1) * count // own
        longer = np.diff(starts) > each
        if is_global(rows[0]):
            raise ValueError(
                f"{called()}: a batch of {count * self._processes} examples in global arrays does not divide over "
                f"{self.shards} shards {here()}. Give each process's own part, or drop or pad the last batch."
            )
        filled = np.pad(starts[:-1], (0, slots - own), mode="edge")
        main = [x[(filled[:, None] + np.arange(each)).reshape(-1)] for x in rows]
        if not left:
            return main, None, None
        flags = np.pad(longer.astype(np.float32), (0, slots - own))
        return main, [x[np.minimum(filled + each, count - 1)] for x in rows], flags

    def _by_annotation(
        self, state: Any, rows: list[Any], wholes: list[Any], how: Any
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if "own" not in self._made:

            def step(state: Any, rows: list[Any], wholes: list[Any], how: tuple[Any, Any]) -> Any:
                return self.loss(state, *joined(rows, wholes, how))

            step = named_after(step, self.loss)
            self._made["own"] = jit(
                step, static_argnums=3, donate_argnums=0 if self._donate else None, out_shardings=self.whole
            )
        size = self.mesh.size
        if self._processes > 1:
            rows = of_all(rows, self.rows)
        rows = [jax.device_put(x, self.rows if np.shape(x)[0] % size == 0 else self.whole) for x in rows]
        return self._made["own"], (state, rows, wholes, how)

    def _step(self, state: Any, tree: Any, split: tuple[bool, ...]) -> Callable[..., Any]:
        """The compiled step for states and batches of these structures."""
        structure = (jax.tree.structure(state), tree, split)
        if structure in self._made:
            return self._made[structure]  # type: ignore[no-any-return]
        if not isinstance(state, TrainState):
            raise TypeError(
                f"{called()}: state is {describe(state)} {here()}. Give step.place(TrainState.create(params, "
                "optimizer)), or what the step before returned."
            )
        shardings = self._shardings(state)
        assert self.optimizer is not None
        update = updating(self.optimizer, self._average, self._guard)

        def step(state: TrainState, batch: Any, rest: Any, flags: Any, held: Any) -> tuple[TrainState, Any]:
            leaves = jax.tree.leaves(batch)
            rows = [x for x, s in zip(leaves, split, strict=True) if s]
            wholes = [x for x, s in zip(leaves, split, strict=True) if not s]
            keeps, sums = isinstance(state.opt_state, SummedState), ()
            if keeps:
                sums = state.opt_state.sums
                state = state._replace(opt_state=state.opt_state.optimizer)
            given = (rows, rest, flags, wholes, held, (tree, split))
            total, others, sums = self._summed(state, sums, *given)

            def value_fn(params: Any) -> Any:
                found = self._summed(state._replace(params=params), sums, *given)[0]
                return found["value"] / found["weight"]

            new, value = update(state, *means(state, total, others), value_fn)
            if keeps:
                new = new._replace(opt_state=SummedState(new.opt_state, sums))
            return new, value

        placed = jax.tree.unflatten(tree, [self.rows if s else self.whole for s in split])
        self._made[structure] = jit(
            named_after(step, self.loss),
            donate_argnums=0 if self._donate else None,
            in_shardings=(shardings, placed, self.rows, self.rows, self.whole),
            out_shardings=(shardings, self.whole),
        )
        return self._made[structure]  # type: ignore[no-any-return]

    def _summed(
        self, state: TrainState, sums: Any, rows: Any, rest: Any, flags: Any, wholes: Any, held: Any, how: Any
    ) -> tuple[dict[str, Any], list[Any], Any]:
        """The sums over all devices, and what the module keeps."""
        module = self.gradients
        axes = self._split_axes(state.params)
        tree = jax.tree.structure(point_of(state.params))
        opened = {"params": state.params, "model_state": state.model_state, "key": state.key, "step": state.step}

        def mapped(
            opened: dict[str, Any], sums: Any, rows: Any, rest: Any, flags: Any, wholes: Any, held: Any
        ) -> tuple[Any, Any, Any]:
            own = jax.tree.map(lambda x: x[0], sums)
            # Each device's own, so that the gradients are: the module is to sum them.
            params = pcast(opened.pop("params"), AXIS, to="varying")
            at = TrainState(opt_state=(), average=None, failed=False, params=params, **opened)

            def one(shard: Any, rows: Any, rest: Any, flag: Any) -> tuple[dict[str, Any], list[Any]]:
                return self._shard(at, shard, rows, rest, flag, wholes, how)

            first = axis_index(AXIS) * self.held
            kept, ints = parted(at.model_state)
            zero = jax.tree.map(tnp.zeros_like, {"grads": point_of(at.params), "model_state": kept})
            if module.shards is not None:
                dtype = jnp.result_type(np.float32, *[x.dtype for x in jax.tree.leaves(zero)])
                zero |= {"value": tnp.zeros((), dtype), "weight": tnp.zeros((), dtype)}
                stacked, others = looped(one, (zero, ints), first, self.held, held, rows, rest, flags)
                total, own = module(stacked, own, AXIS)
            else:
                part, others = accumulated(one, zero, first, self.held, rows, rest, flags)
                grads, own = module(part.pop("grads"), own, AXIS)
                total, _ = AllReduce()(pcast(part, AXIS, to="varying"), (), AXIS)
                total["grads"] = grads
            return total, others, jax.tree.map(lambda x: x[None], own)

        whole, split = P(), P(AXIS)
        specs = {"grads": jax.tree.unflatten(tree, [spec_of(axis) for axis in axes]), "value": whole, "weight": whole,
                 "model_state": whole}  # fmt: skip
        run = shard_map(
            mapped,
            mesh=self.mesh,
            in_specs=(whole, split, split, split, split, whole, whole),
            out_specs=(specs, whole, split),
        )
        total, others, sums = run(opened, sums, rows, rest, flags, wholes, held)
        return total, others, sums

    def _shard(
        self, state: TrainState, shard: Any, rows: Any, rest: Any, flag: Any, wholes: Any, how: Any
    ) -> tuple[dict[str, Any], list[Any]]:
        """The sums over the examples of one shard, and what of the model's state is no floating-point array."""
        count = np.shape(rows[0])[0]
        parts = [(rows, shard, 1.0 if rest is None else float(count))] if count else []
        if rest is not None:
            parts.append((rest, shard + self.shards, flag))
        total: dict[str, Any] = {}
        others: list[Any] = []
        for arrays, number, weight in parts:
            batch = joined(arrays, wholes, how)
            at = value_at(self.loss, state, batch, number)
            before = len(current().nodes)
            try:
                (value, model_state), grads = value_and_grad(at, has_aux=True)(point_of(state.params))
            except NameError as error:
                if repr(AXIS) not in str(error) or not self.strict:
                    raise
                raise self._no_collectives(False) from error
            if rest is not None or self.gradients.shards is not None:
                nodes = current().nodes[before:]
                if AXIS in communicates(current().part(nodes, ())):
                    raise self._no_collectives(rest is not None)
            structure: Any = jax.tree.structure(model_state)
            wanted: Any = jax.tree.structure(state.model_state)
            if structure != wanted:
                raise TypeError(
                    f"{called()}: the loss returned a model_state of another structure than it was given {here()}: "
                    f"{structure} for {wanted}."
                )
            kept, others = parted(model_state)
            if self._weight is not None:
                counted = self._weight(*batch)
                weight = counted if isinstance(weight, float) else tnp.where(weight > 0, counted, 0)
            found = {"grads": grads, "value": value, "model_state": kept}
            found = jax.tree.map(lambda x, w=weight: times(x, w), found)  # type: ignore[misc]
            found["weight"] = tnp.asarray(weight).astype(jnp.result_type(np.float32, aval_of(value).dtype))
            total = found if not total else jax.tree.map(lambda a, b: a + b, total, found)
        return total, others

    def _no_collectives(self, ragged: bool) -> ValueError:
        layers = f"collectives along {AXIS!r}, such as those of a layer with axis_name={AXIS!r}"
        if ragged:
            return ValueError(
                f"{called()}: the loss has {layers}, and the batch does not divide over {self.shards} shards {here()}. "
                "Drop or pad the last batch: DataLoader(..., last='drop')."
            )
        return ValueError(
            f"{called()}: the loss has {layers}, and gradients={self.gradients} computes each shard by itself "
            f"{here()}. Make the layer without axis_name."
        )

    # -- strict: programs that do not depend on the number of devices

    def _strict(
        self, state: Any, rows: Any, rest: Any, flags: Any, wholes: Any, how: Any, new: bool
    ) -> tuple[Any, Any]:
        """One shard's gradient, the sum, and the update, each a program of its own."""
        if "shard" not in self._made:
            self._made["shard"] = jit(self._one_shard, static_argnums=6)
            self._made["sum"] = jit(self._sum_of_shards)
            assert self.optimizer is not None
            update = updating(self.optimizer, self._average, self._guard)

            def updated(state: TrainState, total: Any, others: Any) -> tuple[TrainState, Any]:
                def value_fn(params: Any) -> Any:
                    raise NotImplementedError(
                        f"the optimizer asks for the loss at other parameters, which {self.gradients} does not "
                        'compute. Give gradients="all_reduce" or Ordered(mode="fused").'
                    )

                return update(state, *means(state, total, others), value_fn)

            self._made["update"] = jit(named_after(updated, self.loss), donate_argnums=0 if self._donate else None)
        states = [jax.tree.map(lambda x, d=d: copy_on(x, d), state) for d in self._local]  # type: ignore[misc]
        own = self.shards // self._processes
        first = jax.process_index() * own if self._processes > 1 else 0
        each = np.shape(rows[0])[0] // (self.held * len(self._local))
        slots: list[list[Any]] = [[] for _ in range(self.held)]
        others: list[Any] = []
        for i, at in enumerate(states):
            for k in range(self.held):
                # Past the last shard it is that one again, which takes no part.
                s = min(i * self.held + k, own - 1)
                part = [x[s * each : (s + 1) * each] for x in rows]
                left = None if rest is None else [x[s : s + 1] for x in rest]
                flag = None if flags is None else flags[s]
                given = (at, np.int32(first + s), part, left, flag, wholes, how)
                with jax.default_device(self._local[i]):
                    if new and not slots[0]:
                        check_program("the program of a step", self._made["shard"].lower(*given))
                    found, other = self._made["shard"](*given)
                slots[k].append(found)
                others = other if i == 0 and k == 0 else others
        size = self.mesh.size
        stacked = [jax.tree.map(lambda *parts: side_by_side(parts, size, self.rows), *slot) for slot in slots]
        total = self._made["sum"](stacked)
        states_after, values = [], []
        for i, at in enumerate(states):
            device = self._local[i]
            mine = jax.tree.map(lambda x, d=device: jax.device_put(x, d), others)  # type: ignore[misc]
            one, value = self._made["update"](at, jax.tree.map(lambda x, d=device: copy_on(x, d), total), mine)  # type: ignore[misc]
            states_after.append(one)
            values.append(value)
        return jax.tree.map(lambda *parts: replicated(parts, self.whole), *states_after), replicated(values, self.whole)

    def _one_shard(
        self, state: TrainState, shard: Any, rows: Any, rest: Any, flag: Any, wholes: Any, how: Any
    ) -> tuple[Any, Any]:
        total, others = self._shard(state, shard, rows, rest, flag, wholes, how)
        return jax.tree.map(lambda x: x[None], total), others

    def _sum_of_shards(self, slots: list[Any]) -> Any:
        def mapped(slots: list[Any]) -> Any:
            stacked = jax.tree.map(lambda *parts: tnp.concatenate(parts), *slots)
            return self.gradients(stacked, (), AXIS)[0]

        return shard_map(mapped, mesh=self.mesh, in_specs=P(AXIS), out_specs=P())(slots)


def options_of(parallel: Any) -> dict[str, Any]:
    """The arguments of `data_parallel` that `parallel=` of `fit` stands for; none if it is not asked for."""
    if parallel is None or parallel is False:
        return {}
    if parallel is True:
        return {"devices": None}
    if isinstance(parallel, (int, np.integer)):
        return {"devices": int(parallel)}
    if isinstance(parallel, Mapping):
        wrong = [name for name in parallel if name not in _OPTIONS]
        if not wrong:
            return {"devices": None, **parallel}
        raise ValueError(f"{called()}: parallel has no {wrong[0]!r} {here()}. It has {', '.join(_OPTIONS)}.")
    raise TypeError(
        f"{called()}: parallel is {describe(parallel)} {here()}. Give True, a number of devices, or a dict such as "
        '{"devices": 4, "gradients": "sharded"}.'
    )


_OPTIONS = ("devices", "gradients", "microbatches", "weight", "check_every")


def _devices(devices: int | Sequence[Any] | None) -> list[Any]:
    there = jax.devices()
    if devices is None:
        return there
    if isinstance(devices, (int, np.integer)) and not isinstance(devices, bool):
        if not 1 <= devices <= len(there):
            raise ValueError(
                f"{called()}: devices={devices}, and there are {len(there)} {there[0].platform} devices {here()}. On a "
                f'CPU, jax.config.update("jax_num_cpu_devices", {devices}) makes as many, before anything else.'
            )
        # Of several processes, as many of each.
        by_process = sorted(there, key=lambda d: (d.id % jax.local_device_count(), d.process_index))
        chosen = there[:devices] if jax.process_count() == 1 else sorted(by_process[:devices], key=lambda d: d.id)
    else:
        chosen = list(devices) if isinstance(devices, (list, tuple, np.ndarray)) else []
    if not chosen or not all(isinstance(d, jax.Device) for d in chosen):
        raise TypeError(f"{called()}: devices is {describe(devices)} {here()}. Give how many, or a list of devices.")
    check_mesh(chosen)
    return chosen


__all__ = ["DataParallel", "SummedState", "data_parallel"]
