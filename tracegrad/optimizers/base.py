"""The protocol, and what every optimizer is made of: the door that all calls go through, `each`, and `chain`."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from .. import numpy as tnp
from ..compile import jit
from ..errors import called, describe, here
from ..pickling import pickled_as_call
from ..recording import state as recording_state
from ..tape import aval_of
from ..tools import eval_shape
from ..tracer import operand
from ..transforms import define_by_run

Params = Any
State = Any
Rate = Any
"""A number, a scalar array, or a schedule: a function from the number of steps taken to one of these."""

Mask = Any
"""A pytree of booleans like the parameters or the start of one, or a function from the parameters to it."""

Update = Callable[..., tuple[Any, State]]

_STEPS = int(np.iinfo(np.int32).max)


class GradientTransformation(NamedTuple):
    """A pair of functions.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params=None, **extra) -> (updates, state)`. `extra` is what some transformations
        need besides, such as `value=`; the others pass it on or leave it alone.
    """

    init: Callable[[Params], State]
    update: Callable[..., tuple[Any, State]]


class EmptyState(NamedTuple):
    """The state of a transformation that needs none."""


class LookaheadParams(NamedTuple):
    """Two copies of the parameters: those that take every step, and those that follow. See `lookahead`."""

    fast: Any
    slow: Any

    @classmethod
    def init_synced(cls, params: Params) -> LookaheadParams:
        """Both copies the same."""
        return cls(params, params)


# -- the door


def compiled_when_eager(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun` of traced arrays: as one compiled call when nothing is recording, and else on the tape that is.

    Functions among the keyword arguments are called while it runs, so that then it runs as undecorated code does.
    """
    jitted: list[Any] = []

    def traced(*args: Any, **kwargs: Any) -> Any:
        tape = recording_state.tape
        assert tape is not None
        args, kwargs = jax.tree.map(lambda x: operand(tape, x) if isinstance(x, _ARRAYS) else x, (args, kwargs))
        return fun(*args, **kwargs)

    @functools.wraps(fun)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if recording_state.tape is not None:
            return traced(*args, **kwargs)
        if any(map(callable, kwargs.values())):
            return define_by_run(fun, traced, args, kwargs)
        if not jitted:
            jitted.append(jit(fun))
        return jitted[0](*args, **kwargs)

    return wrapper


_ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)


def transformation(init: Callable[[Params], State], update: Update, checked: bool = True) -> GradientTransformation:
    """The public pair of an `init(params)` and an `update(grads, state, params, **extra)` of traced arrays.

    Here, once for all, the arguments of `update` are held against each other and against the state that `init` gives,
    and the new state takes the dtypes of the old one. `checked` says whether `init` can run without values.
    """
    expected: dict[Any, Any] = {}

    def door(grads: Any, state: State, params: Params = None, **extra: Any) -> tuple[Any, State]:
        like, name = (grads, "grads") if params is None else (params, "params")
        if params is not None:
            agree("grads", grads, "params", params.fast if isinstance(params, LookaheadParams) else params, _GRADS)
        if checked:
            key = jax.tree.structure(like), tuple([aval_of(x).shape for x in jax.tree.leaves(like)])
            if key not in expected:
                if len(expected) > 16:
                    expected.clear()
                expected[key] = eval_shape(init, like)
            agree("state", state, f"init({name})", expected[key], _STATE)
        updates, new = update(grads, state, params, **extra)
        if same_structure(new, state):
            new = typed_like(new, state)
        return updates, new

    made = GradientTransformation(compiled_when_eager(init), compiled_when_eager(door))
    made.init.raw, made.update.raw = init, update  # type: ignore[attr-defined]
    return made


def stateless(fun: Callable[..., Any]) -> GradientTransformation:
    """The transformation that returns `fun(grads, params, **extra)`."""
    return transformation(lambda params: EmptyState(), lambda g, s, p, **extra: (fun(g, p, **extra), s))


def init_of(part: GradientTransformation) -> Callable[[Params], State]:
    """`part.init`, for use inside another transformation."""
    return getattr(part.init, "raw", part.init)


def update_of(part: GradientTransformation) -> Update:
    """`part.update`, for use inside another transformation: without the door, and taking any extra arguments."""
    raw = getattr(part.update, "raw", None)
    if raw is not None:
        return raw  # type: ignore[no-any-return]
    kinds = [p.kind for p in inspect.signature(part.update).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return part.update
    return lambda grads, state, params, **extra: part.update(grads, state, params)


def is_ours(part: GradientTransformation) -> bool:
    """Whether this was made by `transformation`, and so can be traced without values."""
    return hasattr(part.update, "raw")


def need_optimizer(part: Any, form: str) -> None:
    if not hasattr(part, "init") or not hasattr(part, "update"):
        raise TypeError(f"{called()}: {describe(part)} is not an optimizer {here()}. Write {form}.")


def unwrapped(part: GradientTransformation, form: str) -> tuple[Callable[[Params], State], Update]:
    """`init_of` and `update_of` what must be an optimizer."""
    need_optimizer(part, form)
    return init_of(part), update_of(part)


def need_params(params: Params) -> Params:
    if params is None:
        raise ValueError(f"{called()} needs the parameters {here()}: call update(grads, state, params).")
    return params


def need(extra: dict[str, Any], name: str, form: str) -> Any:
    """The extra argument of this name."""
    if extra.get(name) is None:
        raise ValueError(f"{called()} needs {name} {here()}: call update({form}).")
    return extra[name]


# -- what does not fit


_STATE = (
    "Make the state with init(params) of this optimizer, for these parameters, and call update(grads, state, params)"
)
_GRADS = "Call update(grads, state, params) with the gradients of these parameters"


def agree(name: str, tree: Any, other: str, like: Any, remedy: str, scalars: bool = False) -> None:
    """Raises unless `tree` has the structure of `like` and its shapes; the message names the first path that differs.

    With `scalars`, a number fits any shape.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(tree)
    wanted, expected = jax.tree.flatten(like)
    if structure == expected:
        shapes = [(_shape(x), _shape(y)) for x, y in zip(leaves, wanted, strict=True)]
        if all(x == y or (scalars and x == ()) for x, y in shapes):
            return
    what = _difference(name, tree, other, like, scalars)
    raise ValueError(f"{called()}: {what} {here()}. {remedy}.")


def _difference(name: str, tree: Any, other: str, like: Any, scalars: bool, start: bool = False) -> str | None:
    """What is the first to differ, going down from here; `None` if nothing does. With `start`, a leaf fits any tree."""
    if start and _node(tree) is None:
        return None
    if _node(tree) != _node(like):
        return f"{name} is {_short(tree)}, where {other} is {_short(like)}"
    if _node(like) is None:
        x, y = _shape(tree), _shape(like)
        return None if x == y or (scalars and x == ()) else f"{name} is of shape {x}, {other} is of shape {y}"
    found, wanted = _children(tree), _children(like)
    for key in wanted:
        if key not in found:
            return f"{name}{key} is missing, which is in {other}"
    for key in found:
        if key not in wanted:
            return f"{name}{key} is {_short(found[key])}, which {other} does not have"
    parts = (_difference(name + key, found[key], other + key, wanted[key], scalars, start) for key in wanted)
    return next((what for what in parts if what is not None), None)


def _children(tree: Any) -> dict[str, Any]:
    found, _ = tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)
    return {keystr(path): child for path, child in found}


def spread(name: str, given: Any, tree: Any) -> Any:
    """The tree of what `given`, which may be the start of one, or a function to one, says of each leaf of `tree`."""
    given = given(tree) if callable(given) else given
    what = _difference(name, given, "params", tree, False, start=True)
    if what is not None:
        raise ValueError(
            f"{called()}: {what} {here()}. Give a tree like the parameters, the start of one, or a function from them "
            "to one."
        )
    return jax.tree.map(lambda value, part: jax.tree.map(lambda leaf: value, part), given, tree)


def same_structure(tree: Any, like: Any) -> bool:
    structure: Any = jax.tree.structure(tree)
    return bool(structure == jax.tree.structure(like))


def _node(tree: Any) -> Any:
    structure: Any = jax.tree.structure(tree)
    node = structure.node_data()
    return node and node[0]


def _short(tree: Any) -> str:
    if _node(tree) is None or isinstance(tree, type(None)):
        return describe(tree)
    return f"{type(tree).__name__} of {len(jax.tree.leaves(tree))} arrays"


def _shape(leaf: Any) -> Any:
    # What comes back from eval_shape has a shape, and is no array.
    return leaf.shape if hasattr(leaf, "shape") else aval_of(leaf).shape


# -- what formulas are written with


def each(formula: Callable[..., Any], numbers: Sequence[Any], *trees: Any) -> Any:
    """`formula(*numbers, *leaves)` for the leaves of the trees, in the structure of the first tree.

    The numbers that are arrays are first cast to the dtype of the leaves, so that 16-bit parameters stay so beside a
    32-bit rate; a Python number takes any dtype.
    """
    structure: Any = jax.tree.structure(trees[0])
    leaves = zip(*[structure.flatten_up_to(tree) for tree in trees], strict=True)
    cast: dict[Any, list[Any]] = {}
    out = []
    for xs in leaves:
        dtype = real_dtype(*xs)
        if dtype not in cast:
            cast[dtype] = [n if isinstance(n, (int, float)) else tnp.astype(n, dtype) for n in numbers]
        out.append(formula(*cast[dtype], *xs))
    return jax.tree.unflatten(structure, out)


def parts(count: int, formula: Callable[..., Sequence[Any]], numbers: Sequence[Any], *trees: Any) -> list[Any]:
    """`each`, for a formula that returns `count` results: a tree of each."""
    together = each(lambda *xs: _Several(formula(*xs)), numbers, *trees)
    return [jax.tree.map(lambda several, i=i: several.parts[i], together) for i in range(count)]  # type: ignore[misc]


class _Several:
    """Results that are one leaf."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts


def real_dtype(*leaves: Any) -> Any:
    """The real dtype that holds what these are: the dtype of the parts of complex numbers."""
    dtype: Any = functools.reduce(jnp.promote_types, [aval_of(x).dtype for x in leaves])
    return np.dtype(np.finfo(dtype).dtype) if dtype.kind == "c" else dtype


def typed_like(tree: Any, like: Any) -> Any:
    """The arrays of `tree` in the dtypes of those of `like`."""

    def cast(x: Any, y: Any) -> Any:
        aval, dtype = aval_of(x), aval_of(y).dtype
        return x if aval.dtype == dtype and not aval.weak_type else tnp.astype(x, dtype)

    return jax.tree.map(cast, tree, like)


def zeros_like(tree: Any, dtype: Any = None) -> Any:
    return full_like(tree, 0, dtype)


def full_like(tree: Any, value: Any, dtype: Any = None) -> Any:
    """Arrays like those of `tree`, all of one value, in their own dtypes unless one is given."""
    return jax.tree.map(lambda x: tnp.full(aval_of(x).shape, value, dtype or aval_of(x).dtype), tree)


def real_full_like(tree: Any, value: Any = 0) -> Any:
    """`full_like`, of real numbers: what means of squares start from."""
    return jax.tree.map(lambda x: tnp.full(aval_of(x).shape, value, real_dtype(x)), tree)


def zero_count() -> Any:
    return tnp.zeros((), np.int32)


def increment(count: Any) -> Any:
    """One more; the largest number that there is stays."""
    return tnp.astype(tnp.minimum(count, _STEPS - 1) + 1, np.int32)


def abs_square(x: Any) -> Any:
    return tnp.square(abs(x)) if aval_of(x).dtype.kind == "c" else tnp.square(x)


def running_mean(decay: Any, values: Any, means: Any, of: Callable[[Any], Any] = lambda x: x) -> Any:
    """The running means of `of(value)` after one more value each."""
    # 1 - decay is taken before it is cast: in 16 bits 0.999 is 1.
    return each(lambda new, old, x, mean: new * of(x) + old * mean, [1 - decay, decay], values, means)


def debias(decay: Any, count: Any) -> Any:
    """1 - decay**count, which is small, without the cancellation."""
    steps = tnp.astype(count, jax.dtypes.canonicalize_dtype(float))
    if isinstance(decay, (int, float)):
        return -tnp.expm1(steps * math.log(decay)) if decay > 0 else 1.0
    return -tnp.expm1(steps * tnp.log(decay))


def rate_at(rate: Rate, count: Any) -> Any:
    """The rate itself, or what the schedule gives after this number of steps."""
    return rate(count) if callable(rate) else rate


def need_rate(rate: Rate, name: str = "learning_rate") -> None:
    """Raises unless this is a number, a scalar array or a schedule."""
    if isinstance(rate, (int, float)):
        return
    try:
        # A model can be called too: it has arrays, and a schedule numbers at most.
        if not callable(rate) or any(np.ndim(leaf) for leaf in jax.tree.leaves(rate) if isinstance(leaf, _ARRAYS)):
            aval_of(rate)
    except TypeError:
        raise TypeError(
            f"{called()}: {name} is {describe(rate)} {here()}. Give a number, a scalar array or a schedule, a function "
            "of the step count."
        ) from None


# -- applying and chaining


@compiled_when_eager
def apply_updates(params: Params, updates: Any) -> Params:
    """`params + updates`, leaf by leaf, in the dtypes of the parameters.

    Args:
      params: a pytree of arrays.
      updates: a pytree of the same structure and shapes: the first of the two results of `update`.

    Raises:
      ValueError: if they differ in structure or shape; the message names the path.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizers.apply_updates({"w": np.array([1.0])}, {"w": np.array([0.5])})["w"].tolist()
      [1.5]
    """
    if type(updates) is tuple and len(updates) == 2 and not same_structure(updates, params):
        raise ValueError(
            f"{called()}: updates is a pair, (updates, state), such as update returns {here()}. Write `updates, state ="
            " optimizer.update(grads, state, params)`, then apply_updates(params, updates)."
        )
    remedy = "Pass the first of the two results of update, and the parameters whose gradients it was given"
    agree("updates", updates, "params", params, remedy, scalars=True)
    return jax.tree.map(lambda p, u: typed_like(p + u, p), params, updates)


@pickled_as_call
def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """One transformation of several, each applied to what the one before returns; the state is a tuple of theirs.

    Extra arguments of `update` are given to each that takes them. Transformations of optax's may be among them.

    Example:
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adam(1e-3))
    """
    for i, part in enumerate(transformations):
        if not hasattr(part, "init") or not hasattr(part, "update"):
            raise TypeError(
                f"{called()}: transformation {i} is {describe(part)}, not an optimizer {here()}. Write "
                "chain(first, second)."
            )
    inits, updates = [init_of(part) for part in transformations], [update_of(part) for part in transformations]

    def init(params: Params) -> State:
        return tuple([init(params) for init in inits])

    def update(grads: Any, state: State, params: Params, **extra: Any) -> tuple[Any, State]:
        new = []
        for update, part in zip(updates, state, strict=True):
            grads, part = update(grads, part, params, **extra)
            new.append(part)
        return grads, tuple(new)

    return transformation(init, update, all(map(is_ours, transformations)))


@pickled_as_call
def identity() -> GradientTransformation:
    """Returns the gradients as they are."""
    return stateless(lambda grads, params, **extra: grads)


__all__ = ["EmptyState", "GradientTransformation", "LookaheadParams", "apply_updates", "chain", "identity"]
