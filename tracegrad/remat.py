"""Rematerialisation: compute again in the backward pass what would cost too much to keep. Uses bodies, and ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .backward import linearize
from .body import called_backward, put, record_body, taken, without_static
from .checkpoint_policies import Policy, nothing_saveable
from .errors import describe, here, name_of, need_function
from .inference import TYPED, output_types
from .op import Op, more_outputs
from .ops import optimization_barrier_op
from .passes import compiled, optimize
from .recording import state
from .tape import Node


def _checkpoint_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    policy, body = node.params["policy"], node.params["body"]
    lin = linearize(body, needs, [ct is not None for ct in cts], keep=policy or nothing_saveable)
    operands = lin.read(node.inputs, (), more_outputs(node, body=lin.forward)) + [cts[i] for i in lin.cts]
    if node.params["prevent_cse"]:
        # Else XLA would see that it has computed this before, and keep it after all.
        operands = list(optimization_barrier_op(*operands))
    return called_backward(node, lin, operands)


checkpoint_op: Op = Op(
    "checkpoint",
    lambda *xs, body, policy, prevent_cse: compiled(body)(*xs),
    _checkpoint_vjp,
    shape=output_types,
    multiple=True,
    axes=TYPED,
)


def checkpoint(
    fun: Callable[..., Any] | None = None,
    *,
    prevent_cse: bool = True,
    policy: Policy | None = None,
    static_argnums: int | Sequence[int] = (),
) -> Callable[..., Any]:
    """`fun`, whose intermediate values are computed again in the backward pass instead of being kept.

    It trades time for memory: of a chain of layers, each under `checkpoint`, only the inputs of the layers are kept
    (Chen et al., "Training deep nets with sublinear memory cost", 2016).

    Args:
      fun: takes and returns pytrees of arrays.
      prevent_cse: whether XLA is kept from merging the second computation with the first; needless inside `scan`.
      policy: which values are kept after all, one of `tracegrad.checkpoint_policies`; by default none.
      static_argnums: arguments that are Python values.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> layer = tg.checkpoint(lambda x: np.sin(np.sin(x)))
      >>> float(tg.grad(layer)(0.0))
      1.0
    """
    if fun is None:
        return functools.partial(checkpoint, prevent_cse=prevent_cse, policy=policy, static_argnums=static_argnums)
    need_function(fun, "checkpoint")
    if policy is not None and not callable(policy):
        raise TypeError(
            f"checkpoint: policy is {describe(policy)} {here()}. Give one of tracegrad.checkpoint_policies, or a "
            "function from a node of the tape to whether its values are kept."
        )
    fixed = {static_argnums} if isinstance(static_argnums, int) else set(static_argnums)

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if state.tape is None:
            return fun(*args, **kwargs)
        merged, dynamic = without_static(fun, args, {i % len(args) for i in fixed})

        @functools.wraps(merged)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            return merged(*args, **kwargs), taken()

        leaves = jax.tree.leaves((dynamic, kwargs))
        body, captured = record_body(tapped, dynamic, kwargs, name_of(fun), lifts=True)
        outs = checkpoint_op(*leaves, *captured, body=optimize(body), policy=policy, prevent_cse=prevent_cse)
        out, taps = jax.tree.unflatten(body.out_tree, outs)
        put(taps)
        return out

    return wrapped
