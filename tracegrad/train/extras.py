"""What is installed besides: imported when it is first used, and named where it is missing."""

from __future__ import annotations

import functools
import io
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


def figure_of(width: float, height: float) -> Any:
    """An empty figure of matplotlib's, which needs no display, and which a notebook shows as a cell's last value."""
    install = "'tracegrad[examples]'"
    figure = extra("matplotlib.figure", "matplotlib", install).Figure(figsize=(width, height), layout="constrained")
    extra("matplotlib.backends.backend_agg", "matplotlib", install).FigureCanvasAgg(figure)
    # IPython itself shows figures only where matplotlib.pyplot was imported.
    figure._repr_png_ = functools.partial(_png, figure)
    return figure


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
