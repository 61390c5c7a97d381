"""What else there is to do with a function: its tape, its shapes, a name, no derivative. Uses bodies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from . import ops
from .body import call, record_body
from .errors import describe, here, name_of, need_function
from .inspection import keep_values
from .passes import optimize
from .recording import state
from .tape import Aval, Tape, Var

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The shapes and dtypes that `fun` would return, as `jax.ShapeDtypeStruct`s; nothing is computed.

    Args:
      fun: takes and returns pytrees of arrays.
      *args, **kwargs: arrays, or anything with a `shape` and a `dtype`.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> tg.eval_shape(np.matmul, jax.ShapeDtypeStruct((2, 3), "float32"), np.zeros((3, 4))).shape
      (2, 4)
    """
    body, _ = record_body(fun, args, kwargs, name_of(fun))
    return tree_unflatten(body.out_tree, [v.aval.struct() for v in body.outputs])


def named_call(fun: Callable[..., Any] | None = None, *, name: str | None = None) -> Callable[..., Any]:
    """`fun`, which is one node of this name on the tape, and a function of this name in the compiled program.

    Profiles and `print(tg.trace(f)(...))` then show what belongs together.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> layer = tg.named_call(np.tanh, name="layer")
      >>> [node.op.name for node in tg.trace(layer)(1.0).nodes]
      ['call']
    """
    if fun is None:
        return functools.partial(named_call, name=name)

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if state.tape is None or state.capture is not None:
            return fun(*args, **kwargs)
        body, captured = record_body(fun, args, kwargs, name or name_of(fun), lifts=True)
        outs = call(*jax.tree.leaves((args, kwargs)), *captured, body=optimize(body))
        return tree_unflatten(body.out_tree, outs)

    return wrapped


def trace(fun: Callable[..., Any] | None = None, *, values: bool = False) -> Callable[..., Any]:
    """A function of the same arguments as `fun` that returns its tape, without running it.

    Printing a tape shows a line a step, with shapes, dtypes and the user's line; `∇` marks gradient steps. It shows
    what the results need, which is what will run: under `grad`, not the loss itself. `tape.text(whole=True)` and
    `tape.nodes` have every step that was recorded. In a notebook a tape shows as a picture, which `tape.to_svg()` and
    `tape.to_html()` return; `tape.to_dot()` is for Graphviz, and `tape.diff(other)` says what differs in another.

    Args:
      fun: takes and returns pytrees of arrays.
      values: whether to run the tape too, step by step, and keep all values: the picture then shows their ranges, what
        they look like, and the gradients of the result with respect to them, if it is a real scalar or `fun` takes a
        gradient. The arguments must then be arrays and numbers. `tape.values()` and `tape.gradients()` return them, by
        the names that printing gives them, and `tape.text(values=True)` shows them. What is inside calls, loops,
        branches and maps is shown too: of all turns and elements together, of the last turn of a `while_loop` and of a
        loop whose turns make more than 256 MiB, and of a branch where it was taken. The picture says which.

    Raises:
      TypeError: with `values`, if an argument is a shape without values, or traced.

    Example:
      >>> import tracegrad as tg
      >>> tape = tg.trace(lambda x: x * 2.0 + 1.0)(3.0)
      >>> [line.partition("#")[0].strip() for line in str(tape).splitlines()]
      ['<lambda>(x:f32[]~)', 'a:f32[]~ = mul x 2.0', 'b:f32[]~ = add a 1.0', 'return b:f32[]~']
    """

    if fun is None:
        return functools.partial(trace, values=values)
    need_function(fun, "trace")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Tape:
        outer, state.cotangents = state.cotangents, {} if values else None
        try:
            body, captured = record_body(fun, args, kwargs, name_of(fun))
            cotangents = state.cotangents
        finally:
            state.cotangents = outer
        count = len(body.inputs) - len(captured)
        for v, value in zip(body.inputs[count:], captured, strict=True):
            v.value = value
        tape = body.replace(inputs=body.inputs[:count])
        if values:
            keep_values(tape, body, [*_arrays(args, kwargs, name_of(fun)), *captured], cotangents or {})
        return tape

    return wrapped


def _arrays(args: Any, kwargs: Any, name: str) -> list[Any]:
    """What a function was called with, leaf by leaf.

    Raises:
      TypeError: if one of them has no value.
    """
    leaves = tree_flatten((args, kwargs))[0]
    for leaf in leaves:
        if isinstance(leaf, (jax.ShapeDtypeStruct, Aval, Var, jax.core.Tracer)):
            raise TypeError(
                f"trace: an argument of {name} is {describe(leaf)} without a value {here()}, and values=True runs it. "
                "Give arrays, outside of other transforms, or leave values=True out."
            )
    return leaves


def stop_gradient(x: Any) -> Any:
    """`x`, a pytree of arrays, as a constant: no gradient flows through it.

    Example:
      >>> import tracegrad as tg
      >>> float(tg.grad(lambda x: x * tg.stop_gradient(x))(3.0))
      3.0
    """
    return jax.tree.map(ops.stop_gradient, x)


@contextmanager
def nan_safe(enabled: bool) -> Iterator[None]:
    """Says whether gradients recorded in the block are 0 where the incoming cotangent is 0, whatever the derivative.

    They are, unless this is turned off: that is what keeps the branch of a `where` that was not taken from
    making NaN. Without it a rule with a pole (of `sqrt`, `log`, `/`, `**`, ...) costs a comparison and a selection
    less, and gives NaN for 0 times infinity, as JAX does.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> f = lambda x: np.where(x > 0, np.sqrt(x), 0.0)
      >>> float(tg.grad(f)(0.0))
      0.0
      >>> with tg.nan_safe(False):
      ...     float(tg.grad(f)(0.0))
      nan
    """
    outer = state.no_nan
    state.no_nan = enabled
    try:
        yield
    finally:
        state.no_nan = outer
