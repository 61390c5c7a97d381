"""What the layers of a model make of a batch: how it is spread, and kernels that give each layer unit variance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey

from .. import numpy as tnp
from ..capture import capture
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..recording import state as recording
from ..tape import aval_of
from .layers import Run, init_state, is_layer, need_layer, walk
from .summaries import table
from .watching import Outputs

Floats = np.ndarray[Any, Any]
Watch = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


class LayerStatistics(NamedTuple):
    """How the output of one call of a layer is spread.

    Attributes:
      path: where in the model the layer is, and where in its output this array is, if that is a pytree.
      kind: its class.
      mean, std: of all elements; NaN if one is NaN or infinite, or there is none.
      counts: how many of the finite elements are in each bin.
      edges: of the bins, one more than there are bins.
    """

    path: str
    kind: str
    mean: float
    std: float
    counts: Floats
    edges: Floats


class Statistics(tuple[LayerStatistics, ...]):
    """The rows of `layer_statistics`, in the order in which the outputs were made, which print as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        cells = [
            (
                r.path,
                r.kind,
                f"{r.mean:.3f}",
                f"{r.std:.3f}",
                f"{r.edges[0]:.3g}",
                bars(r.counts),
                f"{r.edges[-1]:.3g}",
            )
            for r in self
        ]
        return table(("layer", "kind", "mean", "std", "from", "histogram", "to"), cells, "llrrrlr")


class Scaling(NamedTuple):
    """What `lsuv` did to a layer.

    Attributes:
      path: where in the model the layer is.
      kind: its class.
      iterations: how often its kernel was divided by the standard deviation of its output.
      std_before: of its output in the model as it was given.
      std_after: the same, in the model that is returned.
    """

    path: str
    kind: str
    iterations: int
    std_before: float
    std_after: float


class Scalings(tuple[Scaling, ...]):
    """The rows of `lsuv`, in the order in which the layers are called, which print as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        cells = [(r.path, r.kind, str(r.iterations), f"{r.std_before:.3f}", f"{r.std_after:.3f}") for r in self]
        return table(("layer", "kind", "iterations", "std before", "std after"), cells, "llrrr")


def layer_statistics(
    model: Any,
    *args: Any,
    state: Any = None,
    key: Any = None,
    training: bool = False,
    bins: int = 20,
    range: tuple[float, float] | None = None,
) -> Statistics:
    """Mean, standard deviation and histogram of what each layer of a model makes of a batch, call by call.

    Numbers that shrink, grow or saturate from layer to layer show a wrong scale of the initial parameters: Glorot and
    Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010). The layers inside a
    `Stack`, which are one loop, have no rows of their own.

    Args:
      model: a layer.
      *args: what it is called with, the run apart: a batch, as a rule.
      state, key, training: of the run; the state is by default `init_state(model)`.
      bins: how many the histograms have.
      range: of the histograms, which leave out what is beyond it; by default from the least element to the greatest.

    Returns:
      A tuple of rows, which prints as a table. An output that is a pytree has a row for each array of floats.

    Raises:
      TypeError: if the model is not a layer, or values are not known, as under `@jit`.
      ValueError: if there is no bin, or the range is none.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> model = nn.Sequential([nn.Linear(np.full((2, 1), 0.5, np.float32)), nn.relu])
      >>> rows = nn.layer_statistics(model, np.array([[1, 1], [-1, -1]], np.float32), bins=4)
      >>> print(rows)
      layer            kind         mean    std  from  histogram  to
      --------------------------------------------------------------
      model.layers[0]  Linear      0.000  1.000    -1  █  █        1
      model.layers[1]  Function    0.500  0.500     0  █  █        1
      model            Sequential  0.500  0.500     0  █  █        1
      >>> rows[0].counts
      array([1, 0, 0, 1])
    """
    need_layer(model)
    _need_values(model, args, state, key)
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"{called()}: bins={bins!r} {here()}. Give the number of bins, 1 or more.")
    if range is not None and not (len(range) == 2 and -np.inf < range[0] < range[1] < np.inf):
        raise ValueError(f"{called()}: range={range!r} {here()}. Give two numbers, the lower first, or None.")
    rows = []
    for path, kind, values in _outputs(model, args, state, key, training):
        counts, edges = np.histogram(values[np.isfinite(values)], bins, range)
        rows.append(LayerStatistics(path, kind, *_mean_and_std(values), counts, edges))
    return Statistics(rows)


def lsuv(
    model: Any,
    *args: Any,
    state: Any = None,
    key: Any = None,
    training: bool = False,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    skip: Sequence[str] = (),
) -> tuple[Any, Scalings]:
    """A model whose every kernel gives an output of variance 1 for a batch: layer-sequential unit variance.

    Each kernel is first made orthonormal, by the QR decomposition of itself: of a kernel of shape `(..., out)` the last
    axis counts the columns. Then, layer by layer in the order of the calls, it is divided by the standard deviation of
    the layer's output, until the variance is 1 up to the tolerance. All other parameters stay as they are. Mishkin and
    Matas, "All you need is a good init" (2016).

    Args:
      model: a layer. What is scaled is each layer in it that has a `kernel`, such as `Linear` and `Conv`.
      *args: what it is called with, the run apart: a batch, as a rule.
      state, key, training: of the run; the state is by default `init_state(model)`.
      tolerance: how far the variance may be from 1.
      max_iterations: how often a kernel is divided at most. Without a bias once is enough.
      skip: the paths of layers that are left as they are, such as `("model.head",)`.

    Returns:
      The new model, and a tuple of rows that prints as a table: each layer's standard deviation before and after.

    Raises:
      TypeError: if the model is not a layer, values are not known, as under `@jit`, or a layer with a kernel makes
        something other than an array.
      ValueError: if such a layer is not called where values are known, as those inside a `Stack`; if a kernel or an
        output is not finite, or the output is constant; if a path in `skip` is not that of such a layer.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> model = nn.MLP.init(random.key(0), (8, 32, 4), activation=nn.tanh)
      >>> batch = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
      >>> model, report = nn.lsuv(model, batch)
      >>> [(row.path, round(row.std_after, 2)) for row in report]
      [('model.layers[0]', 1.0), ('model.layers[1]', 1.0)]
    """
    need_layer(model)
    _need_values(model, args, state, key)
    if not tolerance > 0 or not max_iterations >= 1:
        raise ValueError(
            f"{called()}: tolerance={tolerance!r}, max_iterations={max_iterations!r} {here()}. Give a tolerance above "
            "0, and 1 iteration or more."
        )
    parts = {id(part): (".".join(("model", *names)), part) for names, part in walk(model) if hasattr(part, "kernel")}
    paths = [path for path, _ in parts.values()]
    if unknown := [path for path in skip if path not in paths]:
        raise ValueError(
            f"{called()}: skip has {unknown[0]!r}, which is no layer with a kernel {here()}. There are: "
            f"{', '.join(paths) or 'none'}."
        )
    scaled: dict[str, tuple[Any, int]] = {}

    def watch(call: Any, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path, part = parts.get(id(layer), ("", None))
        if part is not layer or path in skip:
            return call(layer, *args, **kwargs)
        if path not in scaled:
            name = f"{type(layer).__name__} at {path}"
            kernel, std, count = _orthonormal(name, layer.kernel), 1.0, 0
            while True:
                new = _with_kernel(layer, kernel / std)
                variance = _variance(name, call(new, *args, **kwargs), path)
                if abs(variance - 1) < tolerance or count == max_iterations:
                    break
                std, count = std * variance**0.5, count + 1
            scaled[path] = new, count
        return call(scaled[path][0], *args, **kwargs)

    before = _outputs(model, args, state, key, training)
    _call(watch, model, args, state, key, training)
    if missed := tuple([path for path in paths if path not in scaled and path not in skip]):
        raise ValueError(
            f"{called()}: {', '.join(missed)} {'was' if len(missed) == 1 else 'were'} not called for this batch, or "
            f"where values are not known: in a Stack, another loop, or WeightStandardize {here()}. Leave out by "
            f"skip={(*skip, *missed)!r}, or make a Sequential of the layers in place of a loop."
        )
    new = _replaced(model, {id(part): scaled[path][0] for path, part in parts.values() if path in scaled})
    after = _outputs(new, args, state, key, training)
    # Of a layer that is called more than once, what its first call makes.
    first, last = ({path: _mean_and_std(x)[1] for path, _, x in reversed(found)} for found in (before, after))
    return new, Scalings(
        Scaling(path, type(part).__name__, count, first[path], last[path]) for path, (part, count) in scaled.items()
    )


# -- a model that is called, and watched


def _need_values(*trees: Any) -> None:
    """Raises if something is traced: what is asked here is answered in numbers."""
    for x in jax.tree.leaves(trees):
        if not is_known(x):
            raise TypeError(
                f"{called()}: {describe(x)} has no value yet {here()}. Call it outside @jit and what takes gradients."
            )


def _call(watch: Watch, model: Any, args: tuple[Any, ...], state: Any, key: Any, training: bool) -> Any:
    """What the model makes of the arguments, while `watch` is asked to call each of its layers."""
    run = Run(model, init_state(model) if state is None else state, key=key, training=training)
    before, recording.watch = recording.watch, watch
    try:
        return model(*args, run=run)
    finally:
        recording.watch = before


def _outputs(model: Any, args: tuple[Any, ...], state: Any, key: Any, training: bool) -> list[tuple[str, str, Floats]]:
    """The path, the kind and the values of each array of floats that a layer of the model has made."""
    outputs = Outputs([("model", model)])
    # Tapped, since values inside a scan or a checkpoint are known only when it has run.
    _, found = capture(lambda: _call(outputs, model, args, state, key, training))()
    rows = []
    for name, made in outputs.made.items():
        values = np.asarray(found.values[name])
        rows.append((made.path, made.kind, values if values.dtype == np.float64 else values.astype(np.float32)))
    return rows


def _mean_and_std(values: Floats) -> tuple[float, float]:
    if not values.size or not np.isfinite(values).all():
        return np.nan, np.nan
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def bars(counts: Floats) -> str:
    """A column for each bin, as high as its count in eighths of the greatest; one that is not empty is seen."""
    eighths = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    return "".join([" ▁▂▃▄▅▆▇█"[n] for n in eighths])


# -- kernels


def _orthonormal(name: str, kernel: Any) -> Floats:
    """The orthonormal factor of a kernel, with the signs that make it uniform where the kernel is normal.

    Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
    """
    aval = aval_of(kernel)
    if aval.ndim < 2 or not jnp.issubdtype(aval.dtype, jnp.floating):
        raise TypeError(
            f"{called()}: the kernel of {name} is {describe(kernel)} {here()}. Only one of floats and of two axes or "
            "more can be orthonormal: leave the layer out by skip."
        )
    matrix = np.asarray(kernel).astype(np.float64).reshape(-1, aval.shape[-1])
    if not np.isfinite(matrix).all():
        raise ValueError(f"{called()}: the kernel of {name} is not finite {here()}. Draw it anew.")
    wide = matrix.shape[0] < matrix.shape[1]
    q, r = np.linalg.qr(matrix.T if wide else matrix)
    q = q * np.where(np.diagonal(r) < 0, -1, 1)
    return (q.T if wide else q).reshape(aval.shape)


def _variance(name: str, out: Any, path: str) -> float:
    """The variance of what a layer has made."""
    try:
        floats = jnp.issubdtype(aval_of(out).dtype, jnp.floating)
    except TypeError:
        floats = False
    if not floats or not is_known(out):
        what = (
            f"{describe(out)}, not an array of floats" if not floats else "no value yet, inside a loop or a transform"
        )
        raise TypeError(f"{called()}: {name} makes {what} {here()}. Leave it out by skip=({path!r},).")
    values = np.asarray(out).astype(np.float64)
    variance = float(values.var()) if values.size and np.isfinite(values).all() else np.nan
    if not 0 < variance < np.inf:
        why = "is empty" if not values.size else "is the same everywhere" if variance == 0 else "is not finite"
        raise ValueError(
            f"{called()}: the output of {name} {why} {here()}, so no scale gives it variance 1. Give a batch of "
            f"several, different examples, or leave the layer out by skip=({path!r},)."
        )
    return variance


def _with_kernel(layer: Any, kernel: Floats) -> Any:
    def put(path: Any, x: Any) -> Any:
        return tnp.asarray(kernel, aval_of(x).dtype) if path == (GetAttrKey("kernel"),) else x

    # Not by the constructor, which may take something else.
    return jax.tree_util.tree_map_with_path(put, layer)


def _replaced(layer: Any, new: dict[int, Any]) -> Any:
    """A layer with others for some of those in it, by what they are now."""
    found = new.get(id(layer), layer)
    inside = jax.tree.map(
        lambda x: _replaced(x, new) if is_layer(x) else x, layer, is_leaf=lambda x: x is not layer and is_layer(x)
    )
    return inside if found is layer else _with_kernel(inside, np.asarray(found.kernel))


__all__ = ["LayerStatistics", "Scaling", "Scalings", "Statistics", "layer_statistics", "lsuv"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
