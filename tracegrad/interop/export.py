"""A function as a serialized program: StableHLO, through `jax.export`, that runs where tracegrad is not installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ..compile import jit
from ..errors import describe, here, name_of

if TYPE_CHECKING:
    from jax.export import Exported


def export(
    fun: Callable[..., Any],
    *,
    platforms: Sequence[str] | None = None,
    disabled_checks: Sequence[Any] = (),
    **options: Any,
) -> Callable[..., Exported]:
    """A function of the same arguments as `fun` that returns its compiled form, to be saved and run elsewhere.

    Args:
      fun: takes and returns pytrees of arrays; a `@jit` function, a `grad` of one, or any other.
      platforms: for what it is compiled, such as `("cpu", "cuda")`; by default for where it is now.
      disabled_checks: safety checks of `jax.export` to leave out.
      **options: passed to `tracegrad.jit`, such as `static_argnums`, `donate_argnums` or `in_shardings`.

    Returns:
      A function that takes arrays, numbers or `jax.ShapeDtypeStruct`s, whose shapes and dtypes the program is for, and
      returns JAX's `Exported`: `.serialize()` gives bytes, `.mlir_module()` the program as text, `.call(*args)` runs
      it. The bytes are read by `jax.export.deserialize`, which needs JAX alone. Arrays that `fun` closes over are part
      of the program, as they are now.

    Raises:
      TypeError: if an argument is no array and not static.
      NotImplementedError: for symbolic shapes.

    Example:
      >>> import jax, numpy as np, tracegrad as tg
      >>> program = tg.export(tg.grad(lambda x: (x ** 2).sum()))(jax.ShapeDtypeStruct((2,), np.float32))
      >>> program.call(np.array([1.0, 2.0], np.float32)).tolist()
      [2.0, 4.0]
    """
    if not callable(fun):
        raise TypeError(f"export: fun is {describe(fun)}, which is not a function {here()}")
    static = {name: options[name] for name in ("static_argnums", "static_argnames") if name in options}

    def exported(*args: Any, **kwargs: Any) -> Exported:
        from jax import export as jax_export  # only here: it costs time to import

        nums = options.get("static_argnums")
        names = options.get("static_argnames")
        fixed = {nums} if isinstance(nums, int) else set(nums or ())
        named = {names} if isinstance(names, str) else set(names or ())
        dynamic = (
            [None if i in fixed or i - len(args) in fixed else x for i, x in enumerate(args)],
            {k: v for k, v in kwargs.items() if k not in named},
        )
        for path, leaf in jax.tree_util.tree_flatten_with_path(dynamic)[0]:
            _check(leaf, path, fun)
        compiled = jit(fun, **options)

        def program(*args: Any, **kwargs: Any) -> Any:
            return compiled(*args, **kwargs)

        program.__name__ = program.__qualname__ = name_of(fun)
        outer = {k: v for k, v in options.items() if k not in static}
        return jax_export.export(
            jax.jit(program, **static, **outer), platforms=platforms, disabled_checks=disabled_checks
        )(*args, **kwargs)

    return exported


def _check(leaf: Any, path: Any, fun: Any) -> None:
    where = f"argument {jax.tree_util.keystr(path[1:])} of {name_of(fun)}"
    if any(not isinstance(n, (int, np.integer)) for n in getattr(leaf, "shape", ())):
        raise NotImplementedError(
            f"export: {where} has the symbolic shape {leaf.shape} {here()}. tracegrad records a program for sizes that "
            "are known: export one for each size, or pad the argument to the largest."
        )
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return
    try:
        jax.typeof(leaf)
    except TypeError:
        raise TypeError(
            f"export: {where} is {describe(leaf)}, which is not an array {here()}. Mark it static with static_argnums "
            "or static_argnames, or fix it with functools.partial."
        ) from None
