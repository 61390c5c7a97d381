"""What is installed besides: imported when it is first used, and named where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ..errors import called, here


def extra(module: str, package: str, install: str = "'tracegrad[train]'") -> Any:
    """A module of an optional package.

    Raises:
      ImportError: if it is not installed; the message has the line that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{called()} needs {package}, which is not installed {here()}. Run: pip install {install}",
            name=module,
        ) from error
