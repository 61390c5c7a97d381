"""What a search draws hyperparameters from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import called, describe, here
from ..names import listed


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, equally likely by value or, if `log`, by logarithm.

    Attributes:
      low, high: the ends. Both belong to the range of integers.
      log: whether it is even in the logarithm.
      integer: whether it has integers alone.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __repr__(self) -> str:
        name = ("log_" if self.log else "") + ("integers" if self.integer else "uniform")
        return f"{name}({self.low!r}, {self.high!r})"

    def sample(self, rng: np.random.Generator) -> float:
        """A number of the range, of a generator of NumPy's."""
        return self._at(float(rng.uniform()))

    def grid(self, num: int) -> list[float]:
        """`num` numbers of the range at equal distances, both ends among them; of integers each once."""
        return list(dict.fromkeys(self._at(float(q)) for q in np.linspace(0, 1, num)))

    def place(self, value: float) -> float:
        """Where a number lies: 0 is the low end, 1 is the high one."""
        a, b = self._ends()
        # The bins of integers are one wide, and an integer lies in the middle of its bin.
        return (self._warped(value) - a) / (b - a)

    def around(self, best: Sequence[float], tried: Sequence[float], margin: float) -> Range:
        """The part of this range that has the best numbers.

        It goes on, on each side, to the next number that was tried, and `margin` of the whole range at least.
        """
        low, high = min(best), max(best)
        below = max([v for v in tried if v < low], default=self.low)
        above = min([v for v in tried if v > high], default=self.high)
        first = min(self.place(below), self.place(low) - margin)
        last = max(self.place(above), self.place(high) + margin)
        low, high = self._at(max(0.0, first)), self._at(min(1.0, last))
        if self.integer and low == high:
            low, high = (low, high + 1) if high < self.high else (low - 1, high)
        return Range(low, high, self.log, self.integer)

    def _warped(self, value: float) -> float:
        return math.log(value) if self.log else float(value)

    def _ends(self) -> tuple[float, float]:
        if self.integer:
            return self._warped(self.low - 0.5), self._warped(self.high + 0.5)
        return self._warped(self.low), self._warped(self.high)

    def _at(self, q: float) -> float:
        if q in (0, 1):
            return self.high if q else self.low
        a, b = self._ends()
        value = a + q * (b - a)
        value = math.exp(value) if self.log else value
        # Rounding must not lead beyond an end.
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as another."""

    options: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"choice({list(self.options)!r})"

    def sample(self, rng: np.random.Generator) -> Any:
        """One of the values, by a generator of NumPy's."""
        return self.options[int(rng.integers(len(self.options)))]


Space = Mapping[str, Range | Choice | Sequence[Any]]
"""What `random_search` and the others take: a range, or a list of values, for each hyperparameter."""


def uniform(low: float, high: float) -> Range:
    """Floats from `low` to `high`, equally likely.

    Raises:
      TypeError, ValueError: if an end is no finite number, or `low >= high`.

    Example:
      >>> from tracegrad import train
      >>> train.uniform(0.0, 0.5)
      uniform(0.0, 0.5)
    """
    return _range(low, high, log=False, integer=False)


def log_uniform(low: float, high: float) -> Range:
    """Floats from `low` to `high` whose logarithms are equally likely: for learning rates and the like.

    Bergstra and Bengio, "Random search for hyper-parameter optimization" (2012), section 4.

    Raises:
      TypeError, ValueError: if an end is no finite number above 0, or `low >= high`.

    Example:
      >>> from tracegrad import train
      >>> train.log_uniform(1e-4, 1e-1)
      log_uniform(0.0001, 0.1)
    """
    return _range(low, high, log=True, integer=False)


def integers(low: int, high: int) -> Range:
    """Integers from `low` to `high`, both among them, equally likely.

    Raises:
      TypeError, ValueError: if an end is no integer, or `low >= high`.

    Example:
      >>> from tracegrad import train
      >>> train.integers(1, 4)
      integers(1, 4)
    """
    return _range(low, high, log=False, integer=True)


def log_integers(low: int, high: int) -> Range:
    """Integers from `low` to `high`, both among them, even in the logarithm: for widths.

    Raises:
      TypeError, ValueError: if an end is no integer above 0, or `low >= high`.

    Example:
      >>> from tracegrad import train
      >>> train.log_integers(8, 512)
      log_integers(8, 512)
    """
    return _range(low, high, log=True, integer=True)


def choice(options: Sequence[Any]) -> Choice:
    """One of these values, each as likely as another. In a space a list says the same.

    Raises:
      TypeError, ValueError: if it is no list, or an empty one.

    Example:
      >>> from tracegrad import train
      >>> train.choice(["relu", "tanh"])
      choice(['relu', 'tanh'])
    """
    return _choice(options, "options")


def _choice(options: Any, name: str) -> Choice:
    if not isinstance(options, (list, tuple, range, np.ndarray)) or (
        isinstance(options, np.ndarray) and not options.ndim
    ):
        raise TypeError(
            f"{called()}: {name} is {describe(options)} {here()}. Give a list of the values to choose from."
        )
    values = tuple(options.tolist() if isinstance(options, np.ndarray) else options)
    if not values:
        raise ValueError(f"{called()}: {name} is empty {here()}. Give one value at least.")
    return Choice(values)


def _range(low: Any, high: Any, log: bool, integer: bool) -> Range:
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    for name, value in (("low", low), ("high", high)):
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = "an integer" if integer else "a number"
            raise TypeError(f"{called()}: {name} is {describe(value)}, not {wanted} {here()}.")
        if not math.isfinite(value):
            raise ValueError(f"{called()}: {name}={value} {here()}. Give a finite number.")
    if log and low <= 0:
        plain = called().removeprefix("log_")
        raise ValueError(
            f"{called()}: low={low}, which has no logarithm {here()}. Give a number above 0, such as 1e-5, or use "
            f"{plain}({low}, {high}), which is even in the value itself."
        )
    if low >= high:
        raise ValueError(f"{called()}: low={low} is not below high={high} {here()}. Give the smaller end first.")
    of = int if integer else float
    return Range(of(low), of(high), log, integer)


def space_of(space: Any) -> dict[str, Range | Choice]:
    """A space with its lists as choices; an error says what is no part of one."""
    if not isinstance(space, Mapping) or not space or not all(isinstance(name, str) for name in space):
        raise TypeError(
            f"{called()}: space is {describe(space)} {here()}. Give a dict of hyperparameters, such as "
            "{'learning_rate': train.log_uniform(1e-4, 1e-1), 'width': [32, 64]}."
        )
    found: dict[str, Range | Choice] = {}
    for name, part in space.items():
        if isinstance(part, (Range, Choice)):
            found[name] = part
        elif isinstance(part, (list, tuple, range, np.ndarray)):
            found[name] = _choice(part, f"space[{name!r}]")
        else:
            raise TypeError(
                f"{called()}: space[{name!r}] is {describe(part)} {here()}. Give a range such as "
                "train.log_uniform(1e-4, 1e-1), or a list of values; of one value alone, [value]."
            )
    return found


__all__ = ["choice", "integers", "log_integers", "log_uniform", "uniform"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
