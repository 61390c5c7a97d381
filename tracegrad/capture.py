"""Taps: named intermediate values of a function, and their gradients. Uses bodies, and transforms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from .body import Taps
from .errors import describe, here, need_function
from .op import Op
from .recording import Recording, state
from .transforms import define_by_run


class Captured(NamedTuple):
    """What `capture` found: by name, the values, and the gradients with respect to them.

    A name that was tapped more than once has a list, in the order of the taps.
    """

    values: dict[str, Any]
    gradients: dict[str, Any]


def _tap_gradient(ct: Any, out: Any, x: Any, *, name: str) -> Any:
    if state.capture is not None:
        state.capture.add("gradient", name, ct)
    return ct


tap_op: Op = Op("tap", lambda x, *, name: x, (_tap_gradient,), shape=lambda x, *, name: x)


def tap(name: str, x: Any) -> Any:
    """`x`, known to `capture` by this name. It costs nothing.

    It is also what `checkpoint_policies.save_only_these_names` knows values by.

    Args:
      name: a string; a name may be used more than once.
      x: a pytree of arrays, which is returned as it is. Each of its leaves is a tap, of the name and its path.

    Raises:
      TypeError: if `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"tap: name is {describe(name)}, not a string {here()}. Write tap('name', x).")

    def one(path: Any, leaf: Any) -> Any:
        full = name + jax.tree_util.keystr(path)
        value = tap_op(leaf, name=full)
        if state.capture is not None:
            state.capture.add("value", full, value)
        return value

    return jax.tree_util.tree_map_with_path(one, x)


def capture(fun: Callable[..., Any]) -> Callable[..., tuple[Any, Captured]]:
    """A function that returns what `fun` does, and what `tap` named inside.

    Where `fun` takes a gradient, the gradients with respect to the tapped values are captured too. Taps inside `scan`,
    `map`, `vmap` and `pmap` give those of all steps, stacked; those inside `cond` and `while_loop` raise an error.

    Returns:
      A function of the same arguments that returns `(value, Captured(values, gradients))`.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> def f(x):
      ...     hidden = tg.tap("hidden", x * x)
      ...     return 3.0 * hidden
      >>> value, found = tg.capture(tg.grad(f))(2.0)
      >>> float(value), float(found.values["hidden"]), float(found.gradients["hidden"])
      (12.0, 4.0, 3.0)
    """
    need_function(fun, "capture")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            outer, state.capture = state.capture, Taps()
            try:
                out = fun(*args, **kwargs)
                found = state.capture
            finally:
                state.capture = outer
            lost = [name for kind, name, _, tape in found.entries if kind == "value" and tape is not state.tape]
            if lost:
                raise NotImplementedError(
                    f"capture: {lost} were tapped inside a cond, a while_loop or a custom_vjp {here()}, which returns "
                    "the same values whatever happens in it. Return the value from there, and tap it outside."
                )
            if outer is not None:
                outer.entries += found.entries
            return out, Captured(_by_name("value", found.entries), _by_name("gradient", found.entries[::-1]))

        return define_by_run(fun, run, args, kwargs)

    return wrapped


def _by_name(kind: str, entries: list[tuple[str, str, Any, Recording | None]]) -> dict[str, Any]:
    result: dict[str, list[Any]] = {}
    for which, name, value, tape in entries:
        if which == kind and tape is state.tape:
            result.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in result.items()}


__all__ = ["Captured", "capture", "tap"]
