"""Derivatives made of derivatives: forward mode, Jacobians, Hessians. Uses transforms, and vmap.

Forward mode reverses the pullback: that is linear, and the pullback of it is the pushforward.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .backward import backward
from .batching import vmap
from .checks import check_like
from .errors import describe, here, name_of
from .ops import alias, astype, equal, iota, reduce_sum, reshape, vary, zeros_of
from .pullbacks import linear_part, pulled_back
from .recording import current, state
from .tape import Aval, aval_of
from .tracer import Tracer, operand
from .transforms import define_by_run, grad, run_differentiated

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


def _pushforward(
    fun: Callable[..., Any], args: Any, kwargs: dict[str, Any], argnums: int | Sequence[int], has_aux: bool, name: str
) -> Any:
    """Records `fun`: its value, the linear function from tangents of the arguments at `argnums` to those of the value,
    the aux, and these arguments with their structure."""
    tape = current()
    start = len(tape.nodes)
    out, aux, leaves, tree = run_differentiated(fun, args, kwargs, argnums, has_aux, name)
    out_leaves, out_tree = tree_flatten(out)
    outs = [operand(tape, v) for v in out_leaves]
    middle = len(tape.nodes)
    # The cotangents are variables of the pullback; their values are never used, since it is linear in them.
    cts = [vary(alias(zeros_of(v)), v.aval.varying) if v.aval.differentiable else None for v in outs]
    variables = [ct for ct in cts if ct is not None]
    first = len(tape.nodes)
    grads = backward(tape, outs, cts, leaves, start, middle)
    last = len(tape.nodes)

    def push(tangents: Any) -> Any:
        given = [operand(current(), t) for t in check_like(tangents, leaves, tree, "tangent", "argument")]
        pairs = [(g, t) for g, t in zip(grads, given, strict=True) if g is not None]
        pushed = backward(tape, [g for g, _ in pairs], [t for _, t in pairs], variables, first, last)
        found = iter(pushed)
        result: list[Any] = []
        for v, ct in zip(outs, cts, strict=True):
            t = next(found) if ct is not None else None
            if ct is None:
                t = np.zeros(v.aval.shape, jax.dtypes.float0)
            result.append(zeros_of(v) if t is None else t)
        return tree_unflatten(out_tree, result)

    return out, push, aux, (leaves, tree)


def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """The value of `fun` and its directional derivative.

    Args:
      fun: takes and returns pytrees of arrays.
      primals: a tuple with its arguments, of float dtype.
      tangents: a tuple with the direction, of the structure, shapes and dtypes of `primals`.
      has_aux: whether `fun` returns `(value, aux)`.

    Returns:
      `(value, tangent)`, or `(value, tangent, aux)`. It costs what the function and two backward passes would before
      what is not needed is dropped, and about what a forward pass does after that.

    Raises:
      TypeError: if tangents do not match primals, or a primal is not of float dtype, or `fun` contains a `while_loop`.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> value, tangent = tg.jvp(np.sin, (0.0,), (2.0,))
      >>> float(value), float(tangent)
      (0.0, 2.0)
    """
    _check_tuples("jvp", primals, tangents)

    def run(primals: Any, tangents: Any) -> Any:
        out, push, aux, _ = _pushforward(fun, primals, {}, tuple(range(len(primals))), has_aux, "jvp")
        tangent = push(tuple(tangents))
        return (out, tangent, aux) if has_aux else (out, tangent)

    return define_by_run(fun, run, (tuple(primals), tuple(tangents)), {})


def _check_tuples(name: str, primals: Any, tangents: Any) -> None:
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(
            f"{name}: primals and tangents are tuples, one element an argument {here()}. Write {name}(f, (x,), (t,)): "
            f"they are {describe(primals)} and {describe(tangents)}."
        )


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `fun`, and its derivative there as a linear function of tangents.

    Returns:
      `(value, push)`, or `(value, push, aux)`; `push(*tangents)` may be called any number of times.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> value, push = tg.linearize(lambda x: x ** 3, 2.0)
      >>> float(push(1.0)), float(push(0.5))
      (12.0, 6.0)
    """

    def run(*primals: Any) -> Any:
        every = tuple(range(len(primals)))
        out, push, aux, (leaves, tree) = _pushforward(fun, primals, {}, every, has_aux, "linearize")
        return out, push, aux, (tree, [v.aval for v in leaves])

    def check(tangents: Any, tree: Any, avals: list[Aval]) -> list[Any]:
        return check_like(tangents, [Tracer(a, None) for a in avals], tree, "tangent", "argument")

    out, push, aux = linear_part(fun, run, primals, check)

    def pushed(*tangents: Any) -> Any:
        return push(tangents)

    return (out, pushed, aux) if has_aux else (out, pushed)


def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The product of the Hessian of `fun` with a vector, without the Hessian.

    Args:
      fun: takes pytrees of arrays, returns a scalar.
      primals: its arguments.
      tangents: the vector, of the structure and shapes of the arguments.

    Returns:
      A tuple with a product an argument; for one argument, the product itself.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.hvp(lambda x: (x ** 3).sum(), (np.array([1.0, 2.0]),), (np.array([1.0, 0.0]),)).tolist()
      [6.0, 0.0]
    """
    _check_tuples("hvp", primals, tangents)
    primals, tangents = tuple(primals), tuple(tangents)
    structure: Any = tree_flatten(primals)[1]
    other: Any = tree_flatten(tangents)[1]
    if structure != other:
        raise TypeError(f"hvp: primals have structure {structure}, tangents have {other} {here()}")
    every = tuple(range(len(primals)))

    def run(primals: Any, tangents: Any) -> Any:
        return _pushforward(grad(fun, every), primals, {}, every, False, "hvp")[1](tangents)

    out = define_by_run(fun, run, (primals, tangents), {})
    return out[0] if len(primals) == 1 else out


def jacfwd(
    fun: Callable[..., Any] | None = None, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The Jacobian of `fun` by forward mode: all its columns in one batched pass. See `jacobian`.

    It does less than `jacobian` where the value has more elements than the argument.

    Raises:
      TypeError: if an argument is not of float dtype.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.jacfwd(lambda x: x * x)(np.array([1.0, 2.0])).tolist()
      [[2.0, 0.0], [0.0, 4.0]]
    """
    if fun is None:
        return functools.partial(jacfwd, argnums=argnums, has_aux=has_aux)

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            _, push, aux, (leaves, tree) = _pushforward(fun, args, kwargs, argnums, has_aux, "jacfwd")
            columns = []
            for k, leaf in enumerate(leaves):

                def one(tangent: Any, k: int = k) -> Any:
                    tangents = [zeros_of(v) for v in leaves]
                    tangents[k] = tangent
                    return push(tree_unflatten(tree, tangents))

                out = vmap(one, out_axes=-1)(unit_arrays(leaf.aval))
                columns.append(jax.tree.map(lambda g, s=leaf.aval.shape: reshape(g, shape=(*g.shape[:-1], *s)), out))
            flat = [jax.tree.leaves(c) for c in columns]
            out_tree = jax.tree.structure(columns[0])
            rows = [tree_unflatten(tree, list(parts)) for parts in zip(*flat, strict=True)]
            result = tree_unflatten(out_tree, rows)
            return (result, aux) if has_aux else result

        return define_by_run(fun, run, args, kwargs)

    return wrapped


def unit_arrays(aval: Aval) -> Any:
    """The arrays of this type with one element 1 and the others 0, stacked."""
    size = int(np.prod(aval.shape))
    rows, columns = (iota(dtype=np.dtype(np.int32), shape=(size, size), axis=i) for i in (0, 1))
    return reshape(astype(equal(rows, columns), dtype=aval.dtype), shape=(size, *aval.shape))


def _per_element(fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, name: str) -> Callable[..., Any]:
    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            out, pullback, aux, _ = pulled_back(fun, args, kwargs, argnums, has_aux, name)
            leaves, tree = tree_flatten(out)
            rows = []
            for k, leaf in enumerate(leaves):
                aval = aval_of(leaf)
                if not aval.differentiable:
                    raise TypeError(f"{name}: {name_of(fun)} must return floats, it returned {aval} {here()}")

                def one(ct: Any, k: int = k) -> Any:
                    cts = [zeros_of(operand(state.tape, v)) for v in leaves]  # type: ignore[arg-type]
                    cts[k] = ct
                    return pullback(tree_unflatten(tree, cts))

                grads = vmap(one)(unit_arrays(aval))
                rows.append(jax.tree.map(lambda g, aval=aval: reshape(g, shape=(*aval.shape, *g.shape[1:])), grads))
            result = tree_unflatten(tree, rows)
            return (result, aux) if has_aux else result

        return define_by_run(fun, run, args, kwargs)

    return wrapped


def jacobian(
    fun: Callable[..., Any] | None = None, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that returns the Jacobian of `fun`, all its rows in one batched backward pass.

    Returns:
      A function of the same arguments. For a value of shape `s` and an argument of shape `t` it returns an
      array of shape `s + t`; for pytrees, the structure of the value with that of the argument inside.

    Raises:
      TypeError: if an argument or the value is not of float dtype.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.jacobian(lambda x: x * x)(np.array([1.0, 2.0])).tolist()
      [[2.0, 0.0], [0.0, 4.0]]
    """
    if fun is None:
        return functools.partial(jacobian, argnums=argnums, has_aux=has_aux)
    return _per_element(fun, argnums, has_aux, "jacobian")


def hessian(fun: Callable[..., Any] | None = None, argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """A function that returns the Hessian of the scalar function `fun`: the Jacobian of its gradient.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.hessian(lambda x: (x ** 3).sum())(np.array([1.0, 2.0])).tolist()
      [[6.0, 0.0], [0.0, 12.0]]
    """
    if fun is None:
        return functools.partial(hessian, argnums=argnums)
    return jacobian(grad(fun, argnums), argnums)


jacrev = jacobian


def elementwise_grad(fun: Callable[..., Any] | None = None, argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The derivative of a function that works element by element: the gradient of the sum of its results.

    Returns:
      A function of the same arguments; the derivative has the shape of its argument.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.elementwise_grad(np.tanh)(np.zeros(3)).tolist()
      [1.0, 1.0, 1.0]
    """
    if fun is None:
        return functools.partial(elementwise_grad, argnums=argnums)

    @functools.wraps(fun)
    def total(*args: Any, **kwargs: Any) -> Any:
        leaves = jax.tree.leaves(fun(*args, **kwargs))
        return functools.reduce(lambda a, b: a + b, [reduce_sum(x, axes=tuple(range(aval_of(x).ndim))) for x in leaves])

    return grad(total, argnums)


__all__ = ["elementwise_grad", "hessian", "hvp", "jacfwd", "jacobian", "jacrev", "jvp", "linearize"]
