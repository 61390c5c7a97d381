"""Pullbacks: the derivative of a function as a linear function of its own. Uses transforms, and bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .backward import backward
from .body import call, record_body
from .checks import check_like, only
from .passes import optimize
from .recording import current, is_recording
from .tape import Aval
from .tracer import Tracer, operand
from .transforms import define_by_run, gradient_of, run_differentiated

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `fun` and its pullback, the function from a cotangent to those of the arguments.

    Args:
      fun: takes and returns pytrees of arrays.
      *primals: its arguments, of float dtype.
      has_aux: whether `fun` returns `(value, aux)`.

    Returns:
      `(value, pullback)`, or `(value, pullback, aux)`. `pullback(ct)`, with `ct` of the structure, shapes and
      dtypes of the value, returns a tuple with a cotangent an argument. It may be called any number of times.

    Raises:
      TypeError: if an argument is not of float dtype; from the pullback, if `ct` does not match the value.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> value, pullback = tg.vjp(lambda x, y: x * y, 2.0, 3.0)
      >>> [float(ct) for ct in pullback(np.float32(1.0))]
      [3.0, 2.0]
    """

    def run(*primals: Any) -> Any:
        return pulled_back(fun, primals, {}, tuple(range(len(primals))), has_aux, "vjp")

    def check(ct: Any, tree: Any, avals: list[Aval]) -> list[Any]:
        return check_like(ct, [Tracer(a, None) for a in avals], tree, "cotangent", "function's value")

    out, pullback, aux = linear_part(fun, run, primals, check)
    return (out, pullback, aux) if has_aux else (out, pullback)


def pulled_back(
    fun: Callable[..., Any], args: Any, kwargs: dict[str, Any], argnums: int | Sequence[int], has_aux: bool, name: str
) -> Any:
    """Records `fun`: its value, its pullback to the arguments at `argnums`, the aux, and the value's structure."""
    tape = current()
    start = len(tape.nodes)
    out, aux, leaves, tree = run_differentiated(fun, args, kwargs, argnums, has_aux, name)
    out_leaves, out_tree = tree_flatten(out)
    outs = [operand(tape, v) for v in out_leaves]
    end = len(tape.nodes)

    def pullback(*values: Any) -> Any:
        ct = only(values)
        cts = check_like(ct, outs, out_tree, "cotangent", "function's value")
        grads = backward(tape, outs, [operand(current(), c) for c in cts], leaves, start, end)
        return tree_unflatten(tree, [gradient_of(v, g) for v, g in zip(leaves, grads, strict=True)])

    return out, pullback, aux, (out_tree, [v.aval for v in outs])


def linear_part(
    fun: Any, run: Callable[..., Any], primals: tuple[Any, ...], check: Callable[..., list[Any]]
) -> tuple[Any, Callable[[Any], Any], Any]:
    """`(value, linear function, aux)` of what `run` records; outside a recording the function is compiled.

    `run` returns the structure and types of the function's argument too, and `check` holds arguments against them.
    """
    if is_recording():
        out, linear, aux, _ = run(*primals)
        return out, linear, aux

    # Not recording: the linear part is recorded now, and is a program of its own afterwards.
    split: list[Any] = []

    def run_and_split(*primals: Any) -> Any:
        out, linear, aux, (tree, avals) = run(*primals)
        body, saved = record_body(linear, (tree_unflatten(tree, avals),), {}, "pullback")
        split.extend((body, tree, avals))
        return out, aux, saved

    out, aux, saved = define_by_run(fun, run_and_split, primals, {})
    body, tree, avals = split
    final = optimize(body)

    def compiled(*values: Any) -> Any:
        value = only(values)
        return tree_unflatten(final.out_tree, call(*check(value, tree, avals), *saved, body=final))

    return out, compiled, aux
