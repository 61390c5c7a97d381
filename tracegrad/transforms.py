"""Transforms: functions from functions to functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arguments import arguments_of
from .backward import backward, ones
from .body import argument_axes, call, leaf_axes, put, record_body, split_mapped, taken, vmap_op
from .compile import Jitted
from .errors import describe, here, need_function
from .execute import History, run_pending
from .ops import alias, astype, equal, iota, move_axis, reduce_sum, reshape, weak_op, zeros_of
from .ops import stop_gradient as stop_gradient_op
from .passes import optimize
from .recording import Recording, differentiating, is_recording, state
from .tape import Aval, Tape, Var, aval_of
from .tracer import Tracer, operand
from .varying import mapped_by_jax

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten

_histories: dict[Any, History] = {}


def history_of(fun: Any) -> History:
    """What a function has compiled: by its code, so that a lambda made anew at each call is still one function."""
    inner = inspect.unwrap(fun)
    key = getattr(inner, "__code__", None) or type(inner)
    return _histories.setdefault(key, History())


def name_of(fun: Any) -> str:
    return getattr(fun, "__name__", None) or type(fun).__name__


def explain(fun: Callable[..., Any]) -> str:
    """What the undecorated transforms of `fun` compiled, why each time, and which field differed.

    Example:
      >>> import tracegrad as tg
      >>> def f(x): return x * x
      >>> _ = tg.grad(f)(2.0), tg.grad(f)(3.0)
      >>> print(tg.explain(f))
      f: calls: 2, compiled: 1
        - 5 nodes: first recording
    """
    history = history_of(fun)
    lines = [f"{name_of(fun)}: calls: {history.calls}, compiled: {history.compiled}"]
    return "\n".join(lines + [f"  - {event}" for event in history.events])


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
        tape = state.tape
        assert tape is not None
        start = len(tape.nodes)
        out, aux, leaves, tree = run_differentiated(fun, args, kwargs, argnums, has_aux, transform, holomorphic)
        check_scalar(fun, out, transform, holomorphic)
        grads: list[Any] = [None] * len(leaves)
        if isinstance(out, Tracer) and out.tape is not None:
            grads = backward(tape, [out], [ones(out)], leaves, start)
        return result(out, aux, tree_unflatten(tree, [_gradient_of(v, g) for v, g in zip(leaves, grads, strict=True)]))

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return define_by_run(fun, run, args, kwargs)

    return wrapped


def _only(values: tuple[Any, ...]) -> Any:
    if len(values) != 1:
        raise TypeError(
            f"the pullback takes one cotangent, of the structure of the function's value; {len(values)} were given "
            f"{here()}. Write pullback(ct), with a tuple for a tuple."
        )
    return values[0]


def value_and_aux(fun: Any, out: Any, transform: str) -> tuple[Any, Any]:
    if not (isinstance(out, (tuple, list)) and len(out) == 2):
        raise TypeError(
            f"{transform}: with has_aux=True, {name_of(fun)} must return (value, aux), not {describe(out)} {here()}. "
            "Return a pair, or leave has_aux out."
        )
    return out[0], out[1]


def _gradient_of(v: Var, g: Any) -> Any:
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
    tape = state.tape
    assert tape is not None
    which = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in which:
        if not isinstance(i, int):
            raise TypeError(
                f"{transform}: argnums={argnums!r} of {name_of(fun)} {here()}. Give the positions of arguments, such "
                "as 0 or (0, 1)."
            )
        if not -len(args) <= i < len(args):
            raise TypeError(
                f"{transform}: argnums={argnums} of {name_of(fun)}, which was called with {len(args)} positional "
                f"argument{'s' if len(args) != 1 else ''} {here()}. Pass the differentiated argument by position."
            )
    which = tuple(i % len(args) for i in which)
    if len(set(which)) < len(which):
        raise ValueError(
            f"{transform}: argnums={argnums} of {name_of(fun)} names an argument twice {here()}. Name it once."
        )
    leaves, tree = tree_flatten(tuple(args[i] for i in which))
    variables: list[Var] = []
    for position, x in enumerate(leaves):
        try:
            aval = aval_of(x)
        except TypeError:
            aval = None
        if aval is None or not aval.differentiable:
            where = _argument_name(fun, args, which, position)
            raise TypeError(
                f"{transform} with respect to {where}: it is {describe(x)}, and only float or complex values "
                f"have a gradient {here()}. Convert it (`x.astype(float)`, `2.0` for `2`), or choose other arguments "
                "with argnums."
            )
        if holomorphic and aval.dtype.kind != "c":
            where = _argument_name(fun, args, which, position)
            raise TypeError(f"{transform} with holomorphic=True needs complex arguments, {where} is {aval} {here()}")
        variables.append(alias(x))
    picked = tree_unflatten(tree, variables)
    new = list(args)
    for i, arg in zip(which, picked, strict=True):
        new[i] = arg
    if isinstance(argnums, int):
        tree = jax.tree.structure(args[which[0]])
    return tuple(new), variables, tree


def _argument_name(fun: Any, args: tuple[Any, ...], which: tuple[int, ...], position: int) -> str:
    names = iter(arguments_of(fun, jax.tree.structure((args, {}))).names())
    grouped = [[next(names) for _ in jax.tree.leaves(arg)] for arg in args]
    return f"argument {[name for i in which for name in grouped[i]][position]} of {name_of(fun)}"


def check_scalar(fun: Any, out: Any, transform: str, holomorphic: bool) -> None:
    if out is None:
        raise TypeError(f"{transform}: {name_of(fun)} returned None {here()}. Did you forget `return`?")
    try:
        aval = aval_of(out)
    except TypeError:
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a scalar, it returned {describe(out)} {here()}. To "
            "return more than the value, return (value, aux) and pass has_aux=True."
        ) from None
    if aval.shape != ():
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a scalar, it returned {aval} {here()}. Reduce it with .sum() or "
            ".mean(), or use tracegrad.jacobian for the derivative of every element."
        )
    if aval.dtype.kind == "c" and not holomorphic:
        raise TypeError(
            f"{transform}: {name_of(fun)} returned a complex scalar, {aval} {here()}. Take its real part or "
            "abs(), or pass holomorphic=True if the function is holomorphic."
        )
    if not aval.differentiable:
        raise TypeError(
            f"{transform}: {name_of(fun)} must return a float, it returned {aval} {here()}. A comparison, "
            "argmax or integer result has no gradient."
        )


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
        return _pulled_back(fun, primals, {}, tuple(range(len(primals))), has_aux, "vjp")

    def check(ct: Any, tree: Any, avals: list[Aval]) -> list[Any]:
        return check_like(ct, [Tracer(a, None) for a in avals], tree, "cotangent", "function's value")

    out, pullback, aux = linear_part(fun, run, primals, check)
    return (out, pullback, aux) if has_aux else (out, pullback)


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


def _pulled_back(
    fun: Callable[..., Any], args: Any, kwargs: dict[str, Any], argnums: int | Sequence[int], has_aux: bool, name: str
) -> Any:
    """Records `fun`: its value, its pullback to the arguments at `argnums`, the aux, and the value's structure."""
    tape = state.tape
    assert tape is not None
    start = len(tape.nodes)
    out, aux, leaves, tree = run_differentiated(fun, args, kwargs, argnums, has_aux, name)
    out_leaves, out_tree = tree_flatten(out)
    outs = [operand(tape, v) for v in out_leaves]
    end = len(tape.nodes)

    def pullback(*values: Any) -> Any:
        ct = _only(values)
        cts = check_like(ct, outs, out_tree, "cotangent", "function's value")
        target = state.tape
        assert target is not None
        grads = backward(tape, outs, [operand(target, c) for c in cts], leaves, start, end)
        return tree_unflatten(tree, [_gradient_of(v, g) for v, g in zip(leaves, grads, strict=True)])

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
        value = _only(values)
        return tree_unflatten(final.out_tree, call(*check(value, tree, avals), *saved, body=final))

    return out, compiled, aux


def check_like(value: Any, like: Sequence[Var], tree: Any, what: str, whose: str) -> list[Any]:
    """The leaves of a tangent or cotangent, after a check that it has the structure, shapes and dtypes of `like`."""
    leaves, found = tree_flatten(value)
    if found != tree:
        raise TypeError(f"the {what} has structure {found}, the {whose} has {tree} {here()}")
    for c, v in zip(leaves, like, strict=True):
        try:
            aval = aval_of(c)
        except TypeError:
            raise TypeError(f"a leaf of the {what} is {describe(c)}, which is not an array {here()}") from None
        if aval.shape != v.aval.shape or (aval.dtype != v.aval.dtype and not aval.weak_type):
            raise TypeError(f"the {what} is {aval}, the {whose} is {v.aval} {here()}: give it the same shape and dtype")
    return leaves


def unit_arrays(aval: Aval) -> Any:
    """The arrays of this type with one element 1 and the others 0, stacked."""
    size = int(np.prod(aval.shape))
    rows, columns = (iota(dtype=np.dtype(np.int32), shape=(size, size), axis=i) for i in (0, 1))
    return reshape(astype(equal(rows, columns), dtype=aval.dtype), shape=(size, *aval.shape))


def _per_element(fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, name: str) -> Callable[..., Any]:
    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            out, pullback, aux, _ = _pulled_back(fun, args, kwargs, argnums, has_aux, name)
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


# -- vmap


def vmap(
    fun: Callable[..., Any] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: str | None = None,
    axis_size: int | None = None,
) -> Callable[..., Any]:
    """A function that applies `fun` to each element along an axis, as one batched program.

    Args:
      fun: takes and returns pytrees of arrays.
      in_axes: the mapped axis of each positional argument, or of each leaf; `None` for one that is shared.
      out_axes: where the mapped axis is put in the results.
      axis_name: a name by which `psum`, `pmean` and `axis_index` inside `fun` know the axis.
      axis_size: the size of the mapped axis; needed only where no argument is mapped.

    Raises:
      ValueError: if mapped axes differ in size, or no argument is mapped.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.vmap(lambda x, y: x @ y, in_axes=(0, None))(np.ones((3, 2)), np.ones(2)).tolist()
      [2.0, 2.0, 2.0]
    """
    if fun is None:
        return functools.partial(vmap, in_axes=in_axes, out_axes=out_axes, axis_name=axis_name, axis_size=axis_size)
    need_function(fun, "vmap")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, tree = tree_flatten((args, kwargs))
            axes = argument_axes(tree, in_axes, "vmap")
            size, moved, inner = split_mapped(leaves, axes, "vmap", arguments_of(fun, tree), axis_size, axis_name)
            in_args, in_kwargs = tree_unflatten(tree, inner)
            named = {axis_name: size} if axis_name is not None else None

            @functools.wraps(fun)
            def tapped(*args: Any, **kwargs: Any) -> Any:
                return fun(*args, **kwargs), taken()

            body, captured = record_body(tapped, in_args, in_kwargs, name_of(fun), axes=named, lifts=True)
            batched = tuple(axis is not None for axis in axes) + (False,) * len(captured)
            outs = vmap_op(*moved, *captured, body=optimize(body), batched=batched, size=size, axis_name=axis_name)
            out, taps = tree_unflatten(body.out_tree, outs)
            put(taps)
            outs, out_tree = tree_flatten(out)
            positions = leaf_axes(out_tree, out_axes, "vmap")
            named_apart = {v for v in body.outputs if axis_name in v.aval.varying}
            differ = named_apart if axis_name is not None else _reached(body, batched)
            for i, (o, a) in enumerate(zip(outs, positions, strict=True)):
                if a is None and body.outputs[i] in differ:
                    raise ValueError(
                        f"vmap: result {i} has out_axes=None, and differs along the mapped axis ({o.aval} in all) "
                        f"{here()}. Reduce it, or give it an axis."
                    )
                if a is not None and not -o.aval.ndim <= a < o.aval.ndim:
                    raise ValueError(
                        f"vmap: out_axes puts the mapped axis of result {i} at {a}, and with it the result is {o.aval} "
                        f"{here()}. Use one from {-o.aval.ndim} to {o.aval.ndim - 1}."
                    )
            outs = [o[0] if a is None else move_axis(o, 0, a) if a else o for o, a in zip(outs, positions, strict=True)]
            return tree_unflatten(out_tree, outs)

        return define_by_run(fun, run, args, kwargs)

    return wrapped


def _reached(body: Tape, flags: Sequence[bool]) -> set[Var]:
    """The values of a body that the inputs with these flags take part in."""
    found = {v for v, flag in zip(body.inputs, flags, strict=True) if flag}
    for node in body.nodes:
        if not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found


# -- what else there is to do with a function


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


# -- jit


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Sequence[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    **options: Any,
) -> Callable[..., Any]:
    """A compiled version of `fun`: recorded, improved and compiled once for each set of argument types.

    Args:
      fun: takes and returns pytrees of arrays; anything it does in Python happens once, when it is recorded.
      static_argnums, static_argnames: arguments that are Python values, part of the program; hashable.
      donate_argnums: arguments whose memory the result may take over.
      **options: passed to `jax.jit`, such as `in_shardings`, `out_shardings`, `keep_unused`.

    Returns:
      A function of the same arguments. `jit(f).lower(*args)` is JAX's `Lowered`, with `.as_text()`, `.compile()` and
      `.cost_analysis()`. Arrays that `fun` closes over are inputs, so that they may change: no recompilation,
      and never an old value.

    Raises:
      TypeError: if a static argument is not hashable, or `fun` needs the value of a traced array.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> @tg.jit
      ... def norm(x):
      ...     return np.sqrt((x * x).sum())
      >>> float(norm(np.array([3.0, 4.0])))
      5.0
    """
    if fun is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            **options,
        )
    need_function(fun, "jit")
    return Jitted(fun, static_argnums, static_argnames, donate_argnums, options).wrapper


def trace(fun: Callable[..., Any]) -> Callable[..., Tape]:
    """A function of the same arguments as `fun` that returns its tape, without running it.

    Printing a tape shows a line a step, with shapes, dtypes and the user's line; `∇` marks gradient steps. It shows
    what the results need, which is what will run: under `grad`, not the loss itself. `tape.text(whole=True)` and
    `tape.nodes` have every step that was recorded.

    Example:
      >>> import tracegrad as tg
      >>> tape = tg.trace(lambda x: x * 2.0 + 1.0)(3.0)
      >>> [line.partition("#")[0].strip() for line in str(tape).splitlines()]
      ['<lambda>(x:f32[]~)', 'a:f32[]~ = mul x 2.0', 'b:f32[]~ = add a 1.0', 'return b:f32[]~']
    """

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Tape:
        body, captured = record_body(fun, args, kwargs, name_of(fun))
        count = len(body.inputs) - len(captured)
        for v, value in zip(body.inputs[count:], captured, strict=True):
            v.value = value
        return body.replace(inputs=body.inputs[:count])

    return wrapped


def stop_gradient(x: Any) -> Any:
    """`x`, a pytree of arrays, as a constant: no gradient flows through it.

    Example:
      >>> import tracegrad as tg
      >>> float(tg.grad(lambda x: x * tg.stop_gradient(x))(3.0))
      3.0
    """
    return jax.tree.map(stop_gradient_op, x)


jacrev = jacobian

__all__ = [
    "elementwise_grad", "eval_shape", "explain", "grad", "hessian", "jacobian", "jacrev", "jit", "named_call",
    "stop_gradient", "trace", "value_and_grad", "vjp", "vmap",
]  # fmt: skip
