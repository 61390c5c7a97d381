"""Searches: what is drawn and tried, what is stopped and what failed, many trainings as one, results, ensembles."""

from __future__ import annotations

import inspect
import math
import re
import statistics

import jax
import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optimizers, train

X = np.linspace(-1.0, 1.0, 24, dtype=np.float32)
Y = 3.0 * X - 1.0


def regression(learning_rate, power=2, *, seed):
    """The loss of a line after 20 steps, from a random slope."""

    def loss(w):
        return (abs(w[0] * X + w[1] - Y) ** power).mean()

    optimizer = optimizers.sgd(learning_rate)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(tg.grad(loss)(w), state, w)
        return (optimizers.apply_updates(w, updates), state), None

    w = tg.random.normal(tg.random.key(seed), (2,))
    (w, _), _ = tg.scan(step, (w, optimizer.init(w)), None, length=20)
    return loss(w)


def by_hand(learning_rate, seed):
    """What `regression` gives with power 2, in float64."""
    w = np.asarray(jax.random.normal(jax.random.key(seed), (2,)), float)
    x, y = X.astype(float), Y.astype(float)
    for _ in range(20):
        error = w[0] * x + w[1] - y
        w = w - learning_rate * np.array([2 * (error * x).mean(), 2 * error.mean()])
    return float(((w[0] * x + w[1] - y) ** 2).mean())


# -- spaces


@pytest.mark.parametrize(
    ("space", "low", "high", "quantile"),
    [
        (train.uniform(-2.0, 6.0), -2.0, 6.0, lambda v: (v + 2) / 8),
        (train.log_uniform(1e-4, 1e-1), 1e-4, 1e-1, lambda v: (np.log10(v) + 4) / 3),
    ],
)
def test_floats_are_even(space, low, high, quantile) -> None:
    rng = np.random.default_rng(0)
    values = np.array([space.sample(rng) for _ in range(4000)])
    assert low <= values.min() and values.max() <= high
    # Kolmogorov and Smirnov's statistic, at one in a thousand.
    places = np.sort(quantile(values))
    assert np.abs(places - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / math.sqrt(4000)


def test_integers_and_choices_are_all_drawn_equally_often() -> None:
    rng = np.random.default_rng(0)
    for part, wanted in ((train.integers(3, 6), [3, 4, 5, 6]), (train.choice(["a", "b"]), ["a", "b"])):
        values = [part.sample(rng) for _ in range(4000)]
        counts = {v: values.count(v) for v in set(values)}
        assert sorted(counts) == wanted
        assert all(type(v) is type(wanted[0]) for v in values)
        # Three and a half standard deviations of a binomial.
        p = 1 / len(wanted)
        assert max(abs(n - 4000 * p) for n in counts.values()) < 3.5 * math.sqrt(4000 * p * (1 - p))


def test_integers_even_in_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    values = np.array([train.log_integers(1, 100).sample(rng) for _ in range(4000)])
    assert values.min() == 1 and values.max() == 100
    # An integer n is as likely as log((n + 1/2) / (n - 1/2)) says.
    share = math.log(10.5 / 0.5) / math.log(100.5 / 0.5)
    assert abs((values <= 10).mean() - share) < 0.03


LOG = train.log_uniform


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: LOG(-1e-4, 1e-1), ValueError, ["log_uniform", "low=-0.0001", "no logarithm", "uniform(-0.0001, 0.1)"]),
        (lambda: LOG(0, 1), ValueError, ["log_uniform", "low=0", "above 0"]),
        (lambda: train.log_integers(0, 8), ValueError, ["log_integers", "low=0", "integers(0, 8)"]),
        (lambda: train.uniform(2.0, 1.0), ValueError, ["uniform", "low=2.0", "high=1.0", "smaller"]),
        (lambda: train.integers(3, 3), ValueError, ["integers", "low=3 is not below high=3"]),
        (lambda: train.uniform(0.0, math.inf), ValueError, ["uniform", "high=inf", "finite"]),
        (lambda: train.uniform(math.nan, 1.0), ValueError, ["uniform", "low=nan", "finite"]),
        (lambda: train.uniform("a", 1.0), TypeError, ["uniform", "low is str 'a'", "number"]),
        (lambda: train.integers(0.5, 2), TypeError, ["integers", "low", "integer"]),
        (lambda: train.uniform(False, 1.0), TypeError, ["uniform", "low"]),
        (lambda: train.choice([]), ValueError, ["choice", "empty"]),
        (lambda: train.choice("abc"), TypeError, ["choice", "str 'abc'", "list"]),
        (lambda: train.choice(0.5), TypeError, ["choice", "list"]),
    ],
)
def test_a_bad_space(call, error, parts) -> None:
    with pytest.raises(error) as caught:
        call()
    for part in [*parts, "test_search.py"]:
        assert part in str(caught.value), str(caught.value)


# -- searches of Python functions


def test_random_search_ranks_what_it_drew() -> None:
    space = {"a": train.log_uniform(1e-3, 1.0), "b": [1, 2, 4], "c": train.uniform(-1.0, 1.0)}
    seen = []

    def objective(a, b, c):
        seen.append({"a": a, "b": b, "c": c})
        return a * b + c

    results = train.random_search(objective, space, num_samples=12, seed=3)
    assert len(results) == len(seen) == 12
    assert [t.value for t in results] == sorted(t.value for t in results)
    assert all(
        dict(t.params) == seen[t.number] and t.value == t.params["a"] * t.params["b"] + t.params["c"] for t in results
    )
    assert results.best_params == results[0].params == results.best_trial.params
    assert results.best_value == results[0].value

    greatest = train.random_search(objective, space, num_samples=20, seed=3, mode="max")
    assert [t.value for t in greatest] == sorted((t.value for t in greatest), reverse=True)
    # More samples begin with the same ones; another seed draws others.
    by_number = sorted(greatest, key=lambda t: t.number)
    assert [dict(t.params) for t in by_number[:12]] == seen[:12]
    assert train.random_search(objective, space, num_samples=1, seed=4)[0].params != seen[0]


def test_grid_search_tries_all_combinations() -> None:
    space = {
        "rate": train.log_uniform(1e-3, 1e1),
        "x": train.uniform(0.0, 1.0),
        "n": train.integers(1, 3),
        "s": ["a", "b"],
    }
    results = train.grid_search(lambda rate, x, n, s: rate + x + n, space, num={"rate": 5, "x": 3, "n": 9})
    tried = {tuple(t.params.values()) for t in results}
    assert len(results) == len(tried) == 5 * 3 * 3 * 2
    np.testing.assert_allclose(sorted({t[0] for t in tried}), [1e-3, 1e-2, 1e-1, 1e0, 1e1], rtol=1e-12)
    assert sorted({t[1] for t in tried}) == [0.0, 0.5, 1.0]
    assert sorted({t[2] for t in tried}) == [1, 2, 3] and {t[3] for t in tried} == {"a", "b"}
    assert dict(results.best_params) == {"rate": 1e-3, "x": 0.0, "n": 1, "s": "a"}


def test_coarse_to_fine_closes_in() -> None:
    """On a bowl in logarithms, each round's range is inside the one before, and has the least point."""
    space = {"rate": train.log_uniform(1e-6, 1.0), "width": train.integers(4, 400), "kind": ["x", "y"]}

    def bowl(rate, width, kind):
        return math.log10(rate / 1e-3) ** 2 + ((width - 100) / 100) ** 2 + (kind == "y")

    wins = 0
    for seed in range(5):
        fine = train.coarse_to_fine(bowl, space, num_samples=12, rounds=3, seed=seed)
        coarse = train.random_search(bowl, space, num_samples=36, seed=seed)
        assert sorted(t.number for t in fine) == list(range(36))
        first, *_, last = (
            [abs(math.log10(t.params["rate"] / 1e-3)) for t in fine if t.number // 12 == i] for i in range(3)
        )
        assert statistics.median(last) < 0.6 * statistics.median(first)
        assert all(type(t.params["width"]) is int and 4 <= t.params["width"] <= 400 for t in fine)
        wins += fine.best_value < coarse.best_value
    assert wins >= 4


def test_narrow_reaches_to_the_neighbours_of_the_best() -> None:
    results = train.grid_search(lambda x, k: abs(x - 4.0) + k, {"x": train.uniform(0.0, 10.0), "k": [0, 9]}, num=11)
    part = train.narrow(results, fraction=3 / 22)  # the best three: 3, 4 and 5
    assert (part["x"].low, part["x"].high) == pytest.approx((2.0, 6.0))
    assert part["k"] == train.choice([0])
    assert train.narrow(results, 1.0) == results.space


def test_the_seeds_of_an_objective() -> None:
    calls = []

    def objective(x, seed):
        calls.append((x, seed))
        return x + seed

    results = train.grid_search(objective, {"x": [10, 20]}, seed=5, num_seeds=3)
    assert calls == [(10, 5), (10, 6), (10, 7), (20, 5), (20, 6), (20, 7)]
    assert results[0].values == (15.0, 16.0, 17.0) and results[0].value == 16.0
    assert "std" in repr(results) and "0.8165" in repr(results)
    # Where the space has it, it is a hyperparameter like others.
    assert {t.params["seed"] for t in train.grid_search(objective, {"x": [1], "seed": [3, 4]})} == {3, 4}


def test_progress(capsys) -> None:
    train.grid_search(lambda x: x, {"x": [3.0, 2.0]})
    assert re.search(r"step 2/2 \(100%\), .*best 2\n$", capsys.readouterr().err)
    train.grid_search(lambda x: x, {"x": [3.0, 2.0]}, progress=False)
    assert capsys.readouterr().err == ""


# -- what fails


def test_what_is_no_finite_scalar_has_failed_and_is_last() -> None:
    given = {
        0: math.nan,
        1: -math.inf,
        2: np.zeros(3),
        3: "text",
        4: None,
        5: 2.0,
        6: np.float32(1.0),
        7: {"loss": 1.0},
    }
    given |= {8: tg.numpy.asarray(3), 9: 1j, 10: (1.0, 2.0)}
    with pytest.warns(
        UserWarning, match=r"grid_search: 8 of 11 configurations failed.*trial 0 \(i=0\) gave nan"
    ) as caught:
        results = train.grid_search(lambda i: given[i], {"i": list(given)})
    assert "test_search.py" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert [t.params["i"] for t in results] == [6, 5, 8, 0, 1, 2, 3, 4, 7, 9, 10]
    assert [t.state for t in results] == ["complete"] * 3 + ["failed"] * 8
    reasons = {t.params["i"]: t.reason for t in results}
    assert "nan, which is not finite" in reasons[0] and "-inf" in reasons[1]
    assert "float64[3]" in reasons[2] or "f64[3]" in reasons[2] or "f32[3]" in reasons[2], reasons[2]
    assert all("no scalar" in reasons[i] for i in (2, 3, 4, 7, 9, 10))
    assert all(math.isnan(t.value) for t in results[3:])
    text = repr(results)
    assert "failed: gave nan, which is not finite" in text and results.best_value == 1.0


def test_all_have_failed() -> None:
    with pytest.warns(UserWarning, match="2 of 2 configurations failed"):
        results = train.grid_search(lambda x: math.nan, {"x": [1, 2]})
    with pytest.raises(ValueError, match=r"none of the 2 trials is complete .*test_search.*gave nan"):
        _ = results.best_params
    with pytest.raises(ValueError, match="narrow: none of the 2 trials"):
        train.narrow(results)
    with pytest.raises(ValueError, match=r"SearchResults.plot: all 2 trials failed"):
        results.plot()
    with pytest.warns(UserWarning, match="6 of 6"):
        assert len(train.coarse_to_fine(lambda x: math.nan, {"x": [1, 2]}, num_samples=2)) == 6


def test_an_error_in_an_objective_says_in_which_trial() -> None:
    def objective(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        train.grid_search(objective, {"x": [1, 0]})
    assert caught.value.__notes__ == ["This was in trial 1 (x=0); 1 trials had ended before."]


def test_an_interrupt_keeps_what_has_ended() -> None:
    def objective(x):
        if x == 3:
            raise KeyboardInterrupt
        return x

    with pytest.warns(UserWarning, match="grid_search: interrupted after 2 trials"):
        results = train.grid_search(objective, {"x": [1, 2, 3, 4]})
    assert [t.value for t in results] == [1.0, 2.0]


def f(x, y=1.0):
    return x


STEPS = train.Stepwise(lambda seed: 0.0, lambda state, x: (state, x), 2)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: train.random_search(f, {"z": [1]}), TypeError, ["random_search", "'z'", "f does not take", "x, y"]),
        (lambda: train.grid_search(f, {"y": [1]}), TypeError, ["grid_search", "f needs 'x'", "[value]"]),
        (lambda: train.random_search(STEPS, {"z": [1]}), TypeError, ["'z'", "Stepwise does not take", "seed, x"]),
        (lambda: train.random_search(f, {}), TypeError, ["random_search", "space is dict {}", "log_uniform"]),
        (lambda: train.random_search(f, [1]), TypeError, ["space is list"]),
        (lambda: train.random_search(f, {"x": 0.1}), TypeError, ["space['x']", "[value]"]),
        (lambda: train.random_search(f, {"x": "ab"}), TypeError, ["space['x']", "str 'ab'"]),
        (lambda: train.random_search(f, {"x": []}), ValueError, ["random_search", "space['x'] is empty"]),
        (lambda: train.random_search(1, {"x": [1]}), TypeError, ["objective is", "not a function"]),
        (lambda: train.random_search(f, {"x": [1]}, 0), ValueError, ["num_samples=0", "1 or more"]),
        (lambda: train.random_search(f, {"x": [1]}, mode="least"), ValueError, ["mode='least'", "'min'", "'max'"]),
        (lambda: train.random_search(f, {"x": [1]}, seed=-1), ValueError, ["seed=-1"]),
        (lambda: train.random_search(f, {"x": [1]}, num_seeds=2), TypeError, ["num_seeds=2", "no parameter seed"]),
        (lambda: train.random_search(f, {"x": [1]}, batch_size=0), ValueError, ["batch_size=0"]),
        (lambda: train.random_search(f, {"x": [1]}, stopping=True), TypeError, ["stopping", "MedianStopping()"]),
        (
            lambda: train.random_search(f, {"x": [1]}, stopping=train.MedianStopping()),
            TypeError, ["stopping needs values on the way", "f returned", "Stepwise"],
        ),
        (
            lambda: train.random_search(f, {"x": [1]}, stopping=train.MedianStopping(), vmap=True),
            TypeError, ["stopping", "one program to its end", "Stepwise"],
        ),
        (lambda: train.random_search(STEPS.__class__.__call__, {"self": [STEPS]}, vmap=True), TypeError, ["generator"]),
        (lambda: train.grid_search(f, {"x": train.uniform(0, 1)}, {"q": 3}), ValueError, ["num['x']=None"]),
        (lambda: train.grid_search(f, {"x": [1]}, {"x": 3}), ValueError, ["num has 'x'", "no such range"]),
        (lambda: train.coarse_to_fine(f, {"x": [1]}, rounds=0), ValueError, ["coarse_to_fine", "rounds=0"]),
        (lambda: train.coarse_to_fine(f, {"x": [1]}, fraction=0.0), ValueError, ["coarse_to_fine", "fraction=0.0"]),
        (lambda: train.narrow([1]), TypeError, ["narrow", "results is list"]),
        (lambda: train.MedianStopping(min_samples=0), ValueError, ["MedianStopping", "min_samples=0"]),
        (lambda: train.Stepwise(f, f, 0), ValueError, ["Stepwise", "num_steps=0"]),
        (lambda: train.Stepwise(f, 1, 2), TypeError, ["Stepwise", "step is", "not a function"]),
    ],
)  # fmt: skip
def test_bad_input(call, error, parts) -> None:
    with pytest.raises(error) as caught:
        call()
    for part in [*parts, "test_search.py"]:
        assert part in str(caught.value), str(caught.value)


# -- stopping


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_median_rule(mode) -> None:
    """Against the rule of Golovin et al., written out."""
    rng = np.random.default_rng(0)
    rule = train.MedianStopping(grace_period=2, min_samples=3)
    outcomes = set()
    for _ in range(200):
        others = [rng.normal(size=rng.integers(1, 6)).tolist() for _ in range(rng.integers(0, 7))]
        own = (rng.normal(size=rng.integers(1, 5)) + (0.4 if mode == "min" else -0.4)).tolist()
        long = [other for other in others if len(other) >= len(own)]
        expected = False
        if len(own) >= 2 and len(long) >= 3:
            median = statistics.median(sum(other[: len(own)]) / len(own) for other in long)
            expected = min(own) > median if mode == "min" else max(own) < median
        assert rule.stops(own, others, mode) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}


def curve(x):
    """A loss that falls to x: what is bad stays bad."""
    for i in range(1, 9):
        curve.steps += 1
        yield x + 0.1 / i


def test_what_yields_can_be_stopped() -> None:
    space = {"x": train.uniform(0.0, 1.0)}
    curve.steps = 0
    whole = train.random_search(curve, space, num_samples=20)
    assert curve.steps == 160 and {t.state for t in whole} == {"complete"}
    assert whole[0].reports == pytest.approx([whole[0].params["x"] + 0.1 / i for i in range(1, 9)])
    assert whole[0].value == whole[0].reports[-1] == min(t.value for t in whole)
    curve.steps = 0
    stopped = train.random_search(curve, space, num_samples=20, stopping=train.MedianStopping())
    assert curve.steps == sum(len(t.reports) for t in stopped) < 120
    assert dict(stopped.best_params) == dict(whole.best_params)
    states = [t.state for t in stopped]
    assert states == sorted(states) and set(states) == {"complete", "stopped"}  # the complete ones come first
    assert re.search(r"steps +state\n", repr(stopped)) and "stopped" in repr(stopped)


def test_seeds_that_yield_go_side_by_side() -> None:
    order = []

    def objective(x, seed):
        for i in range(seed + 1):
            order.append((seed, i))
            yield x + 10 * seed + i

    result = train.grid_search(objective, {"x": [1.0]}, seed=1, num_seeds=2)[0]
    assert order == [(1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]
    assert result.reports == (16.0, 17.0, 17.5) and result.values == (12.0, 23.0)

    def fails(x, seed):
        yield 1.0
        yield math.nan if seed == 1 else 2.0
        raise AssertionError("a trial that has failed goes on")

    with pytest.warns(UserWarning, match="gave nan, which is not finite for seed 1"):
        failed = train.grid_search(fails, {"x": [1.0]}, num_seeds=2)
    assert failed[0].state == "failed" and failed[0].reports == (1.0,)

    def both(x):
        yield 1.0
        return 2.0

    with pytest.raises(TypeError, match=r"both yields values and returns f?.*yield that one too"):
        train.grid_search(both, {"x": [1.0]})

    def nothing(x):
        return
        yield

    with pytest.warns(UserWarning, match="gave NoneType None, which is no scalar"):
        train.grid_search(nothing, {"x": [1.0]})


# -- as one program


def test_seeds_and_configurations_train_as_one_program(compiles) -> None:
    space = {"learning_rate": train.log_uniform(1e-3, 0.5)}
    compiles()
    results = train.random_search(regression, space, num_samples=5, num_seeds=3, seed=1, vmap=True)
    together = compiles()
    assert [t.value for t in results] == sorted(t.value for t in results)
    for trial in results:
        expected = [by_hand(trial.params["learning_rate"], seed) for seed in (1, 2, 3)]
        np.testing.assert_allclose(trial.values, expected, rtol=2e-4, atol=1e-6)
        assert trial.value == pytest.approx(np.mean(expected), rel=2e-4, abs=1e-6)
    train.random_search(regression, space, num_samples=1, num_seeds=1, seed=1, vmap=True)
    assert together <= compiles(), "several are more programs than one is"
    # In parts the same, whatever is in one program.
    parts = train.random_search(regression, space, num_samples=5, num_seeds=3, seed=1, vmap=True, batch_size=6)
    np.testing.assert_allclose([t.value for t in parts], [t.value for t in results], rtol=1e-5)


def test_what_is_no_float_makes_programs_of_its_own() -> None:
    traced = []

    def objective(rate, width, kind, seed):
        traced.append((width, kind))
        x = tg.random.normal(tg.random.key(seed), (width,))
        return (rate * (x**2 if kind == "square" else abs(x))).sum()

    space = {"rate": train.uniform(0.0, 1.0), "width": [3, 5], "kind": ["square", "abs"]}
    results = train.grid_search(objective, space, num=4, num_seeds=2, vmap=True)
    assert sorted(traced) == [(3, "abs"), (3, "square"), (5, "abs"), (5, "square")]
    assert len(results) == 16
    for t in results:
        x = [np.asarray(jax.random.normal(jax.random.key(seed), (t.params["width"],)), float) for seed in (0, 1)]
        each = [(a**2 if t.params["kind"] == "square" else abs(a)).sum() * t.params["rate"] for a in x]
        np.testing.assert_allclose(t.values, each, rtol=1e-5)


def test_one_of_a_program_fails_alone() -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 configurations failed.*trial 0 \(x=0\) gave -inf"):
        results = train.grid_search(lambda x: tg.numpy.log(x), {"x": train.uniform(0.0, 2.0)}, num=3, vmap=True)
    assert [t.number for t in results] == [1, 2, 0] and results[2].state == "failed"
    with pytest.warns(UserWarning, match=r"3 of 3 .*gave float32\[2\]|gave f32\[2\]"):
        train.grid_search(lambda x: x * np.ones(2, np.float32), {"x": train.uniform(0.0, 2.0)}, num=3, vmap=True)


def rate_of(state, rate):
    w, count = state
    w = w - rate * 2 * (w - 1.0)
    return (w, count + 1), ((w - 1.0) ** 2, {"w": w, "count": count + 1})


def test_steps_of_many_trainings_and_those_that_are_stopped() -> None:
    objective = train.Stepwise(lambda seed: (tg.random.normal(tg.random.key(seed)) + 3.0, 0), rate_of, 6)
    space = {"rate": train.log_uniform(1e-3, 0.5)}
    options = {"num_samples": 8, "num_seeds": 2, "has_aux": True}
    alone = train.random_search(objective, space, **options)
    together = train.random_search(objective, space, vmap=True, **options)
    stopped = train.random_search(objective, space, vmap=True, stopping=train.MedianStopping(2), **options)
    for trial, same in zip(alone, together, strict=True):
        assert trial.params == same.params and trial.state == same.state == "complete"
        np.testing.assert_allclose(trial.reports, same.reports, rtol=1e-5)
        for seed, aux in zip((0, 1), trial.aux, strict=True):
            start = float(jax.random.normal(jax.random.key(seed))) + 3.0
            w = 1 + (start - 1) * (1 - 2 * trial.params["rate"]) ** 6
            np.testing.assert_allclose([float(a["w"]) for a in (aux, same.aux[seed])], w, rtol=1e-5)
            assert int(aux["count"]) == int(same.aux[seed]["count"]) == 6
    assert dict(stopped.best_params) == dict(together.best_params)
    rest = [t for t in stopped if t.state == "stopped"]
    assert len(rest) >= 3 and all(2 <= len(t.reports) < 6 for t in rest)
    whole = {t.number: t.reports for t in together}
    for t in stopped:
        np.testing.assert_allclose(t.reports, whole[t.number][: len(t.reports)], rtol=1e-5)
        assert all(int(aux["count"]) == len(t.reports) for aux in t.aux)


def test_aux_that_is_missing() -> None:
    with pytest.warns(UserWarning, match=r"not a pair \(value, aux\)"):
        train.grid_search(lambda x: x, {"x": [1.0]}, has_aux=True)


# -- results


def test_the_table_says_where_the_best_is_at_an_end() -> None:
    space = {"rate": train.log_uniform(1e-3, 1.0), "x": train.uniform(-1.0, 1.0)}
    text = repr(train.grid_search(lambda rate, x: x * x - rate, space, num=3))
    assert "rate: the best, 1, is at the end of log_uniform(0.001, 1.0). What is beyond may be better." in text
    assert "x: the best" not in text


def test_a_frame_of_pandas() -> None:
    pytest.importorskip("pandas")
    with pytest.warns(UserWarning, match="1 of 3"):
        frame = train.grid_search(lambda x, kind: x or math.nan, {"x": [2, 0, 1], "kind": ["a"]}).to_pandas()
    assert list(frame.columns) == ["trial", "x", "kind", "value", "std", "steps", "state", "reason"]
    assert frame["x"].tolist() == [1, 2, 0] and frame["state"].tolist() == ["complete", "complete", "failed"]
    assert frame["value"][:2].tolist() == [1.0, 2.0] and math.isnan(frame["value"][2])


def test_the_plot(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    space = {"x": train.log_uniform(1e-3, 1.0), "kind": ["a", "b"], "n": [1, 2]}

    def objective(x, kind, n):
        for i in range(4):
            yield x * n + (kind == "b") + 1 / (i + 1)

    results = train.random_search(objective, space, num_samples=12, stopping=train.MedianStopping())
    figure = results.plot(str(tmp_path / "search.png"))
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    axes = figure.axes
    assert [a.get_xlabel() for a in axes] == ["x", "kind", "n", "report"]
    assert [a.get_xscale() for a in axes] == ["log", "linear", "linear", "linear"]
    drawn = sorted(y for c in axes[0].collections[:-1] for y in c.get_offsets()[:, 1])
    np.testing.assert_allclose(drawn, sorted(t.value for t in results))
    (best,) = axes[0].collections[-1].get_offsets()
    assert tuple(best) == (results.best_params["x"], results.best_value)
    assert len(axes[3].lines) == 12
    for values, scale in (([0.01, 1.0], "log"), ([0.5, 1.0], "linear"), ([-0.01, 1.0], "linear")):
        figure = train.grid_search(lambda value: value, {"value": values}).plot()
        assert figure.axes[0].get_yscale() == scale


def test_what_is_not_installed_is_named(monkeypatch) -> None:
    import sys

    results = train.grid_search(lambda x: x, {"x": [1]})
    for module, call in (("pandas", results.to_pandas), ("matplotlib.figure", results.plot)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=rf"{module.partition('.')[0]}.*not installed.*pip install"):
            call()


# -- restarts and ensembles


def test_stacks() -> None:
    trees = [{"w": np.full((2, 3), i, np.float32), "b": [np.float32(i)]} for i in range(4)]
    stacked = train.stack(trees)
    assert stacked["w"].shape == (4, 2, 3) and stacked["b"][0].shape == (4,)
    for tree, again in zip(trees, train.unstack(stacked), strict=True):
        jax.tree.map(np.testing.assert_array_equal, tree, again)


def test_the_best_of_several_starts() -> None:
    stacked = {"w": np.arange(4.0, dtype=np.float32)}
    for values, least, greatest in (
        ([3.0, 1.0, 2.0, 1.0], 1.0, 0.0),
        ([math.nan, 5.0, math.nan, 7.0], 1.0, 3.0),
        ([math.nan, math.inf, -math.inf, 0.0], 2.0, 1.0),
    ):
        for mode, expected in (("min", least), ("max", greatest)):
            assert float(train.best_of(stacked, np.array(values), mode)["w"]) == expected
            assert float(tg.jit(lambda v: train.best_of(stacked, v, mode)["w"])(np.array(values))) == expected  # noqa: B023


def test_average_and_vote() -> None:
    """Against NumPy's mean, and a count by hand; of equally many votes the first class."""
    rng = np.random.default_rng(0)
    kernels, x = rng.normal(size=(5, 4, 3)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    scores = np.einsum("ni,mik->mnk", x.astype(float), kernels)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    models = tg.vmap(lambda kernel: nn.Linear(kernel))(kernels)
    mean = train.ensemble_average(lambda model, x: nn.softmax(model(x)))
    vote = train.ensemble_vote(lambda model, x: model(x))
    expected = [max(range(3), key=lambda k: (list(column).count(k), -k)) for column in scores.argmax(-1).T]
    assert any(sorted(np.bincount(column, minlength=3))[1:] == [2, 2] for column in scores.argmax(-1).T), "no tie"
    for how in (lambda f: f, tg.jit):
        np.testing.assert_allclose(how(mean)(models, x), (e / e.sum(-1, keepdims=True)).mean(0), rtol=1e-5)
        assert how(vote)(models, x).tolist() == expected
    # The mean is differentiated like any other function.
    gradient = tg.grad(lambda k: (train.ensemble_average(lambda k, x: x @ k)(k, x)).sum())(kernels)
    np.testing.assert_allclose(gradient, np.broadcast_to(x.sum(0)[None, :, None] / 5, (5, 4, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "parts"),
    [
        (lambda: train.stack([]), ValueError, ["stack", "no pytrees"]),
        (lambda: train.stack([{"w": X}, {"v": X}]), ValueError, ["stack", "pytree 1", "structure"]),
        (
            lambda: train.stack([{"w": X}, {"w": X[:3]}]),
            ValueError,
            ["stack", "['w']", "pytree 1", "f32[3]", "f32[24]"],
        ),
        (lambda: train.unstack({"w": X, "b": X[0]}), ValueError, ["unstack", "['w']", "(24,)", "train.stack"]),
        (lambda: train.unstack({}), ValueError, ["unstack", "no leaves"]),
        (lambda: train.best_of({"w": X}, np.ones(3)), ValueError, ["best_of", "values is", "24"]),
        (lambda: train.best_of({"w": X[:2]}, np.full(2, np.nan)), ValueError, ["best_of", "NaN"]),
        (lambda: train.best_of({"w": X[:2]}, X[:2], "least"), ValueError, ["best_of", "mode='least'"]),
        (lambda: train.ensemble_average(1), TypeError, ["ensemble_average", "not a function"]),
        (lambda: train.ensemble_vote(1), TypeError, ["ensemble_vote", "not a function"]),
        (lambda: train.ensemble_vote(lambda w: w)(X), ValueError, ["ensemble_vote", "classes"]),
        (lambda: train.ensemble_average(lambda w, x: w)({"w": X, "b": X[:3]}, X), ValueError, ["(24,)", "(3,)"]),
    ],
)
def test_bad_ensembles(call, error, parts) -> None:
    with pytest.raises(error) as caught:
        call()
    for part in [*parts, "test_search.py"]:
        assert part in str(caught.value), str(caught.value)


def test_the_signatures_agree() -> None:
    """What `random_search` has besides, the others have too, with the same defaults."""
    common = ("mode", "seed", "num_seeds", "vmap", "batch_size", "stopping", "has_aux", "progress")
    wanted, *others = (
        {name: inspect.signature(f).parameters[name].default for name in common}
        for f in (train.random_search, train.grid_search, train.coarse_to_fine)
    )
    assert all(other == wanted for other in others)
