"""What was measured in training: numbers by name and step, to be drawn and to be put into a table."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import called, here
from . import agreement
from .extras import extra, figure_of


class History(Mapping[str, np.ndarray[Any, Any]]):
    """Numbers that were measured at steps: `history["loss"]` has the values, `history.steps("loss")` the steps.

    Example:
      >>> from tracegrad import train
      >>> history = train.History()
      >>> for step in (1, 2, 3):
      ...     history.add(step, {"loss": 1 / step})
      >>> history.add(3, {"val_loss": 0.5})
      >>> history
      History: 3 of loss (last 0.3333), 1 of val_loss (last 0.5)
      >>> history["val_loss"].tolist(), history.steps("val_loss").tolist()
      ([0.5], [3])
    """

    def __init__(self) -> None:
        self._steps: dict[str, list[int]] = {}
        self._values: dict[str, list[float]] = {}

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Takes numbers by name, measured after `step` steps."""
        for name, value in values.items():
            self.extend([step], {name: [float(value)]})

    def extend(self, steps: Sequence[int], values: Mapping[str, Sequence[float]]) -> None:
        """Takes for each name as many numbers as there are steps."""
        for name, column in values.items():
            self._steps.setdefault(name, []).extend(steps)
            self._values.setdefault(name, []).extend(column)

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self._values:
            known = f"There are {', '.join(self._values)}." if self._values else "Nothing was."
            raise KeyError(f"{name} was not measured {here()}. {known}")
        return np.array(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        columns = [f"{len(v)} of {name} (last {v[-1]:.4g})" for name, v in self._values.items()]
        return f"History: {', '.join(columns) or 'nothing yet'}"

    def steps(self, name: str) -> np.ndarray[Any, Any]:
        """The steps at which the numbers of this name were measured."""
        return np.array(self._steps[name]) if name in self._steps else self[name]

    def last(self) -> dict[str, float]:
        """The last number of each name."""
        return {name: values[-1] for name, values in self._values.items()}

    def at(self, step: int) -> dict[str, float]:
        """What was last measured, where that was after this step."""
        return {name: self._values[name][-1] for name, steps in self._steps.items() if steps[-1] == step}

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {name: [np.array(self._steps[name]), np.array(self._values[name])] for name in self._values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the place of what is here."""
        self._steps = {name: [int(s) for s in steps] for name, (steps, _) in state.items()}
        self._values = {name: [float(v) for v in values] for name, (_, values) in state.items()}

    def cut(self, step: int) -> None:
        """Forgets what was measured after this step."""
        for name, steps in list(self._steps.items()):
            count = int(np.searchsorted(steps, step, side="right"))
            del steps[count:], self._values[name][count:]
            if not count:
                del self._steps[name], self._values[name]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each step, a column for each name, and NaN where nothing was measured.

        Raises:
          ImportError: without pandas.
        """
        pandas = extra("pandas", "pandas", "pandas")
        columns = {name: pandas.Series(v, self._steps[name], float) for name, v in self._values.items()}
        frame = pandas.DataFrame(columns)
        frame.index.name = "step"
        return frame

    def plot(self, path: str | os.PathLike[str] | None = None, names: Sequence[str] | None = None) -> Any:
        """Draws the numbers over the steps: those whose names end in the same word together, losses by logarithm.

        Args:
          path: an image file to write, in many processes by process 0 alone; in a notebook the figure that is returned
            shows itself.
          names: of what; of all by default.

        Returns:
          A `matplotlib.figure.Figure`.

        Raises:
          ImportError: without matplotlib.
          ValueError: if there is nothing to draw.
        """
        chosen = list(self if names is None else names)
        if not chosen:
            raise ValueError(f"{called()}: nothing was measured {here()}.")
        kinds: dict[str, list[str]] = {}
        for name in chosen:
            kinds.setdefault(re.split(r"[\s_/]", name)[-1], []).append(name)
        groups = sorted(kinds.items(), key=lambda group: group[0] != "loss")  # losses come first
        figure = figure_of(4.5 * len(groups), 3.5)
        for axes, (kind, group) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
            for name in group:
                values = self[name]
                style = "." if len(values) == 1 else "-"
                # Losses of single batches are noise around their mean.
                noisy = len(values) > 100 and name == "loss"
                axes.plot(self.steps(name), values, style, label=name, alpha=0.35 if noisy else 1.0)
                if noisy:
                    width = len(values) // 50
                    mean = np.convolve(values, np.ones(width) / width, "valid")
                    axes.plot(self.steps(name)[width - 1 :], mean, color=axes.lines[-1].get_color())
            if kind == "loss" and all(np.min(self[name]) > 0 for name in group):
                axes.set_yscale("log")
            axes.set_xlabel("step")
            axes.set_ylabel(group[0] if len(group) == 1 else kind)
            axes.legend()
        if path is not None and agreement.index() == 0:
            figure.savefig(path, dpi=120)
        return figure


__all__ = ["History"]
