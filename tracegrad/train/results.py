"""What a search has found, as a table, as a frame of pandas' and as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ..errors import called, here
from ..names import listed
from ..nn.summaries import table
from .extras import extra, figure_of
from .spaces import Choice, Range

Mode = Literal["min", "max"]

_NEAR = 0.05
"""A best value this near to an end of its range, as a part of the range, may lie beyond."""


@dataclass(frozen=True)
class Trial:
    """A configuration, and what came of it.

    Attributes:
      number: the how manieth it was, from 0.
      params: its hyperparameters by name.
      state: `"complete"`; `"stopped"`, by the median of the others; or `"failed"`.
      value: the mean over its seeds of the last value; NaN if it failed.
      values: the last value for each seed.
      reports: the mean over its seeds of each value that was returned or yielded, in order.
      aux: what came beside the last value, for each seed; empty without `has_aux`.
      reason: why it failed.
    """

    number: int
    params: Mapping[str, Any]
    state: str
    value: float
    values: tuple[float, ...]
    reports: tuple[float, ...]
    aux: tuple[Any, ...] = ()
    reason: str = ""


@dataclass(frozen=True, repr=False)
class SearchResults(Sequence[Trial]):
    """The trials of a search, the best first: those that are complete, then the stopped, then the failed.

    It prints as a table.

    Attributes:
      trials: in that order.
      space: what was searched.
      mode: whether the least or the greatest value is the best.
    """

    trials: tuple[Trial, ...]
    space: Mapping[str, Range | Choice]
    mode: Mode = "min"

    def __post_init__(self) -> None:
        sign = 1 if self.mode == "min" else -1
        order = {"complete": 0, "stopped": 1, "failed": 2}

        def rank(trial: Trial) -> tuple[int, float, int]:
            return order[trial.state], 0.0 if math.isnan(trial.value) else sign * trial.value, trial.number

        object.__setattr__(self, "trials", tuple(sorted(self.trials, key=rank)))

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Trial, ...]: ...
    def __getitem__(self, index: int | slice) -> Trial | tuple[Trial, ...]:
        return self.trials[index]

    def __len__(self) -> int:
        return len(self.trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    @property
    def best_trial(self) -> Trial:
        """The best of those that are complete.

        Raises:
          ValueError: if none is.
        """
        if not self.trials or self.trials[0].state != "complete":
            why = f" Trial {self.trials[0].number} {self.trials[0].reason}." if self.trials else ""
            raise ValueError(f"none of the {len(self)} trials is complete {here()}.{why}")
        return self.trials[0]

    @property
    def best_params(self) -> Mapping[str, Any]:
        """The hyperparameters of the best trial."""
        return self.best_trial.params

    @property
    def best_value(self) -> float:
        """The value of the best trial."""
        return self.best_trial.value

    def __repr__(self) -> str:
        seeds = max((len(t.values) for t in self), default=1) > 1
        steps = max((len(t.reports) for t in self), default=1) > 1
        head = ["trial", *self.space, "value", *(["std"] if seeds else []), *(["steps"] if steps else []), "state"]
        rows = []
        for t in self:
            extra_ = [_text(float(np.std(t.values))) if t.values else ""] if seeds else []
            extra_ += [str(len(t.reports))] if steps else []
            state = f"{t.state}: {t.reason}" if t.reason else t.state
            cells = [_text(t.params[name]) for name in self.space]
            rows.append([str(t.number), *cells, "" if math.isnan(t.value) else _text(t.value), *extra_, state])
        lines = [table(head, rows, "r" * (len(head) - 1) + "l")]
        for name, (value, part) in self._near_an_end().items():
            lines.append(f"{name}: the best, {_text(value)}, is at the end of {part!r}. What is beyond may be better.")
        return "\n".join(lines)

    def _near_an_end(self) -> dict[str, tuple[float, Range]]:
        """The hyperparameters whose best value is at an end of the range: a bound on what the search can say."""
        if len(self) < 2 or self[0].state != "complete":
            return {}
        found = {}
        for name, part in self.space.items():
            value = self[0].params[name]
            if isinstance(part, Range) and (
                value in (part.low, part.high) or not _NEAR < part.place(value) < 1 - _NEAR
            ):
                found[name] = (value, part)
        return found

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, a row a trial, the best first.

        Raises:
          ImportError: if pandas is not installed.
        """
        pandas = extra("pandas", "pandas", "pandas")
        rows = []
        for t in self:
            params = {name: t.params[name] for name in self.space}
            std = float(np.std(t.values)) if t.values else math.nan
            rest = {"value": t.value, "std": std, "steps": len(t.reports), "state": t.state, "reason": t.reason}
            rows.append({"trial": t.number} | params | rest)
        return pandas.DataFrame(rows)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws the values against each hyperparameter and, where there are several reports, the curves of the trials.

        Args:
          path: an image file to save to.

        Returns:
          The `matplotlib.figure.Figure`.

        Raises:
          ImportError: if matplotlib is not installed.
          ValueError: if no trial has a value.
        """
        known = [t for t in self if t.state != "failed"]
        if not known:
            raise ValueError(f"{called()}: all {len(self)} trials failed, and there is nothing to draw {here()}.")
        curves = max(len(t.reports) for t in known) > 1
        figure = figure_of(3.6 * (len(self.space) + curves), 3.4)
        axes = figure.subplots(1, len(self.space) + curves, squeeze=False)[0]
        for ax, (name, part) in zip(axes, self.space.items(), strict=False):
            numeric = isinstance(part, Range) or all(_is_number(v) for v in part.options)
            # By text otherwise: matplotlib's categories are strings.
            place = (lambda t: t.params[name]) if numeric else (lambda t: str(t.params[name]))  # noqa: B023
            for state, marker in (("complete", "o"), ("stopped", "x")):
                some = [t for t in known if t.state == state]
                if some:
                    ax.scatter([place(t) for t in some], [t.value for t in some], marker=marker, label=state)
            if known[0].state == "complete":
                ax.scatter([place(known[0])], [known[0].value], marker="*", s=160, zorder=3, label="best")
            if isinstance(part, Range) and part.log:
                ax.set_xscale("log")
            ax.set(xlabel=name, ylabel="value")
        if curves:
            for t in reversed(known):
                best = t is known[0] and t.state == "complete"
                style = (
                    {"linewidth": 2.5} if best else {"linestyle": "-" if t.state == "complete" else ":", "alpha": 0.6}
                )
                axes[-1].plot(np.arange(1, len(t.reports) + 1), t.reports, label="best" if best else None, **style)
            axes[-1].set(xlabel="report", ylabel="value")
        values = [value for t in known for value in (t.value, *t.reports)]
        if min(values) > 0 and max(values) > 10 * min(values):
            # The good ones lie close together where the bad ones have room.
            for ax in axes:
                ax.set_yscale("log")
        axes[0].legend()
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(getattr(value, "__name__", value))


__all__ = ["SearchResults", "Trial"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
