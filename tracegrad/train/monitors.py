"""A monitor of a training: what each layer and each parameter is like at every k-th step, and what looks wrong."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import numpy as tnp
from .. import random
from ..capture import capture
from ..compile import jit
from ..errors import called, describe, here, need_function
from ..names import listed
from ..numpy.arguments import is_known
from ..optimizers import LookaheadParams
from ..tape import aval_of
from ..transforms import value_and_grad
from .callbacks import Callback
from .diagnosis import findings
from .extras import figure_of
from .finding import Finder, Plan, Row, leaves_of, plan
from .reports import LayerReport, ParameterReport, Report, together, warn
from .spreads import Spread, in_float, measured, spreads_of
from .stepping import TrainState

SLOPE = 0.05
"""Below this part of its greatest slope an activation is saturated."""


@jax.tree_util.register_pytree_node_class
class _Seen:
    """What the program of a monitor returns: numbers, and the plan that says of what they are."""

    def __init__(self, numbers: Any, plan: Plan) -> None:
        self.numbers, self.plan = numbers, plan

    def tree_flatten(self) -> tuple[tuple[Any], Plan]:
        return (self.numbers,), self.plan

    @classmethod
    def tree_unflatten(cls, plan: Plan, children: tuple[Any]) -> _Seen:
        return cls(children[0], plan)


class _Pending(NamedTuple):
    step: int
    seen: _Seen
    before: Any
    ratios: Any
    validation: float | None


class Monitor(Callback):
    """Looks at a training at every k-th step, and warns in plain words where something looks wrong.

    Of each layer it takes the mean, the standard deviation and a histogram of what the layer makes and of the gradient
    with respect to that, and the fractions of dead units (of relu) and saturated ones (of tanh and sigmoid); of each
    parameter the same of its gradient, and the update-to-weight ratio; and the loss, of the batch and of validation
    data. Layers are found by themselves, also those inside a `Stack`, and so are activations and products with
    parameters in a model of plain functions. What is in a `cond` or a `while_loop` is not seen, and the loss has to run
    under `@jit`.

    The numbers are taken in a program of its own: at other steps nothing is computed. It costs the loss and its
    gradient once more, and five passes over what is looked at: 1 to 2.5 steps of training in all, on a CPU, so that a
    look at every 50th step adds 2 to 5% (`python -m benchmarks.monitors`). A copy of the parameters is held for a step.
    What was found is read when it is there, without waiting for it.

    Call it before each step, or give it to `fit` among the callbacks.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)`, which returns a scalar, or a pair of it and anything; by default the
        loss of `fit`. A `params` that is a layer is called "model" in the paths, anything else "params".
      every: how many steps from one look to the next.
      layers: the paths of the layers to look at, with all that is in them; by default all.
      bins: of the histograms.
      validation: a tuple of arguments for `loss_fn` in the place of `args`, or a function of `params`, `args` and
        `kwargs` that returns a scalar.

    Attributes:
      reports: a tuple of what was seen so far.

    Raises:
      TypeError: if `loss_fn` is not a function.
      ValueError: if a number is not positive, or, at the first call, if there is no such layer.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad import nn, optimizers, train
      >>> def loss(model, x, y):
      ...     return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)
      >>> model = nn.MLP.init(tg.random.key(0), (4, 16, 3))
      >>> x, y = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32), np.arange(32) % 3
      >>> optimizer = optimizers.sgd(0.1)
      >>> state, monitor = optimizer.init(model), train.Monitor(loss, every=10)
      >>> for step in range(12):
      ...     monitor(step, model, x, y)
      ...     updates, state = optimizer.update(tg.grad(loss)(model, x, y), state, model)
      ...     model = optimizers.apply_updates(model, updates)
      >>> [report.step for report in monitor.reports]
      [0, 10]
      >>> list(monitor.reports[-1].layers)
      ['model.layers[0]', 'model.relu', 'model.layers[1]']
      >>> monitor.reports[-1].findings
      ()
    """

    every = 1
    """How often `fit` calls this: each step, to see what a step has changed."""

    def __init__(
        self,
        loss_fn: Callable[..., Any] | None = None,
        every: int = 50,
        *,
        layers: Sequence[str] | None = None,
        bins: int = 20,
        validation: Any = None,
    ) -> None:
        if loss_fn is not None:
            need_function(loss_fn, called(), "loss_fn", "Monitor(loss_fn), with a function of parameters and a batch")
        for name, value in (("every", every), ("bins", bins)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{called()}: {name}={value!r} {here()}. Give a number of 1 or more.")
        if isinstance(layers, str):
            raise TypeError(
                f"{called()}: layers is the string {layers!r} {here()}. Give a list of paths: [{layers!r}]."
            )
        if validation is not None and not callable(validation) and not isinstance(validation, tuple):
            raise TypeError(
                f"{called()}: validation is {describe(validation)} {here()}. Give a tuple of what loss_fn takes after "
                "the parameters, such as (x_val, y_val), or a function."
            )
        self.loss_fn, self.interval, self.bins = loss_fn, every, bins
        self._takes_loss = loss_fn is None
        self.layers = None if layers is None else tuple(layers)
        self.validation = validation
        self._program = jit(self._look)
        self._reports: list[Report] = []
        self._pending: list[_Pending] = []
        self._warned: set[tuple[str, str]] = set()
        self._validation_loss: float | None = None

    def __call__(self, step: int, params: Any, *args: Any, **kwargs: Any) -> None:
        """Looks, if it is time to, at these parameters and what `loss_fn` makes of these arguments.

        Args:
          step: its number. If this is called for the next one too, what the step changes is seen.
          params: before the step, which may take their memory.
          args, kwargs: what `loss_fn` takes besides: the batch.

        Raises:
          TypeError: if something has no value yet, as inside `@jit`.
          ValueError: if a layer is not there.
        """
        step = int(step)
        if self.loss_fn is None:
            raise TypeError(
                f"{called()}: there is no loss {here()}. Write Monitor(loss_fn); one without is for fit, with a loss "
                "and an optimizer."
            )
        if self._pending and self._pending[-1].before is not None:
            last = self._pending.pop()
            ratios = _ratios(last.before, params) if step == last.step + 1 else None
            self._pending.append(last._replace(before=None, ratios=ratios))
        if step % self.interval == 0:
            for x in jax.tree.leaves((params, args, kwargs)):
                if not is_known(x):
                    raise TypeError(f"{called()}: {describe(x)} has no value yet {here()}. Call it outside @jit.")
            extra_args = self.validation if isinstance(self.validation, tuple) else None
            seen = self._program(params, args, kwargs, extra_args)
            # A copy, since the step may take the memory of the parameters.
            self._pending.append(_Pending(step, seen, _copied(params), None, self._validation_loss))
            self._validation_loss = None
        self._collect(wait=False)

    @property
    def reports(self) -> tuple[Report, ...]:
        self._collect(wait=True)
        return tuple(self._reports)

    def __repr__(self) -> str:
        reports = self.reports
        return repr(reports[-1]) if reports else f"a monitor of every {self.interval} steps, which has seen none"

    # -- what `fit` calls

    def on_start(self, loop: Any) -> None:
        """Before the first step."""
        if not isinstance(loop.state, TrainState) or (self._takes_loss and loop.loss is None):
            raise TypeError(
                f"{called()}: Monitor needs the loss and a TrainState {here()}. Give fit a loss and an optimizer, not "
                "a step, or Monitor(loss_fn) and a step of a TrainState."
            )
        if self._takes_loss and loop.loss is not self.loss_fn:
            self.loss_fn, self._program = loop.loss, jit(self._look)

    def on_step(self, loop: Any) -> None:
        """After a step, with the batch of that step."""
        state = loop.state
        params = state.params.fast if isinstance(state.params, LookaheadParams) else state.params
        key = {} if state.key is None else {"key": random.fold_in(state.key, state.step)}
        model_state = () if state.model_state is None else (state.model_state,)
        self(loop.step, params, *model_state, *loop.batch, **key)

    def on_epoch(self, loop: Any) -> None:
        """After an epoch: the next report has the validation loss, if there is one."""
        if self.validation is None and "val_loss" in loop.history:
            self._validation_loss = float(loop.history["val_loss"][-1])

    def on_end(self, loop: Any) -> None:
        """After the last step."""
        self._collect(wait=True)

    # -- the program

    def _look(self, params: Any, args: tuple[Any, ...], kwargs: dict[str, Any], validation: Any) -> _Seen:
        assert self.loss_fn is not None
        loss_fn = self.loss_fn
        whole = plan(loss_fn, params, args, kwargs)
        rows = self._chosen(whole.rows)
        names = [row.name for row in rows]

        def loss(params: Any) -> Any:
            return Finder(params, names).run(loss_fn, (params, *args), kwargs)

        (value, grads), found = capture(value_and_grad(loss))(params)
        checked = np.nan
        if validation is not None or self.validation is not None:
            out = loss_fn(params, *validation) if validation is not None else self.validation(params, *args, **kwargs)
            checked = out[0] if isinstance(out, tuple) and len(out) == 2 else out
        varies = _varies(found.values[whole.output]) if whole.output in names else np.nan
        tables = []
        for row in rows:
            x, gradient = found.values[row.name], found.gradients.get(row.name)
            gradient = tnp.zeros_like(x) if gradient is None else gradient
            for y, more in ((x, _units(row, x)), (gradient, np.nan)):
                tables.append(self._table(y, row.depth, more))
        for (_, x), (_, gradient) in zip(leaves_of(params), leaves_of(grads), strict=True):
            tables.append(self._table(gradient, 0, tnp.sqrt((in_float(x) ** 2).sum())))
        # One array of each kind: to fetch many small ones takes longer than to compute them.
        numbers = (
            tnp.stack([value, checked, varies]),
            tnp.concatenate([floats for floats, _ in tables]) if tables else np.zeros((0, 5), np.float32),
            tnp.concatenate([counts for _, counts in tables]) if tables else np.zeros((0, self.bins), np.int32),
        )
        seen = Plan(rows, whole.unused, whole.fixed)
        seen.output = whole.output if whole.output in names else None
        seen.shapes = {row.name: aval_of(found.values[row.name]).shape for row in rows}
        seen.parameters = {path: aval_of(x).shape for path, x in leaves_of(params)}
        return _Seen(numbers, seen)

    def _chosen(self, rows: list[Row]) -> list[Row]:
        if self.layers is None:
            return rows
        chosen = []
        for path in self.layers:
            inside = [
                row for row in rows if row.path == path or row.path.startswith((f"{path}.", f"{path}[", f"{path}#"))
            ]
            if not inside:
                paths = [row.path for row in rows]
                near = difflib.get_close_matches(path, paths, n=1)
                raise ValueError(
                    f"{called()}: there is no layer {path!r} {here()}. "
                    + (f"Did you mean {near[0]!r}? " if near else "")
                    + f"There are: {', '.join(paths) or 'none'}."
                )
            chosen += [row for row in inside if row not in chosen]
        return sorted(chosen, key=rows.index)

    def _table(self, x: Any, depth: int, more: Any) -> tuple[Any, Any]:
        """What `measured` finds in an array, and one number more, with a row for each index of the first axes."""
        floats, counts = measured(x, depth, self.bins)
        more = tnp.broadcast_to(more, floats.shape[:-1]).astype(floats.dtype)
        floats = tnp.concatenate([floats, more[..., None]], -1)
        return floats.reshape((-1, 5)), counts.reshape((-1, self.bins))

    # -- what was seen

    def _collect(self, wait: bool) -> None:
        while self._pending:
            pending = self._pending[0]
            if not wait and (pending.before is not None or not _ready((pending.seen.numbers, pending.ratios))):
                return
            self._pending.pop(0)
            self._report(pending)

    def _report(self, pending: _Pending) -> None:
        (first, floats, counts), ratios = jax.device_get((pending.seen.numbers, pending.ratios))
        plan = pending.seen.plan
        value, checked, varies = first.tolist()
        total, *ratios = [None] * (len(plan.parameters) + 1) if ratios is None else ratios.tolist()
        sizes = [size for row in plan.rows for size in 2 * _sizes(row, plan.shapes[row.name])]
        sizes += [math.prod(shape) for shape in plan.parameters.values()]
        more = floats[:, 4].tolist()
        spreads = iter(zip(spreads_of(floats[:, :4], counts, sizes), more, strict=True))
        layers = {row.path: row for row in self._rows(spreads, plan)}
        parameters = {}
        for (path, shape), ratio in zip(plan.parameters.items(), ratios, strict=True):
            gradients, norm = next(spreads)
            norm = norm if math.isfinite(norm) else math.nan
            parameters[path] = ParameterReport(path, shape, norm, gradients, ratio)
        validation = pending.validation if self.validation is None else checked
        outputs = [row.path for row in plan.rows if row.name == plan.output]
        report = Report(
            pending.step, value, validation, layers, parameters,
            together([p.gradients.norm for p in parameters.values()]),
            total if any(len(shape) > 1 for shape in plan.parameters.values()) else None, varies,
            outputs[0] if outputs else None, plan.unused, plan.fixed,
        )  # fmt: skip
        report = dataclasses.replace(report, findings=findings([*self._reports, report]))
        self._reports.append(report)
        for finding in report.findings:
            if (finding.kind, finding.where) not in self._warned:
                self._warned.add((finding.kind, finding.where))
                warn(finding.text)

    def _rows(self, spreads: Iterator[tuple[Spread, float]], plan: Plan) -> list[LayerReport]:
        rows: list[tuple[tuple[int, ...], LayerReport]] = []
        # What is in one loop stands together, layer after layer.
        for _, group in itertools.groupby(plan.rows, lambda row: row.path.partition("[*]")[0] if row.depth else None):
            reports = [one for row in group for one in _each(row, spreads, plan.shapes[row.name])]
            rows += sorted(reports, key=lambda report: report[0][:1])
        return [report for _, report in rows]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws what was seen over the steps: losses, outputs, gradients, and the update-to-weight ratio.

        Args:
          path: an image file to write; in a notebook the figure that is returned shows itself.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: without matplotlib.
          ValueError: if nothing was seen yet.
        """
        reports = self.reports
        if not reports:
            raise ValueError(f"{called()}: nothing was seen yet {here()}.")
        figure = figure_of(9, 6)
        (losses, outputs), (gradients, updates) = figure.subplots(2, 2)
        steps = [report.step for report in reports]
        losses.plot(steps, [report.loss for report in reports], "o-", markersize=4, label="batch")
        checked = [(r.step, r.validation_loss) for r in reports if r.validation_loss is not None]
        if checked:
            losses.plot(*zip(*checked, strict=True), "s--", markersize=4, label="validation")
        losses.legend()
        for i, name in enumerate(reports[-1].layers):
            style = _style(i, name)
            rows = [report.layers.get(name) for report in reports]
            outputs.plot(steps, [math.nan if row is None else row.values.std for row in rows], **style)
            gradients.semilogy(steps, [_positive(row and row.gradients.norm) for row in rows], **style)
        for i, name in enumerate(reports[-1].parameters):
            ratios = [report.parameters[name].update_ratio for report in reports if name in report.parameters]
            updates.semilogy(steps[-len(ratios) :], [_positive(ratio) for ratio in ratios], **_style(i, name))
        updates.axhline(1e-3, color="grey", linestyle=":")
        titles = ("loss", "std of outputs", "gradients of outputs (norm)", "update / weight")
        for axes, title in zip((losses, outputs, gradients, updates), titles, strict=True):
            axes.set(xlabel="step", title=title)
            if axes is not losses and len(axes.lines) <= 12:
                axes.legend(fontsize="x-small")
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


def _each(
    row: Row, spreads: Iterator[tuple[Spread, float]], shape: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], LayerReport]]:
    """The report of a row, or of each of the layers of a loop, with its number."""
    units, sizes = shape[-1] if len(shape) > row.depth else 1, _sizes(row, shape)
    values, gradients = (list(itertools.islice(spreads, len(sizes))) for _ in range(2))
    indices = np.ndindex(shape[: row.depth])
    for index, size, (value, fraction), (gradient, _) in zip(indices, sizes, values, gradients, strict=True):
        path = functools.reduce(lambda path, i: path.replace("[*]", f"[{i}]", 1), index, row.path)
        yield index, LayerReport(
            path, row.kind, row.source, value, gradient, row.activation,
            fraction if row.activation == "relu" else None, fraction if row.activation in ("tanh", "sigmoid") else None,
            units, size // max(1, units), row.hidden, row.weighted,
        )  # fmt: skip


def _sizes(row: Row, shape: tuple[int, ...]) -> list[int]:
    """How many elements each of the layers of a row has."""
    return [math.prod(shape[row.depth :])] * math.prod(shape[: row.depth])


def _units(row: Row, x: Any) -> Any:
    """The fraction of dead units or of saturated elements of a row, of each of the layers of a loop."""
    if not row.activation:
        return np.nan
    x = in_float(x)
    shape = aval_of(x).shape
    if row.activation == "relu":
        return (x == 0).all(tuple(range(row.depth, len(shape) - 1))).mean(-1) if x.ndim else x == 0
    slope = 1 - x * x if row.activation == "tanh" else 4 * x * (1 - x)
    return (slope < SLOPE).reshape((*shape[: row.depth], -1)).mean(-1)


def _style(i: int, name: str) -> dict[str, Any]:
    """Of the i-th of some curves: told apart without colour too."""
    return {"marker": "os^vDP*X"[i % 8], "markersize": 4, "label": name}


def _positive(x: float | None) -> float:
    """What a logarithmic axis can show."""
    return x if x else math.nan


def _ready(tree: Any) -> bool:
    arrays: list[Any] = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return all(x.is_ready() for x in arrays)


@jax.jit
def _copied(params: Any) -> Any:
    return jax.tree.map(jnp.copy, params)


@jit
def _ratios(before: Any, after: Any) -> Any:
    """The norm of each change over that of what was changed: of all of two axes or more together, and of each."""
    found, changes, sizes = [], [], []
    for (_, x), (_, y) in zip(leaves_of(before), leaves_of(after), strict=True):
        x, y = in_float(x), in_float(y)
        change, size = ((y - x) ** 2).sum(), (x**2).sum()
        found.append(tnp.sqrt(change / size))
        if len(aval_of(x).shape) > 1:
            changes.append(change)
            sizes.append(size)
    return tnp.stack([tnp.sqrt(sum(changes) / sum(sizes)) if changes else np.nan, *found])


def _varies(out: Any) -> Any:
    """How much an output changes along its first axis, relative to its greatest element; NaN where it cannot."""
    shape = aval_of(out).shape
    if len(shape) < 1 or shape[0] < 2 or not math.prod(shape):
        return tnp.asarray(np.nan, np.float32)
    out = in_float(out)
    greatest = abs(out).max()
    return tnp.where(greatest > 0, out.std(0).max() / tnp.where(greatest > 0, greatest, 1), 0)


__all__ = ["Monitor"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
