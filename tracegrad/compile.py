"""`@jit`: `jax.jit` over record, differentiate, improve, lower. Uses bodies, passes, lower and execute."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import DictKey, SequenceKey

from .arguments import arguments_of
from .body import BodyCache, call, without_static
from .budgets import Owner, Search, budget_op, bytes_of_budget, settle
from .buffers import Marked, Memory, followed, read
from .caches import Cache
from .collecting import long_lived
from .errors import LeakedTracerError, describe, here, need_function
from .execute import run_pending
from .explain import history_of
from .lower import evaluate
from .passes import optimize, outline, reroll
from .recording import Recording, state
from .remedies import leaked_message
from .tape import aval_of
from .tracer import Tracer, operand
from .varying import mapped_by_jax
from .verify import verified

_SETTLED = 256
"""For how many sets of argument types a function with a memory budget keeps its programs."""


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Sequence[str] | None = None,
    donate_argnums: int | Sequence[int] | None = None,
    memory_budget: int | str | None = None,
    roll: bool = True,
    **options: Any,
) -> Callable[..., Any]:
    """A compiled version of `fun`: recorded, improved and compiled once for each set of argument types.

    Args:
      fun: takes and returns pytrees of arrays; anything it does in Python happens once, when it is recorded.
      static_argnums, static_argnames: arguments that are Python values, part of the program; hashable.
      donate_argnums: arguments whose memory the result may take over.
      memory_budget: the bytes that the compiled program may hold beside its arguments and results, as a number or text
        such as "2GiB": what the gradient needs and would be kept is computed again, as little of it as does.
      roll: whether loops of Python's, and layers, that repeat the same steps become loops of the compiled program, in
        the function and in its gradient, where that compiles sooner, and runs as fast. `tg.explain` says which do. With
        a memory budget they stay as they are.
      **options: passed to `jax.jit`, such as `in_shardings`, `out_shardings`, `keep_unused`.

    Returns:
      A function of the same arguments. `jit(f).lower(*args)` is JAX's `Lowered`, with `.as_text()`, `.compile()` and
      `.cost_analysis()`. Arrays that `fun` closes over are inputs, so that they may change: no recompilation,
      and never an old value.

    Raises:
      TypeError: if a static argument is not hashable, or `fun` needs the value of a traced array.
      ValueError: if `memory_budget` is no size, or if no program fits it: the message says what is reachable.

    With a budget, the first call for a set of argument types compiles a few programs, of which it takes the one that
    does least again and whose `memory_analysis()` says that it fits. Which values are kept is a minimum cut, in loops
    (`scan` over layers) and outside. Collectives, ops of the user's and unknown primitives never run twice; values
    that are computed again are those that were. `tg.explain(fun)` says what was done. In a function that is recorded
    on, the budget is that of this part, compiled by itself, and inside `vmap` that of one element.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> @tg.jit
      ... def norm(x):
      ...     return np.sqrt((x * x).sum())
      >>> float(norm(np.array([3.0, 4.0])))
      5.0
      >>> def loss(ws, x):
      ...     return tg.scan(lambda x, w: (np.tanh(x @ w), None), x, ws)[0].sum()
      >>> ws, x = np.ones((16, 32, 32)) / 32, np.ones((512, 32))
      >>> tg.memory(tg.grad(loss))(ws, x).temporaries > 1_500_000
      True
      >>> small = tg.jit(tg.grad(loss), memory_budget="1.5MB")
      >>> small(ws, x).shape, tg.memory(small)(ws, x).temporaries <= 1_500_000
      ((16, 32, 32), True)
    """
    if fun is None:
        return functools.partial(
            jit,
            static_argnums=static_argnums,
            static_argnames=static_argnames,
            donate_argnums=donate_argnums,
            memory_budget=memory_budget,
            roll=roll,
            **options,
        )
    need_function(fun, "jit")
    size = None if memory_budget is None else bytes_of_budget("jit", memory_budget)
    return Jitted(fun, static_argnums, static_argnames, donate_argnums, options, budget=size, roll=roll).wrapper


class Jitted:
    """One `@jit` function: its `jax.jit`, and the bodies it becomes while a tape records."""

    def __init__(
        self,
        fun: Callable[..., Any],
        static_argnums: int | Sequence[int] | None,
        static_argnames: str | Sequence[str] | None,
        donate_argnums: int | Sequence[int] | None,
        options: dict[str, Any],
        marked: Marked | None = None,
        plan: Search | None = None,
        budget: int | None = None,
        roll: bool = True,
    ) -> None:
        self.fun = fun
        self.name = getattr(fun, "__name__", None) or type(fun).__name__
        self.static_argnums, self.static_argnames = _statics(fun, static_argnums, static_argnames)
        self.donate_argnums = _tuple(donate_argnums)
        self.options = options
        self.roll = roll
        self.marked = marked  # names the steps of the program, to be read from what XLA makes of them
        self.plan = plan  # what of the program is computed again
        self.budget = budget
        self.settled = Cache(_SETTLED)
        self.bodies = BodyCache(fun)
        self.plain: Any = self._jax_jit(closure=False)
        self.closing: dict[int, Any] = {}  # with the arrays that it closes over as arguments
        self.examine: Any = None  # who looks at the results, if someone inside the function asked for that
        self.wrapper = self._wrapper()

    def _jax_jit(self, closure: bool, count: int = 0) -> Any:
        """`jax.jit` of the recorded function; with `closure`, of the arrays it closes over and their version too.

        `count` is how many arguments have a sharding, where one is given for all.
        """
        fun, name = self.fun, self.name

        def run(arrays: Sequence[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaves, tree = jax.tree.flatten((args, kwargs))
            closed = self.bodies.closed_over() if closure else []
            with Recording(name, run=run_pending, axes=mapped_by_jax()) as tape:
                inputs = [Tracer(aval_of(value), tape, value) for value in arrays]
                tape.constants.update((id(array), v) for array, v in zip(closed, inputs, strict=True))
                # Whatever jax.jit did not trace is a static argument.
                ins = [operand(tape, x) if isinstance(x, jax.core.Tracer) else x for x in leaves]
                args, kwargs = jax.tree.unflatten(tree, ins)
                out, out_tree = jax.tree.flatten(fun(*args, **kwargs))
                whole = tape.finished([operand(tape, v) for v in out])
                rest = whole.replace(inputs=(), nodes=whole.nodes[tape.done :])
                self.examine = tape.examine
            self.bodies.watch(closed, inputs, whole)
            with long_lived():
                final = optimize(rest)
                if self.plan is not None:
                    final = self.plan(final)
                elif self.roll:
                    final = reroll(final, history_of(fun).events)
                final = verified(outline(final))
                if self.marked is not None:
                    final = self.marked.tape(final)
                return jax.tree.unflatten(out_tree, evaluate(final.nodes, final.outputs, {}))

        shift = 0
        if closure:

            def traced(version: int, arrays: Any, /, *args: Any, **kwargs: Any) -> Any:
                return run(arrays, args, kwargs)

            shift = 2
        else:

            def traced(*args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
                return run((), args, kwargs)

        traced.__name__ = traced.__qualname__ = name
        if not closure:
            # A builtin may have no signature: jax.jit then needs none either.
            with contextlib.suppress(TypeError, ValueError):
                traced.__signature__ = inspect.signature(fun)  # type: ignore[attr-defined]
        options = dict(self.options)
        if closure and options.get("in_shardings") is not None:
            given = options["in_shardings"]
            # The static version has none, and the arrays stay where they are.
            options["in_shardings"] = (None, *(given if isinstance(given, tuple) else (given,) * count))
        return jax.jit(
            traced,
            static_argnums=(0,) * closure + tuple(i + shift if i >= 0 else i for i in self.static_argnums) or None,
            static_argnames=self.static_argnames or None,
            donate_argnums=tuple(i + shift if i >= 0 else i for i in self.donate_argnums) or None,
            **options,
        )

    def _wrapper(self) -> Callable[..., Any]:
        plain, current = self.plain, state
        known = False

        @functools.wraps(self.fun)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal known
            if current.tape is not None:
                return self.record(args, kwargs)
            try:
                if current.examine is not None:
                    return self.examined(current.examine, args, kwargs)
                if known:
                    return plain(*args, **kwargs)
                if self.examine is not None:
                    return self.examined(self.examine, args, kwargs)
                out = self.call(args, kwargs)
                if self.examine is not None:
                    self.examine.called(wrapper, args, kwargs, out)
                else:
                    known = not self.closing and self.budget is None
                return out
            except (TypeError, ValueError):
                self.explain(args, kwargs)
                raise
            except jax.errors.JaxRuntimeError as error:
                raise followed(error, lambda: self.memory(args, kwargs)) from None

        def lower(*args: Any, **kwargs: Any) -> Any:
            """JAX's `Lowered` for arguments of these types: `.as_text()`, `.compile()`, `.cost_analysis()`.

            Arrays that the function closes over are constants of it, as they are now.
            """
            try:
                return (
                    plain.lower(*args, **kwargs)
                    if self.budget is None
                    else self.fitting(args, kwargs).plain.lower(*args, **kwargs)
                )
            except (TypeError, ValueError):
                self.explain(args, kwargs)
                raise

        wrapper.lower = lower  # type: ignore[attr-defined]
        wrapper.jitted = self  # type: ignore[attr-defined]
        return wrapper

    def closed_over(self, args: tuple[Any, ...]) -> tuple[Any, list[Any]] | None:
        """`jax.jit` of these arguments and of the arrays that the function closes over, and those, as they are now.

        `None` if it has no such variables.
        """
        arrays = self.bodies.closed_over()
        if not self.bodies.references:
            return None
        shared = self.options.get("in_shardings")
        count = 0 if shared is None or isinstance(shared, tuple) else len(args) - len(self.is_static(args))
        if count not in self.closing:
            self.closing[count] = self._jax_jit(True, count)
        return self.closing[count], arrays

    def examined(self, examine: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call whose results are looked at. What it donates is kept, for the call to be explained."""
        donated = {i % len(args) for i in self.donate_argnums if -len(args) <= i < len(args)}
        kept = [jax.tree.map(_copied, x) if i in donated else x for i, x in enumerate(args)]
        by_name = jax.tree.map(_copied, kwargs)
        outer, state.examine = state.examine, None
        try:
            out = jax.block_until_ready(self.call(args, kwargs))
        finally:
            state.examine = outer
        examine.called(self.wrapper, kept, by_name, out)
        return out

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the compiled function gives for these arguments, and for the arrays that it closes over now."""
        if self.budget is not None:
            return self.fitting(args, kwargs).call(args, kwargs)
        closed = self.closed_over(args)
        if closed is None:
            return self.plain(*args, **kwargs)
        closing, arrays = closed
        return closing(self.bodies.version, arrays, *args, **kwargs)

    def fitting(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Jitted:
        """This function with the plan that fits its budget, for arguments of these types."""
        static = self.is_static(args)
        fixed = (
            tuple(args[i] for i in sorted(static)),
            tuple((k, kwargs[k]) for k in self.static_argnames if k in kwargs),
        )
        dynamic = [None if i in static else x for i, x in enumerate(args)]
        by_name = {k: None if k in self.static_argnames else v for k, v in kwargs.items()}
        leaves, tree = jax.tree.flatten((dynamic, by_name, self.bodies.closed_over()))
        types = tuple([(aval_of(x), _spread(x)) for x in leaves])
        key = (tree, types, fixed, jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        known = self.settled.get(key)
        if known is not None:
            return known  # type: ignore[no-any-return]
        args, kwargs = jax.tree.map(_untraced, (args, kwargs))

        def build(search: Search) -> tuple[Jitted, Any]:
            new = self.twin(plan=search)
            return new, new.lowered(args, kwargs).compile()

        assert self.budget is not None
        return self.settled.keep(key, settle(self.budget, "jit", self.fun, build))  # type: ignore[no-any-return]

    def twin(self, **changes: Any) -> Jitted:
        """The same function, with a plan, or with its steps marked."""
        return Jitted(
            self.fun, self.static_argnums, self.static_argnames, self.donate_argnums, self.options,
            roll=self.roll, **changes,
        )  # fmt: skip

    def lowered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """JAX's `Lowered` of what `call` runs."""
        closed = self.closed_over(args)
        if closed is None:
            return self.plain.lower(*args, **kwargs)
        closing, arrays = closed
        return closing.lower(self.bodies.version, arrays, *args, **kwargs)

    def memory(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory:
        """What memory the compiled program takes, which is compiled once more, with its steps named."""
        marked = Marked()
        twin = self.twin(marked=marked, plan=None if self.budget is None else self.fitting(args, kwargs).plan)
        lowered, closed = twin.lowered(args, kwargs), bool(twin.closing)
        arguments = arguments_of(self.fun, jax.tree.structure((args, kwargs)))

        def named(text: str) -> str:
            if text.startswith("arrays["):
                return f"an array that {self.name} closes over"
            positional, by_name = re.match(r"args\[(\d+)\]", text), re.match(r"kwargs\['(\w+)'\]", text)
            if closed and positional:
                path = (SequenceKey(0), SequenceKey(int(positional[1])))
                return f"the argument {arguments.named(path)}{text[positional.end() :]}"
            if closed and by_name:
                return f"the argument {by_name[1]}{text[by_name.end() :]}"
            return f"the argument {text}" if text else ""

        return read(self.name, lowered.compile(), marked, named)

    def is_static(self, args: tuple[Any, ...]) -> set[int]:
        return {i % len(args) for i in self.static_argnums if -len(args) <= i < len(args)}

    def explain(self, args: tuple[Any, ...], kwargs: dict[str, Any], by: str = "jit") -> None:
        """Raises a clearer error than JAX's for what is wrong with these arguments, if that is what it is."""
        static = self.is_static(args)
        arguments = arguments_of(self.fun, jax.tree.structure((args, kwargs)))
        keys: list[tuple[tuple[int, Any], Any]] = [((0, i), args[i]) for i in sorted(static)]
        keys += [((1, k), v) for k, v in kwargs.items() if k in self.static_argnames]
        for (group, key), value in keys:
            path = (SequenceKey(group), DictKey(key) if group else SequenceKey(key))
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{by}: the static argument {arguments.named(path)} of {self.name} is {describe(value)}, which is "
                    f"not hashable {here()}. A static argument is part of the compiled program's key: pass a tuple or "
                    "a frozen dataclass instead, or do not mark it static."
                ) from None
        # A static argument has no leaves.
        dynamic = [None if i in static else x for i, x in enumerate(args)]
        by_name = {k: None if k in self.static_argnames else v for k, v in kwargs.items()}
        for path, leaf in jax.tree_util.tree_flatten_with_path((dynamic, by_name))[0]:
            if isinstance(leaf, Tracer) and leaf.tape is not None and not leaf.tape.open:
                raise LeakedTracerError(leaked_message(leaf))
            try:
                aval_of(leaf)
            except TypeError:
                raise TypeError(
                    f"{by}: argument {arguments.named(path)} of {self.name} is {describe(leaf)}, which is not an array "
                    f"{here()}. Mark it static with static_argnums or static_argnames, or leave it out."
                ) from None

    def record(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Appends one `call` node to the tape that is recording; the body is recorded once for these types."""
        if state.capture is not None:
            # What is tapped in the function is wanted outside.
            return self.fun(*args, **kwargs)
        static = self.is_static(args)
        named = {k for k in kwargs if k in self.static_argnames}
        fixed = (tuple((i, args[i]) for i in sorted(static)), tuple((k, kwargs[k]) for k in sorted(named)))
        fun = functools.partial(self.fun, **{k: kwargs[k] for k in named})
        merged, others = without_static(fun, args, static)
        dynamic = (others, {k: v for k, v in kwargs.items() if k not in named})
        try:
            body, extra = self.bodies.get(merged, *dynamic, static=fixed)
        except TypeError:
            self.explain(args, kwargs)
            raise
        leaves = jax.tree.leaves(dynamic)
        if self.budget is None:
            outs = call(*leaves, *extra, body=body)
        else:
            outs = budget_op(*leaves, *extra, body=body, size=self.budget, owner=Owner("jit", self.fun))
        return jax.tree.unflatten(body.out_tree, outs)


def memory(fun: Callable[..., Any]) -> Callable[..., Memory]:
    """A function of the same arguments as `fun` that says what memory its compiled program takes, and for what.

    The program is compiled, and does not run. Of a function under `@jit` it is that of its own program, with its static
    and donated arguments and shardings, on each of the devices; of any other function, that of `jit(fun)`.

    Args:
      fun: takes and returns pytrees of arrays: a loss, a gradient, a whole step.

    Returns:
      A function that returns a `Memory`, which prints as a table: the peak, and the lines whose values make it up. Its
      arguments may be arrays, or `jax.ShapeDtypeStruct`s for those too large to be made. The sizes of arguments,
      results and temporaries are XLA's own. Which values are held when most are is an estimate: it is computed from the
      schedule of the program that XLA made. XLA may place values more or less tightly.

    An error of JAX's that there is no memory left is followed by this table, where a call raises it. On a GPU a call
    may return before that is known; in `with debug_nans():` it is waited for.

    Raises:
      TypeError: if `fun` is no function, or its arguments are not arrays.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> found = tg.memory(tg.grad(lambda w: np.tanh(w @ w).sum()))(np.ones((256, 256)))
      >>> found.arguments == found.results == 256 * 256 * 4
      True
      >>> "the argument w" in [row.line for row in found.rows]
      True
    """
    need_function(fun, "memory")
    jitted = getattr(fun, "jitted", None) or Jitted(fun, None, None, None, {})

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Memory:
        try:
            return jitted.memory(args, kwargs)  # type: ignore[no-any-return]
        except (TypeError, ValueError):
            jitted.explain(args, kwargs, "memory")
            raise

    return wrapped


def _copied(x: Any) -> Any:
    return x.copy() if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else x


def _spread(x: Any) -> Any:
    """The sharding of an array that lies on several devices."""
    if not isinstance(x, jax.Array) or isinstance(x, jax.core.Tracer):
        return None
    return x.sharding if len(x.sharding.device_set) > 1 else None


def _untraced(x: Any) -> Any:
    return aval_of(x).struct() if isinstance(x, jax.core.Tracer) else x


def _tuple(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, (int, str)) else tuple(value)


def _statics(fun: Any, argnums: Any, argnames: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Static positions and names, each inferred from the other where the signature tells, as jax.jit does."""
    nums, names = _tuple(argnums), _tuple(argnames)
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return nums, names
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if argnums is not None and argnames is None:
        names = tuple(positional[i] for i in nums if -len(positional) <= i < len(positional))
    elif argnames is not None and argnums is None:
        nums = tuple(positional.index(n) for n in names if n in positional)
    return nums, names
