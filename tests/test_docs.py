"""Every example in a docstring of the package runs and gives what it says."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import tracegrad
from tracegrad import execute
from tracegrad.op import Op


def modules() -> list[str]:
    found = ["tracegrad"]
    for info in pkgutil.walk_packages(tracegrad.__path__, "tracegrad."):
        # Importing these runs a program, or needs what is installed for examples only.
        if not info.name.startswith("tracegrad.examples") and not info.name.endswith("__main__"):
            found.append(info.name)
    return found


class Finder(doctest.DocTestFinder):
    """Finds the examples of decorated functions too, once each, where they are defined."""

    def _from_module(self, module: ModuleType | None, thing: Any) -> bool:
        if isinstance(thing, Op):
            return False
        owner = getattr(thing, "__module__", None)
        if module is not None and isinstance(owner, str) and hasattr(thing, "__wrapped__"):
            return owner == module.__name__
        with contextlib.suppress(ValueError):
            return bool(super()._from_module(module, thing))  # type: ignore[misc]
        return False


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    # What `explain` prints depends on what has been compiled before.
    for cache in (execute._programs, execute._compiled_alone, execute._wanted):
        cache.clear()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    for test in Finder(exclude_empty=True).find(module, name, module=module):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_the_main_transforms_have_examples() -> None:
    for function in (tracegrad.grad, tracegrad.jit, tracegrad.vmap, tracegrad.jacobian, tracegrad.Op):
        assert ">>>" in (function.__doc__ or "")
