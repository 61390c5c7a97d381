"""Pickling of functions that functions make, as the call that made them. Uses nothing of the package."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


def pickled_as_call(factory: Callable[P, T]) -> Callable[P, T]:
    """`factory`, a public function that returns a function or a named tuple of them, which can be pickled.

    A pickle holds the name of the factory and its arguments, so that it does not depend on how the functions are made.
    """

    @functools.wraps(factory)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        made: Any = factory(*args, **kwargs)
        if not isinstance(made, tuple):
            return cast(T, _Made(made, wrapper, args, kwargs, None))
        kind: Any = type(made)
        fields = zip(kind._fields, made, strict=True)
        return cast(T, kind(*[_Made(f, wrapper, args, kwargs, field) for field, f in fields]))

    return wrapper


class _Made:
    def __init__(self, fun: Callable[..., Any], *call: Any) -> None:
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.call = call
        factory, _, _, field = call
        self.name = factory.__name__ if field is None else f"{factory.__name__}.{field}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fun(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _make_again, self.call


def _make_again(factory: Callable[..., Any], args: Any, kwargs: Any, field: str | None) -> Any:
    made = factory(*args, **kwargs)
    return made if field is None else getattr(made, field)
