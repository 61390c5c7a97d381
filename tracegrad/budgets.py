"""Memory budgets: programs that compute again as little as makes them fit, by what XLA says. Uses bodies."""

from __future__ import annotations

import functools
import math
import numbers
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .body import BodyOp, call, put, record_body, taken
from .errors import describe, here, name_of
from .explain import history_of
from .inference import TYPED, output_types
from .ops.collectives import communicates
from .passes import Plan, optimize, plans, program, rematerialized
from .recording import state
from .tape import Tape, Var, aval_of
from .tracer import Tracer

_UNITS = {"": 1, **{f"{p}i": 1024 ** (i + 1) for i, p in enumerate("kmgtp")}}
_UNITS |= {p: 1000 ** (i + 1) for i, p in enumerate("kmgtp")}

TRIES = 6
"""How many programs are compiled at most to find one that fits."""


def bytes_of_budget(where: str, budget: Any) -> int:
    """The bytes of a `memory_budget`, which this function was given: a number of them, or text such as "2GiB".

    Raises:
      TypeError, ValueError: if it is no size, or not positive.
    """
    form = 'Give a number of bytes, or text such as "512MiB" or "2GB"'
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgtp]?i?)b\s*", budget.lower())
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{where}: memory_budget is {budget!r}, which is no size {here()}. {form}.")
        size = float(match[1]) * _UNITS[match[2]]
    elif isinstance(budget, numbers.Real) and not isinstance(budget, bool) and math.isfinite(budget):
        size = float(budget)
    else:
        raise TypeError(f"{where}: memory_budget is {_shown(budget)}, which is no size {here()}. {form}.")
    if size < 1:
        raise ValueError(
            f"{where}: memory_budget is {budget!r} {here()}: no program runs in that. {form}; "
            "tg.memory(f)(*args).temporaries is what it takes without a budget."
        )
    return int(size)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, (bool, float, complex)) else describe(value)


class Search:
    """The plan for one program that fits a budget with the least work, as far as it is known.

    It is called with the program, whenever that is traced, and returns it as the plan has it. What is compiled of that
    is told with `learn`, which says whether the search is over.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.plans: list[Plan] = []
        self.at = 0
        self.took: dict[int, int] = {}

    def __call__(self, tape: Tape) -> Tape:
        if not self.plans:
            self.plans = plans(tape)
            self.at = next((i for i, plan in enumerate(self.plans) if plan.peak <= self.size), len(self.plans) - 1)
        return rematerialized(tape, self.plans[self.at])

    def learn(self, took: int) -> bool:
        """Whether the plan stands, now that it is known what temporaries XLA's program has; else there is another."""
        self.took[self.at] = took
        fit = [i for i, t in self.took.items() if t <= self.size]
        # Between a plan that fits and one that does not there may be a better one: not worth another compilation.
        if len(fit) in (0, len(self.took)):
            low, high = (0, min(fit)) if fit else (max(self.took) + 1, len(self.plans))
            ratio = took / max(1, self.plans[self.at].peak)
            likely = [i for i in range(low, high) if self.plans[i].peak * ratio <= self.size]
            if len(self.took) >= TRIES or not likely:
                likely = [] if fit else list(range(low, high))[-1:]
            if likely:
                self.at = likely[0]
                return False
        self.at = min(fit, default=min(self.took, key=self.took.__getitem__))
        return True

    @property
    def reached(self) -> int:
        return self.took[self.at]

    def check(self, where: str, name: str) -> None:
        """Raises if no program was found that fits."""
        if self.reached <= self.size:
            return
        most = "however much it computes again" if len(self.plans) > 1 else "and nothing that it could compute again"
        raise ValueError(
            f"{where}: memory_budget is {self.size:,} bytes, and {name} takes {self.reached:,} bytes of temporaries at "
            f"the least, {most} {here()}. Give at least memory_budget={self.reached}, smaller arguments, or fewer at a "
            "time."
        )

    def __str__(self) -> str:
        plan, tries = self.plans[self.at], len(self.took)
        text = f"memory budget {self.size:,} bytes: temporaries {self.reached:,}, programs compiled: {tries}"
        if not plan.again:
            return f"{text}; nothing is computed again"
        again = ", ".join(f"{n} {op}" for op, n in sorted(plan.again.items(), key=lambda x: -x[1]))
        return f"{text}; kept for the gradient {plan.kept:,} of {plan.plain:,}; computed again: {again}"


def temporaries(compiled: Any) -> int:
    """The bytes that a compiled program of JAX's holds beside its arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def settle(size: int, where: str, fun: Any, build: Callable[[Search], tuple[Any, Any]]) -> Any:
    """What `build` makes for the plan that fits: it returns that, and what JAX compiled of it, for a search."""
    search = Search(size)
    made: dict[int, Any] = {}
    while True:
        new, compiled = build(search)
        made[search.at] = new
        if search.learn(temporaries(compiled)):
            break
    search.check(where, name_of(fun))
    history = history_of(fun)
    history.compiled += len(search.took)
    history.events.append(str(search))
    return made[search.at]


# -- a budget for a part of a program


class _BudgetOp(BodyOp):
    """Runs a body that fits a budget."""

    __slots__ = ()

    def run(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        if state.examine is not None or any(isinstance(x, (Tracer, jax.core.Tracer)) for x in args):
            return super().run(args, params)
        return self.fitting(args, **params)(*args)

    def fitting(self, args: Sequence[Any], *, body: Tape, size: int, owner: Any) -> Callable[..., Any]:
        """The compiled function for arguments of these types."""
        structs = tuple([aval_of(x).struct() for x in args])
        key = (body, size, owner, structs)
        known = self._compiled.get(key)
        if known is not None:
            return known  # type: ignore[no-any-return]
        if communicates(body) or any(v.aval.varying for v in body.inputs):
            raise NotImplementedError(
                f"{owner.where}: memory_budget inside pmap, shard_map or a named vmap {here()}: a part that runs on "
                "many devices is not compiled by itself. Give it to the jit around."
            )

        def build(search: Search) -> tuple[Any, Any]:
            whole = program(search(body))
            fn = jax.jit(lambda *xs: tuple(whole(*xs)))
            return fn, fn.lower(*structs).compile()

        fn = settle(size, owner.where, owner.fun, build)
        return self._compiled.keep(key, fn)  # type: ignore[no-any-return]


class Owner:
    """Whose body a budgeted one is, for messages and `explain`. All are alike: the body says what is computed."""

    def __init__(self, where: str, fun: Any) -> None:
        self.where, self.fun = where, fun

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owner)

    def __repr__(self) -> str:
        return name_of(self.fun)


budget_op: _BudgetOp = _BudgetOp(
    "memory_budget",
    lambda *xs, **params: budget_op.fitting(xs, **params)(*xs),
    call.vjp,
    shape=output_types,
    multiple=True,
    axes=TYPED,
)
"""Runs a body whose program, compiled by itself, fits a budget: one of a function inside another one."""


def within_budget(fun: Callable[..., Any], budget: Any, where: str) -> Callable[..., Any]:
    """`fun`, whose program holds no more bytes than `budget` beside its arguments and results.

    It is recorded at each call, for which Python's floats and arrays are traced and anything else is as it is.
    """
    size, owner = bytes_of_budget(where, budget), Owner(where, fun)

    @functools.wraps(fun)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        return fun(*args, **kwargs), taken()

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        leaves = [x for x in jax.tree.leaves((args, kwargs)) if not _is_python(x)]
        body, captured = record_body(tapped, args, kwargs, name_of(fun), static=_is_python, lifts=True)
        outs = budget_op(*leaves, *captured, body=optimize(body), size=size, owner=owner)
        out, taps = jax.tree.unflatten(body.out_tree, outs)
        put(taps)
        return out

    return wrapped


def _is_python(x: Any) -> bool:
    return not isinstance(x, (Var, jax.Array, jax.core.Tracer, np.ndarray, np.generic, float, complex))
