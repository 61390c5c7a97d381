"""What a public module shows of itself: its names, and the nearest to a wrong one. Uses nothing of the package."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

_FEW = 24
"""Of a module with so few names an error may list them all."""


_places: list[str] = []


def listed(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a public module, which has an `__all__`.

    A module takes them where type checkers do not look, since to them a `__getattr__` gives every name:
    `if not TYPE_CHECKING: __getattr__, __dir__ = listed(__name__)`. A name in `__all__` that the module has not
    imported is a submodule, which is imported when it is first asked for.
    """

    _places.append(module)

    def getattr_(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
        if name in sys.modules[module].__all__:
            return import_module(f"{module}.{name}")
        raise _MissingError(module, name)

    def dir_() -> list[str]:
        return sorted(sys.modules[module].__all__)

    return getattr_, dir_


class _MissingError(AttributeError):
    """A public module has no such name. What is near is looked for when the message is read: `hasattr` asks too."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(module, name, name=name)

    def __str__(self) -> str:
        module, name = self.args
        return f"module {module!r} has no attribute {name!r}. {_nearest(module, name)}"


_MissingError.__name__ = _MissingError.__qualname__ = "AttributeError"  # what a traceback calls it
_MissingError.__module__ = "builtins"


class Namespace:
    """Functions under a name that is no module, such as those of a distribution: `norm.logpdf`."""

    def __init__(self, name: str, module: str, doc: str, functions: dict[str, Callable[..., Any]]) -> None:
        self.__name__ = name
        self.__module__ = module
        self.__doc__ = doc
        vars(self).update(functions)

    def __repr__(self) -> str:
        return f"<{self.__module__}.{self.__name__}: {', '.join(dir(self))}>"

    def __dir__(self) -> list[str]:
        return sorted(name for name in vars(self) if not name.startswith("_"))

    def __getattr__(self, name: str) -> Any:
        text = f"{self.__module__}.{self.__name__} has no {name!r}. It has {', '.join(dir(self))}."
        raise AttributeError(text, name=name, obj=self)

    def __reduce__(self) -> str:
        return self.__name__


def _nearest(module: str, name: str) -> str:
    wanted = _bare(name)
    own = {_bare(n): f"{module}.{n}" for n in dir(sys.modules[module])}
    everywhere: dict[str, dict[int, str]] = {}
    for place, n, value in _public():
        everywhere.setdefault(_bare(n), {}).setdefault(id(value), f"{place}.{n}")
    if wanted in own:
        found = [own[wanted]]
    elif wanted in everywhere:
        near = difflib.get_close_matches(wanted, own, cutoff=0.85)
        found = list(everywhere[wanted].values()) + [own[n] for n in near]
    elif close := difflib.get_close_matches(wanted, own, cutoff=0.66):
        found = [own[n] for n in close]
    elif close := difflib.get_close_matches(wanted, everywhere, n=1, cutoff=0.85):
        found = list(everywhere[close[0]].values())
    elif len(own) <= _FEW:
        return f"It has {', '.join(dir(sys.modules[module]))}."
    else:
        return f"dir({module}) lists what it has."
    return f"Did you mean {' or '.join(found[:3])}?"


def _bare(name: str) -> str:
    return name.replace("_", "").casefold()


def _public() -> Iterator[tuple[str, str, Any]]:
    """The public names of all public modules, those of the shortest path first."""
    for place in _places:  # which grows where a name is a submodule that had not been imported
        for name in sys.modules[place].__all__:
            getattr(sys.modules[place], name)
    for place in sorted(_places, key=lambda n: n.count(".")):
        module = sys.modules[place]
        for name in module.__all__:
            yield place, name, getattr(module, name)
