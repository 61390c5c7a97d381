"""Transforms: functions from functions to functions. Uses backward, execute, and checks of arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .checks import check_differentiable, check_scalar, positions, value_and_aux
from .errors import name_of, need_function
from .execute import run_pending
from .explain import history_of
from .ops import alias, weak_op, zeros_of
from .recording import Recording, current, differentiating, is_recording, state
from .remembered import gradient
from .tape import Var
from .tracer import Tracer, operand
from .varying import mapped_by_jax

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray))


def define_by_run(fun: Any, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """`run(*args, **kwargs)` on a tape: the one that is recording, or else a new one that runs at the end."""
    if is_recording():
        return run(*args, **kwargs)
    history = history_of(fun)
    history.calls += 1
    how = functools.partial(run_pending, history=history)
    with Recording(name_of(fun), run=how, lazy=True, parent=state.tape, axes=mapped_by_jax()) as tape:
        leaves, tree = tree_flatten((args, kwargs))
        args, kwargs = tree_unflatten(tree, [operand(tape, x) if _is_array(x) else x for x in leaves])
        out, out_tree = tree_flatten(run(*args, **kwargs))
        run_pending(tape, history, [v for v in out if type(v) is Tracer])
        if (examine := tape.examine or state.examine) is not None:
            examine.recorded(fun, args, kwargs, tape, out)
        return tree_unflatten(out_tree, [_result(v) if isinstance(v, Tracer) else v for v in out])


def _result(v: Tracer) -> Any:
    return (
        v.value if isinstance(v.value, jax.Array) else jnp.asarray(v.value, None if v.aval.weak_type else v.aval.dtype)
    )


# -- derivatives


def value_and_grad(
    fun: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """A function that returns the value of `fun` and its gradient.

    Args:
      fun: takes pytrees of arrays, returns a real scalar (or a pair of it and anything, with `has_aux`).
      argnums: which positional arguments to differentiate; a tuple gives a tuple of gradients.
      has_aux: whether `fun` returns `(value, aux)`.
      holomorphic: whether `fun` is complex to complex and holomorphic.

    Returns:
      A function of the same arguments that returns `(value, gradient)`, or `((value, aux), gradient)`. A
      gradient has the structure, shapes and dtypes of its argument.

    Raises:
      TypeError: if `fun` does not return a scalar, or a differentiated argument is not of float dtype.

    Example:
      >>> import tracegrad as tg
      >>> value, gradient = tg.value_and_grad(lambda x: x ** 3)(2.0)
      >>> float(value), float(gradient)
      (8.0, 12.0)
    """
    if fun is None:
        return functools.partial(value_and_grad, argnums=argnums, has_aux=has_aux, holomorphic=holomorphic)
    return _gradient(fun, argnums, has_aux, holomorphic, "value_and_grad", lambda value, aux, grads: (
        ((value, aux), grads) if has_aux else (value, grads)
    ))  # fmt: skip


def grad(
    fun: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
) -> Callable[..., Any]:
    """A function that returns the gradient of `fun`.

    For complex arguments it is df/dx - i df/dy, as `jax.grad` has it. The arguments are those of
    `value_and_grad`; with `has_aux` the result is `(gradient, aux)`.

    Raises:
      TypeError: if `fun` does not return a scalar, or a differentiated argument is not of float dtype.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> @tg.grad
      ... def slope(x):
      ...     return np.sin(x)
      >>> float(slope(0.0))
      1.0
    """
    if fun is None:
        return functools.partial(grad, argnums=argnums, has_aux=has_aux, holomorphic=holomorphic)
    return _gradient(
        fun, argnums, has_aux, holomorphic, "grad", lambda value, aux, grads: (grads, aux) if has_aux else grads
    )


def _gradient(
    fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, holomorphic: bool, transform: str, result: Any
) -> Callable[..., Any]:
    need_function(fun, transform)

    def run(*args: Any, **kwargs: Any) -> Any:
        tape = current()
        start = len(tape.nodes)
        out, aux, leaves, tree = run_differentiated(fun, args, kwargs, argnums, has_aux, transform, holomorphic)
        check_scalar(fun, out, transform, holomorphic)
        grads: list[Any] = [None] * len(leaves)
        if isinstance(out, Tracer) and out.tape is not None:
            grads = gradient(tape, out, leaves, start)
        return result(out, aux, tree_unflatten(tree, [gradient_of(v, g) for v, g in zip(leaves, grads, strict=True)]))

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return define_by_run(fun, run, args, kwargs)

    return wrapped


def gradient_of(v: Var, g: Any) -> Any:
    """What backward found for `v`: zeros where nothing, and of a Python number's weak type for a Python number."""
    if g is None:
        return zeros_of(v)
    return weak_op(g, dtype=v.aval.dtype) if v.aval.weak_type and not g.aval.weak_type else g


def differentiate(
    fun: Any, args: tuple[Any, ...], argnums: int | Sequence[int], transform: str, holomorphic: bool = False
) -> tuple[tuple[Any, ...], list[Var], Any]:
    """The arguments with those at `argnums` behind alias nodes, the aliases, and their structure.

    An alias tells the differentiated use of a value from every other use of it.
    """
    which = positions(fun, args, argnums, transform)
    leaves, tree = tree_flatten(tuple(args[i] for i in which))
    check_differentiable(leaves, fun, args, which, transform, holomorphic)
    variables = list(map(alias, leaves))
    new = dict(enumerate(args)) | dict(zip(which, tree_unflatten(tree, variables), strict=True))
    if isinstance(argnums, int):
        tree = jax.tree.structure(args[which[0]])
    return tuple(new.values()), variables, tree


def run_differentiated(
    fun: Callable[..., Any], args: Any, kwargs: dict[str, Any], argnums: int | Sequence[int], has_aux: bool,
    name: str, holomorphic: bool = False,
) -> tuple[Any, Any, list[Var], Any]:  # fmt: skip
    """Runs `fun` on a recording: what it returns, the aux, the differentiated leaves, and their structure."""
    args, leaves, tree = differentiate(fun, args, argnums, name, holomorphic)
    with differentiating(leaves):
        out = fun(*args, **kwargs)
    out, aux = value_and_aux(fun, out, name) if has_aux else (out, None)
    return out, aux, leaves, tree
