"""Searches for hyperparameters: random, grid, coarse to fine, by themselves or many trainings as one program."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import batching
from .. import numpy as tnp
from ..compile import jit
from ..errors import called, describe, here, name_of
from ..names import listed
from .progress import Progress
from .reports import warn
from .results import Mode, SearchResults, Trial
from .spaces import Choice, Range, Space, space_of

Config = Mapping[str, Any]

_UNSEEDED: tuple[None, ...] = (None,)

Reports = Generator[tuple[list[Any], bool], Sequence[bool], None]
"""Report by report, what each run gives and whether it is the last one; it is sent which trials go on."""


@dataclass(frozen=True)
class MedianStopping:
    """Stops a trial whose best value so far is worse than the median of the others' running means.

    Golovin et al., "Google Vizier: a service for black-box optimization" (2017), section 3.1.2. As in Ray Tune, the
    others are all trials that came so far, and not those alone that are complete.

    Attributes:
      grace_period: reports before which nothing is stopped.
      min_samples: how many others there must be.
    """

    grace_period: int = 1
    min_samples: int = 3

    def __post_init__(self) -> None:
        _at_least_one(grace_period=self.grace_period, min_samples=self.min_samples)

    def stops(self, reports: Sequence[float], others: Sequence[Sequence[float]], mode: Mode = "min") -> bool:
        """Whether a trial with these reports is stopped, where the others have had those."""
        n = len(reports)
        means = [float(np.mean(other[:n])) for other in others if len(other) >= n]
        if n < self.grace_period or len(means) < self.min_samples:
            return False
        if mode == "min":
            return min(reports) > float(np.median(means))
        return max(reports) < float(np.median(means))


@dataclass(frozen=True)
class Stepwise:
    """An objective in equal steps, so that many trainings go step by step as one program, and some can be stopped.

    Attributes:
      init: what the training starts from, `init(**params) -> state`.
      step: a part of it, such as an epoch, and the value after it: `step(state, **params) -> (state, value)`.
      num_steps: how many.

    Both take those hyperparameters, and `seed`, that they name.

    Example:
      >>> from tracegrad import train
      >>> halving = train.Stepwise(lambda seed: 1.0, lambda x, rate: (x - rate * x, x), 3)
      >>> list(halving(rate=0.5, seed=0))
      [1.0, 0.5, 0.25]
    """

    init: Callable[..., Any]
    step: Callable[..., tuple[Any, Any]]
    num_steps: int

    def __post_init__(self) -> None:
        for name, function in (("init", self.init), ("step", self.step)):
            if not callable(function):
                raise TypeError(f"{called()}: {name} is {describe(function)}, which is not a function {here()}.")
        _at_least_one(num_steps=self.num_steps)

    def __call__(self, **params: Any) -> Iterator[Any]:
        """The values, one a step."""
        state = self.init(**_taken(self.init, params))
        rest = _taken(self.step, params, 1)
        for _ in range(self.num_steps):
            state, value = self.step(state, **rest)
            yield value


def random_search(
    objective: Callable[..., Any],
    space: Space,
    num_samples: int = 10,
    *,
    mode: Mode = "min",
    seed: int = 0,
    num_seeds: int = 1,
    vmap: bool = False,
    batch_size: int | None = None,
    stopping: MedianStopping | None = None,
    has_aux: bool = False,
    progress: bool = True,
) -> SearchResults:
    """Tries configurations that are drawn from a space, and ranks them.

    Bergstra and Bengio, "Random search for hyper-parameter optimization" (2012): where few of the hyperparameters
    matter, better than a grid.

    The objective takes the hyperparameters by name, and trains. It returns a scalar; or it yields one from time to
    time, the last of which counts, so that hopeless trials can be stopped; or it is a `Stepwise`. If it has a parameter
    `seed`, it is given one.

    With `vmap` it is traced, and trains many at once: seeds and floats are arrays for it, `uniform` and `log_uniform`
    that is, and what else there is, such as integers, are Python values. Configurations that agree on these, and so on
    the shapes, are one program.

    Args:
      objective: what is minimized.
      space: by name, ranges such as `log_uniform(1e-4, 1e-1)`, or lists of values.
      num_samples: how many configurations. More of them begin with the same ones.
      mode: `"min"`, or `"max"` for the greatest value.
      seed: decides what is drawn, and is the first of the seeds that the objective is given.
      num_seeds: how often each configuration is run, each time with the next seed. The mean counts.
      vmap: whether those that share shapes train as one program.
      batch_size: how many runs such a program has at most, where memory is short.
      stopping: a `MedianStopping`.
      has_aux: whether there is a pair `(value, aux)` for each value; the last `aux` is kept, `trial.aux`.
      progress: whether it is shown how far it is, in trials.

    Returns:
      The trials, the best first. A configuration whose value is no scalar or not finite has failed and is last, and a
      warning says so. If it is interrupted from the keyboard, the trials that have ended.

    Raises:
      TypeError: if the objective does not take what the space has, or needs what it has not.
      ValueError: if a number is not positive, or a mode does not exist.

    Example:
      >>> from tracegrad import train
      >>> space = {"learning_rate": train.log_uniform(1e-4, 1.0), "momentum": [0.0, 0.9]}
      >>> def objective(learning_rate, momentum):
      ...     return (learning_rate - 0.01) ** 2 + momentum
      >>> results = train.random_search(objective, space, num_samples=4)
      >>> print(results)
      trial  learning_rate  momentum      value  state
      ---------------------------------------------------
      ...
      >>> results.best_params["momentum"]
      0.0
    """
    found = space_of(space)
    _at_least_one(num_samples=num_samples)
    search = _Search(objective, found, mode, seed, num_seeds, vmap, batch_size, stopping, has_aux, progress)
    search.run(_drawn(found, num_samples, np.random.default_rng(search.seed)))
    return search.results()


def grid_search(
    objective: Callable[..., Any],
    space: Space,
    num: int | Mapping[str, int] = 5,
    *,
    mode: Mode = "min",
    seed: int = 0,
    num_seeds: int = 1,
    vmap: bool = False,
    batch_size: int | None = None,
    stopping: MedianStopping | None = None,
    has_aux: bool = False,
    progress: bool = True,
) -> SearchResults:
    """Tries all combinations of values, and ranks them. The rest is as in `random_search`.

    Args:
      objective: what is minimized.
      space: by name, lists of values, or ranges.
      num: how many values of a range, at equal distances, of its logarithm for `log_uniform`; for all ranges, or for
        each by name.
      mode, seed, num_seeds, vmap, batch_size, stopping, has_aux, progress: as in `random_search`.

    Example:
      >>> from tracegrad import train
      >>> space = {"rate": train.log_uniform(0.01, 1.0), "power": [1, 2]}
      >>> train.grid_search(lambda rate, power: abs(rate - 0.3) ** power, space, num=3)
      trial  rate  power   value  state
      ------------------------------------
          3   0.1      2    0.04  complete
          1  0.01      2  0.0841  complete
          2   0.1      1     0.2  complete
          0  0.01      1    0.29  complete
          5     1      2    0.49  complete
          4     1      1     0.7  complete
    """
    found = space_of(space)
    counts = dict(num) if isinstance(num, Mapping) else {name: num for name, p in found.items() if isinstance(p, Range)}
    for name, part in found.items():
        if isinstance(part, Range):
            _at_least_one(**{f"num[{name!r}]" if isinstance(num, Mapping) else "num": counts.get(name)})
    unknown = [name for name in counts if not isinstance(found.get(name), Range)]
    if unknown:
        raise ValueError(f"{called()}: num has {unknown[0]!r}, and the space has no such range {here()}.")
    values = [list(p.options) if isinstance(p, Choice) else p.grid(counts[name]) for name, p in found.items()]
    search = _Search(objective, found, mode, seed, num_seeds, vmap, batch_size, stopping, has_aux, progress)
    search.run([dict(zip(found, each, strict=True)) for each in itertools.product(*values)])
    return search.results()


def coarse_to_fine(
    objective: Callable[..., Any],
    space: Space,
    num_samples: int = 10,
    *,
    rounds: int = 3,
    fraction: float = 0.25,
    mode: Mode = "min",
    seed: int = 0,
    num_seeds: int = 1,
    vmap: bool = False,
    batch_size: int | None = None,
    stopping: MedianStopping | None = None,
    has_aux: bool = False,
    progress: bool = True,
) -> SearchResults:
    """Random search in rounds, each in the part of the space where the best ones of all before were.

    Args:
      objective: what is minimized.
      space: as in `random_search`.
      num_samples: how many configurations a round has.
      rounds: how many rounds.
      fraction: the best trials of all, as many as this part of a round, decide where the next round searches.
      mode, seed, num_seeds, vmap, batch_size, stopping, has_aux, progress: as in `random_search`.

    Returns:
      The trials of all rounds, the best first.

    Example:
      >>> from tracegrad import train
      >>> space = {"rate": train.log_uniform(1e-6, 1.0)}
      >>> results = train.coarse_to_fine(lambda rate: abs(rate - 1e-3), space, num_samples=8)
      >>> len(results), results.best_value < 1e-4
      (24, True)
    """
    found = space_of(space)
    _at_least_one(num_samples=num_samples, rounds=rounds)
    search = _Search(objective, found, mode, seed, num_seeds, vmap, batch_size, stopping, has_aux, progress)
    rng = np.random.default_rng(search.seed)
    now: Mapping[str, Range | Choice] = found
    most = math.ceil(_part(fraction) * num_samples)
    for _ in range(rounds):
        best = [trial for trial in search.results(tell=False) if trial.state == "complete"][:most]
        if best:
            now = _narrowed(now, best, search.trials, num_samples)
        if not search.run(_drawn(now, num_samples, rng)):
            break
    return search.results()


def narrow(results: SearchResults, fraction: float = 0.25) -> dict[str, Range | Choice]:
    """The part of a space where the best trials of a search are, for a finer one.

    Of a range, from the least to the greatest value of the best, and on each side to the next value that was tried, or
    by as much as values lie apart on the average if that is more; of a choice, the values that are among the best.

    Args:
      results: of a search.
      fraction: which part of the complete trials are the best ones.

    Raises:
      ValueError: if no trial is complete, or `fraction` is not above 0 and at most 1.

    Example:
      >>> from tracegrad import train
      >>> results = train.grid_search(lambda rate: abs(rate - 3.0), {"rate": train.uniform(0.0, 9.0)}, num=10)
      >>> train.narrow(results, fraction=0.3)["rate"].low < 2.0
      True
    """
    if not isinstance(results, SearchResults):
        raise TypeError(f"{called()}: results is {describe(results)} {here()}. Give the results of a search.")
    complete = [trial for trial in results if trial.state == "complete"]
    if not complete:
        raise ValueError(f"{called()}: none of the {len(results)} trials is complete {here()}.")
    return _narrowed(results.space, complete[: math.ceil(_part(fraction) * len(complete))], results, len(complete))


def _narrowed(
    space: Mapping[str, Range | Choice], best: Sequence[Trial], tried: Sequence[Trial], num: int
) -> dict[str, Range | Choice]:
    """The part of a space where the best ones of `num` trials are."""
    found: dict[str, Range | Choice] = {}
    for name, part in space.items():
        values = [trial.params[name] for trial in best]
        if isinstance(part, Range):
            found[name] = part.around(values, [trial.params[name] for trial in tried], 1 / (num + 1))
        else:
            found[name] = Choice(tuple(v for v in part.options if any(v is w or v == w for w in values)))
    return found


# -- the engine


class _Running:
    """A trial while it runs."""

    def __init__(self, number: int, params: Config) -> None:
        self.number, self.params = number, params
        self.state, self.reason = "complete", ""
        self.reports: list[float] = []
        self.values: tuple[float, ...] = ()
        self.aux: tuple[Any, ...] = ()
        self.done = False

    def ended(self) -> Trial:
        value = math.nan if self.state == "failed" else self.reports[-1]
        return Trial(
            self.number,
            self.params,
            self.state,
            value,
            self.values,
            tuple(self.reports),
            tuple(aux.take() if isinstance(aux, _Row) else aux for aux in self.aux),
            self.reason,
        )


class _Search:
    """Runs configurations of one objective; what was compiled for some of them serves for the next."""

    def __init__(
        self,
        objective: Callable[..., Any],
        space: Mapping[str, Range | Choice],
        mode: Mode,
        seed: int,
        num_seeds: int,
        together: bool,
        batch_size: int | None,
        stopping: MedianStopping | None,
        has_aux: bool,
        progress: bool,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"{called()}: mode={mode!r} {here()}. Choose 'min' or 'max'.")
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"{called()}: seed={seed!r} {here()}. Give an integer, 0 or more.")
        if stopping is not None and not isinstance(stopping, MedianStopping):
            raise TypeError(f"{called()}: stopping is {describe(stopping)} {here()}. Give train.MedianStopping().")
        if batch_size is not None:
            _at_least_one(batch_size=batch_size)
        _at_least_one(num_seeds=num_seeds)
        self.objective, self.space, self.mode, self.seed = objective, space, mode, int(seed)
        self.stopping, self.has_aux, self.together = stopping, has_aux, together
        takes_seed = _check_names(objective, space)
        if num_seeds > 1 and not takes_seed:
            raise TypeError(
                f"{called()}: num_seeds={num_seeds}, and {name_of(objective)} has no parameter seed {here()}. Give it "
                "one, and draw all that is random from tracegrad.random.key(seed)."
            )
        if together and inspect.isgeneratorfunction(objective):
            raise TypeError(
                f"{called()}: {name_of(objective)} is a generator, and vmap=True traces it as a whole {here()}. Write "
                "it as train.Stepwise(init, step, num_steps), or leave vmap=False."
            )
        self.seeds = [self.seed + i for i in range(num_seeds)] if takes_seed else []
        runs = max(1, len(self.seeds))
        self.group_size = None if batch_size is None else max(1, batch_size // runs)
        self.programs: dict[Any, Callable[..., Any]] = {}
        self.trials: list[Trial] = []
        self.progress = progress

    def run(self, configs: Sequence[Config]) -> bool:
        """Runs these, and returns whether all of them have ended."""
        running = [_Running(len(self.trials) + i, config) for i, config in enumerate(configs)]
        total = len(self.trials) + len(configs)
        try:
            with Progress(total, len(self.trials)) if self.progress else contextlib.nullcontext() as progress:
                for group in self._groups(running):
                    self._run_group(group)
                    self.trials += [trial.ended() for trial in group]
                    if progress is not None:
                        best = self.results(tell=False).trials[0]
                        progress.update(len(self.trials), {"best": best.value} if best.state == "complete" else None)
        except KeyboardInterrupt:
            if not self.trials:
                raise
            warn(f"{called()}: interrupted after {len(self.trials)} trials {here()}")
            return False
        return True

    def results(self, tell: bool = True) -> SearchResults:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed and tell:
            some = "; ".join(f"trial {t.number} ({_named(t.params)}) {t.reason}" for t in failed[:3])
            more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
            warn(
                f"{called()}: {len(failed)} of {len(self.trials)} configurations failed, and rank last: {some}{more} "
                f"{here()}"
            )
        return SearchResults(tuple(self.trials), self.space, self.mode)

    def _groups(self, running: list[_Running]) -> list[list[_Running]]:
        if not self.together:
            return [[trial] for trial in running]
        alike: dict[Any, list[_Running]] = {}
        for trial in running:
            alike.setdefault(_key(_static(trial.params)), []).append(trial)
        size = self.group_size or max(len(running), 1)
        return [group[i : i + size] for group in alike.values() for i in range(0, len(group), size)]

    def _run_group(self, group: list[_Running]) -> None:
        """Runs trials side by side, report by report."""
        runs = max(1, len(self.seeds))
        reports = self._mapped(group) if self.together else self._alone(group[0])
        keep: list[bool] | None = None
        try:
            while True:
                made, last = next(reports) if keep is None else reports.send(keep)
                for i, trial in enumerate(group):
                    if not trial.done:
                        self._take(trial, made[i * runs : (i + 1) * runs])
                if not last:
                    self._stop(group)
                keep = [not trial.done for trial in group]
        except StopIteration:
            return
        except Exception as error:
            one = f"trial {group[0].number} ({_named(group[0].params)})"
            several = f"the {len(group)} trials that train with {one}" if len(group) > 1 else one
            error.add_note(f"This was in {several}; {len(self.trials)} trials had ended before.")
            raise
        finally:
            reports.close()

    def _stop(self, group: list[_Running]) -> None:
        if self.stopping is None:
            return
        before = [t.reports for t in self.trials if t.state != "failed"]
        going = [trial for trial in group if not trial.done]
        for trial in going:
            others = [t.reports for t in group if t is not trial and t.state != "failed"]
            if self.stopping.stops(trial.reports, [*before, *others], self.mode):
                trial.done, trial.state = True, "stopped"

    def _take(self, trial: _Running, made: Sequence[Any]) -> None:
        """One more report of a trial, a value for each of its seeds."""
        values, aux = [], []
        for seed, out in zip(self.seeds or _UNSEEDED, made, strict=True):
            of = "" if seed is None or len(self.seeds) == 1 else f" for seed {seed}"
            if self.has_aux:
                if not isinstance(out, tuple) or len(out) != 2:
                    trial.reason = f"gave {describe(out)}{of}, not a pair (value, aux)"
                    break
                out, beside = out
                aux.append(beside)
            value, wrong = _scalar(out)
            if wrong:
                trial.reason = f"gave {wrong}{of}"
                break
            values.append(value)
        if trial.reason:
            trial.state, trial.done = "failed", True
            trial.values = ()
            return
        trial.values, trial.aux = tuple(values), tuple(aux)
        trial.reports.append(float(np.mean(values)))

    def _alone(self, trial: _Running) -> Reports:
        """The reports of one trial, whose seeds run side by side."""
        calls = [{**trial.params, "seed": seed} for seed in self.seeds] or [dict(trial.params)]
        made = [self.objective(**call) for call in calls]
        if not all(isinstance(out, Generator) for out in made):
            if self.stopping is not None:
                raise TypeError(
                    f"{called()}: stopping needs values on the way, and {name_of(self.objective)} returned "
                    f"{describe(made[0])} {here()}. Let it yield them, or use train.Stepwise."
                )
            yield made, True
            return
        # One that has ended keeps its last value while the others go on.
        last: list[Any] = [None] * len(made)
        going, empty = dict(enumerate(made)), True
        while going:
            for i, run in list(going.items()):
                try:
                    last[i] = next(run)
                except StopIteration as end:
                    del going[i]
                    if end.value is not None:
                        raise TypeError(
                            f"{called()}: {name_of(self.objective)} yields values and returns {describe(end.value)} "
                            f"{here()}. The last value that it yields is the result: yield that one too."
                        ) from None
            if going or empty:
                keep = yield list(last), False
                if not all(keep):
                    break
            empty = False
        for run in made:
            run.close()

    def _mapped(self, group: list[_Running]) -> Reports:
        """The reports of trials that are one program."""
        rows = [(trial, seed) for trial in group for seed in self.seeds or _UNSEEDED]
        static, first = _static(group[0].params), group[0].params
        arrays: dict[str, Any] = {
            name: np.asarray([trial.params[name] for trial, _ in rows], float) for name in first if name not in static
        }
        if self.seeds:
            arrays["seed"] = np.asarray([seed for _, seed in rows], np.int32)
        if isinstance(self.objective, Stepwise):
            yield from self._steps(self.objective, static, arrays, len(rows), len(rows) // len(group))
            return
        if self.stopping is not None:
            raise TypeError(
                f"{called()}: stopping needs values on the way, and with vmap=True {name_of(self.objective)} is one "
                f"program to its end {here()}. Write it as train.Stepwise(init, step, num_steps)."
            )
        program = self._program("objective", self.objective, static)
        yield self._rows(program(np.arange(len(rows)), arrays), len(rows)), True

    def _steps(self, objective: Stepwise, static: Config, arrays: dict[str, Any], count: int, runs: int) -> Reports:
        init, step = (self._program(name, getattr(objective, name), static) for name in ("init", "step"))
        rows = np.arange(count)
        state = init(rows, arrays)
        last: list[Any] = [None] * count
        for i in range(objective.num_steps):
            state, made = step(rows, arrays, state)
            for row, out in zip(rows, self._rows(made, len(rows)), strict=True):
                last[row] = out
            keep = yield list(last), i == objective.num_steps - 1
            wanted = [j for j, row in enumerate(rows) if keep[int(row) // runs]]
            if not wanted:
                return
            # Each other number of rows is another program: so their number halves.
            if len(wanted) <= len(rows) // 2:
                rows, arrays, state = jax.tree.map(lambda a: a[np.asarray(wanted)], (rows, arrays, state))  # noqa: B023

    def _program(self, name: str, fun: Callable[..., Any], static: Config) -> Callable[..., Any]:
        """The compiled function of rows, what varies among them, and the state, if there is one."""
        key = (name, _key(static))
        if key not in self.programs:

            def row(number: Any, arrays: Any, *state: Any) -> Any:
                params = {**static, **arrays}
                return fun(*state, **(_taken(fun, params, len(state)) if name != "objective" else params))

            row.__name__ = name_of(fun)
            self.programs[key] = jit(batching.vmap(row))
        return self.programs[key]

    def _rows(self, made: Any, count: int) -> list[Any]:
        """What each row of a program gave. The values are fetched at once, and what is beside them when it is kept."""
        if self.has_aux and isinstance(made, tuple) and len(made) == 2:
            value, aux = jax.device_get(made[0]), made[1]
            return [(jax.tree.map(lambda a: a[i], value), _Row(aux, i)) for i in range(count)]  # noqa: B023
        made = jax.device_get(made)
        return [jax.tree.map(lambda a: a[i], made) for i in range(count)]  # noqa: B023


@dataclass(frozen=True)
class _Row:
    stacked: Any
    index: int

    def take(self) -> Any:
        return jax.tree.map(lambda a: a[self.index], self.stacked)


def _drawn(space: Mapping[str, Range | Choice], num: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    return [{name: part.sample(rng) for name, part in space.items()} for _ in range(num)]


def _static(params: Config) -> dict[str, Any]:
    """The hyperparameters that are part of a program."""
    return {name: value for name, value in params.items() if not isinstance(value, (float, np.floating))}


def _key(static: Config) -> Any:
    def of(value: Any) -> Any:
        try:
            hash(value)
        except TypeError:
            return id(value)
        return type(value), value

    return tuple((name, of(value)) for name, value in static.items())


def _names(fun: Callable[..., Any], skip: int = 0) -> tuple[dict[str, bool], bool]:
    """What can be given by name, and whether it must be; and whether any name can."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except ValueError:
        return {}, True
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {p.name: p.default is inspect.Parameter.empty for p in parameters[skip:] if p.kind in kinds}
    return named, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _taken(fun: Callable[..., Any], params: Config, skip: int = 0) -> dict[str, Any]:
    named, any_name = _names(fun, skip)
    return {name: value for name, value in params.items() if any_name or name in named}


def _check_names(objective: Any, space: Config) -> bool:
    """Whether the objective takes a seed; an error if it and the space do not fit."""
    if not callable(objective):
        raise TypeError(f"{called()}: objective is {describe(objective)}, which is not a function {here()}.")
    if isinstance(objective, Stepwise):
        parts = [_names(objective.init), _names(objective.step, 1)]
        label = "the init and the step of the Stepwise"
    else:
        parts, label = [_names(objective)], name_of(objective)
    named = {name: any(p.get(name, False) for p, _ in parts) for p, _ in parts for name in p}
    if not any(any_name for _, any_name in parts):
        unknown = [name for name in space if name not in named]
        if unknown:
            raise TypeError(
                f"{called()}: the space has {unknown[0]!r}, which {label} does not take {here()}. It takes "
                f"{', '.join(named) or 'nothing'}."
            )
    missing = [name for name, needed in named.items() if needed and name not in space and name != "seed"]
    if missing:
        raise TypeError(
            f"{called()}: {label} needs {missing[0]!r}, which the space does not have {here()}. Add it, with one value "
            f"as [value], or give it a default. The space has {', '.join(space)}."
        )
    return "seed" in named and "seed" not in space


def _scalar(value: Any) -> tuple[float, str]:
    """A value as a float, or what is wrong with it."""
    shape = np.shape(value) if not isinstance(value, (dict, list, tuple)) else (1,)
    array = None if shape else np.asarray(value)
    if array is None or (array.dtype.kind not in "iufb" and not tnp.issubdtype(array.dtype, np.floating)):
        return math.nan, f"{describe(value)}, which is no scalar"
    number = float(array)
    return number, "" if math.isfinite(number) else f"{number}, which is not finite"


def _part(fraction: Any) -> float:
    if not isinstance(fraction, (int, float)) or not 0 < fraction <= 1:
        raise ValueError(f"{called()}: fraction={fraction!r} {here()}. Give a number above 0, and 1 at most.")
    return float(fraction)


def _named(params: Config) -> str:
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _at_least_one(**counts: Any) -> None:
    for name, value in counts.items():
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{called()}: {name}={value!r} {here()}. Give an integer, 1 or more.")


__all__ = ["MedianStopping", "Stepwise", "coarse_to_fine", "grid_search", "narrow", "random_search"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
