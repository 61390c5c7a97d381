"""Minibatches: each example once an epoch, in an order that a seed decides, from a place that is found again."""

from __future__ import annotations

import functools
import itertools
import json
import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegrad.train.data import DataLoader, bucket_by_length, prefetch

X = np.arange(23)
PAIR = {"x": np.arange(46.0).reshape(23, 2), "y": X * 10}


def stream() -> Iterator[Any]:
    yield from ({"x": PAIR["x"][i], "y": PAIR["y"][i]} for i in range(23))


class Dataset:
    """A length and elements, and no arrays."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, i: int) -> Any:
        assert type(i) is int
        return {"x": PAIR["x"][i], "y": PAIR["y"][i]}


SOURCES = {
    "arrays": PAIR,
    "jax arrays": jax.tree.map(jax.numpy.asarray, PAIR),
    "list": list(stream()),
    "dataset": Dataset(),
    "function": stream,
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources(name: str) -> None:
    known = name != "function"
    loaders = [DataLoader(SOURCES[name], 5, shuffle=shuffle) for shuffle in ([False, True] if known else [False])]
    for loader in loaders:
        for _ in range(2):
            batches = list(loader)
            assert [len(b["y"]) for b in batches] == [5, 5, 5, 5, 3]
            y = np.concatenate([b["y"] for b in batches])
            np.testing.assert_array_equal(np.concatenate([b["x"] for b in batches]), PAIR["x"][y // 10])
            assert sorted(y.tolist()) == PAIR["y"].tolist()
    assert np.concatenate([b["y"] for b in loaders[0]]).tolist() == PAIR["y"].tolist()
    if known:
        assert len(loaders[0]) == 5
    else:
        with pytest.raises(TypeError, match="no length"):
            len(loaders[0])


def test_the_order() -> None:
    def epochs(seed: int) -> list[list[int]]:
        loader = DataLoader(X, 4, seed=seed)
        return [np.concatenate(list(loader)).tolist() for _ in range(3)]

    one = epochs(3)
    assert one == epochs(3) and one != epochs(4)
    assert len({tuple(e) for e in one}) == 3 and all(sorted(e) == X.tolist() for e in one)
    # The sorting order of the bits of PCG64, which NumPy promises to keep.
    bits = np.random.PCG64(np.random.SeedSequence([3, 1])).random_raw(23)
    assert one[1] == sorted(range(23), key=lambda i: bits[i])
    # Every place is as likely: chi-square of where example 0 comes, 22 degrees of freedom, p = 0.001 at 48.3.
    loader = DataLoader(X, 23)
    places = [next(iter(loader)).tolist().index(0) for loader.epoch in range(1_150)]
    assert ((np.bincount(places, minlength=23) - 50) ** 2 / 50).sum() < 48.3


@pytest.mark.parametrize("name", ["arrays", "function"])
def test_the_last_batch(name: str) -> None:
    def loader(size: int, last: Any) -> list[Any]:
        return list(DataLoader(SOURCES[name], size, shuffle=False, last=last))

    assert [len(b["y"]) for b in loader(10, "keep")] == [10, 10, 3]
    assert [len(b["y"]) for b in loader(10, "drop")] == [10, 10]
    padded = loader(10, "pad")
    assert [len(b["y"]) for b, _ in padded] == [10] * 3 and {w.dtype.name for _, w in padded} == {"float32"}
    assert [w.sum() for _, w in padded] == [10, 10, 3]
    batch, weights = padded[-1]
    assert batch["y"].tolist() == [200, 210, 220] * 3 + [200] and weights.tolist() == [1.0] * 3 + [0.0] * 7
    assert [w.sum() for _, w in loader(30, "pad")] == [23]
    assert [len(b["y"]) for b in loader(23, "drop")] == [23] and loader(24, "drop") == []
    assert len(DataLoader(PAIR, 10, last="drop")) == 2 and len(DataLoader(PAIR, 10, last="pad")) == 3


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("last", ["keep", "drop", "pad"])
@pytest.mark.parametrize("name", ["arrays", "list", "function", "buckets"])
def test_going_on_where_it_was(name: str, last: Any, ahead: int) -> None:
    def loader() -> Any:
        if name == "buckets":
            sentences = [np.arange(1 + i % 7) + i for i in range(23)]
            return bucket_by_length(sentences, [2, 4, 8], 3, last=last, prefetch=ahead)
        return DataLoader(SOURCES[name], 5, shuffle=name != "function", seed=9, last=last, prefetch=ahead)

    whole = loader()
    epochs = [[jax.tree.map(np.asarray, b) for b in whole] for _ in range(2)]
    count = len(epochs[0])
    for stop in range(1, count + 1):
        first = loader()
        list(first)
        seen: list[Any] = []
        for batch in first:
            seen.append(batch)
            if len(seen) == stop:
                state = first.state_dict()
                break
        again = loader()
        again.load_state_dict(json.loads(json.dumps(state)))
        assert pickle.loads(pickle.dumps(state)) == state
        if stop == count:
            # With the last batch the epoch is over.
            assert state["epoch"] == 2 and state["position"] == 0
            continue
        rest = list(again)
        assert len(seen + rest) == len(epochs[1])
        for a, b in zip(jax.tree.leaves(seen + rest), jax.tree.leaves(epochs[1]), strict=True):
            np.testing.assert_array_equal(a, b)
        assert again.epoch == 2


def test_a_loop_that_is_left_begins_anew() -> None:
    loader = DataLoader(X, 5, seed=1)
    first = next(iter(loader)).tolist()
    assert first == next(iter(loader)).tolist() and loader.state_dict()["epoch"] == 0
    (again, *_) = list(loader)
    assert again.tolist() == first
    assert loader.epoch == 1 and next(iter(loader)).tolist() != first


def test_examples_one_by_one_and_no_examples() -> None:
    assert sorted(DataLoader(X.tolist(), None)) == X.tolist()
    assert sorted(x["y"] for x in DataLoader(PAIR, None)) == PAIR["y"].tolist()
    for data in (np.zeros((0, 3)), [], lambda: iter([])):
        loader = DataLoader(data, 4, shuffle=not callable(data), last="pad")
        assert list(loader) == [] and loader.epoch == 1


def test_an_epoch_that_takes_an_iterator() -> None:
    loader = DataLoader(stream(), 8, shuffle=False)
    assert [len(b["y"]) for b in loader] == [8, 8, 7]
    with pytest.raises(ValueError, match="gone through once") as caught:
        list(loader)
    assert "test_loading.py" in str(caught.value)


# -- prefetching


def ended() -> bool:
    """Whether no thread is left, soon."""
    deadline = time.monotonic() + 10
    while left := [t for t in threading.enumerate() if t.name == "tracegrad prefetch"]:
        if time.monotonic() > deadline:
            return False
        left[0].join(0.1)
    return True


def test_prefetching_is_bounded_and_in_order() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    taken = prefetch(source(), 3)
    assert next(taken) == 0
    deadline = time.monotonic() + 10
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(made) == 5, "one taken, three that wait, one that waits for room: made while nobody asked"
    assert list(taken) == list(range(1, 50))
    assert ended()


def test_an_exception_arrives_at_its_place() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise RuntimeError("the disk is gone")

    seen = []
    with pytest.raises(RuntimeError, match="the disk is gone") as caught:
        for i in prefetch(source(), 5):
            seen.append(i)
    assert seen == [1, 2] and any(entry.name == "source" for entry in caught.traceback)
    assert ended()
    data = [np.zeros(2), np.zeros(3)]
    with pytest.raises(
        ValueError, match=r"different shapes in a batch.*\(2,\), \(3,\).*bucket_by_length.*test_loading"
    ):
        list(DataLoader(data, 2, prefetch=1))


def test_leaving_the_loop_ends_the_thread_and_closes_the_source() -> None:
    closed = threading.Event()

    def source() -> Iterator[int]:
        try:
            yield from iter(int, 1)
        finally:
            closed.set()

    for _ in prefetch(source(), 2):
        break
    assert closed.wait(5) and ended()
    for _ in DataLoader(X, 2, prefetch=2):
        break
    assert ended()


def test_prefetching_to_a_device() -> None:
    device = jax.devices()[1]
    for batch in prefetch(DataLoader(PAIR, 8), device=device):
        assert {x.devices() == {device} for x in jax.tree.leaves(batch)} == {True}


# -- buckets


def test_buckets() -> None:
    rng = np.random.default_rng(0)
    examples = [(np.arange(n) + 1, rng.normal(size=(n, 2)), int(n)) for n in rng.integers(1, 17, 100)]
    loader = bucket_by_length(examples, [4, 8, 16], [16, 8, 4], pad_value=-1, seed=2)
    found = []
    shapes = set()
    for (tokens, features, n), (mask, feature_mask, one) in loader:
        shapes.add(tokens.shape)
        assert features.shape == (*tokens.shape, 2) and mask.shape == tokens.shape and one.all()
        np.testing.assert_array_equal(mask, feature_mask)
        np.testing.assert_array_equal(mask.sum(1), n)
        assert (tokens[~mask] == -1).all() and (features[~mask] == -1).all()
        assert n.max() <= tokens.shape[1] and (n > {4: 0, 8: 4, 16: 8}[tokens.shape[1]]).all()
        for row, m in zip(tokens, mask, strict=True):
            assert row[m].tolist() == list(range(1, m.sum() + 1))
        found += n.tolist()
    assert sorted(found) == sorted(e[2] for e in examples)
    assert {(16, 4), (8, 8), (4, 16)} <= shapes
    padded = list(bucket_by_length(examples, [4, 8, 16], [16, 8, 4], last="pad"))
    assert {b[0].shape for b, _ in padded} == {(16, 4), (8, 8), (4, 16)}
    assert sum(int(m[2].sum()) for _, m in padded) == 100 and sum(m[0].any(1).sum() for _, m in padded) == 100
    whole = list(bucket_by_length(examples, [16], 7, last="drop"))
    assert [b[2].shape for b, _ in whole] == [(7,)] * 14


# -- many processes


class Counted:
    """A length and elements, and which of them were asked for."""

    def __init__(self, n: int, sequences: bool = True) -> None:
        self.n, self.sequences = n, sequences
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        self.asked.append(i)
        return {"x": np.full(1 + i % 6 if self.sequences else 1, i), "y": 10 * i}


def joined(parts: list[Any]) -> list[Any]:
    """The parts of each batch one after the other, which are of equal shape."""
    assert len({len(part) for part in parts}) == 1
    batches = []
    for each in zip(*parts, strict=True):
        assert len({str([(x.shape, x.dtype) for x in jax.tree.leaves(part)]) for part in each}) == 1
        batches.append(jax.tree.map(lambda *x: np.concatenate(x), *each))
    return batches


def same(a: Any, b: Any) -> None:
    assert len(a) == len(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


KINDS = ["arrays", "dataset", "stream", "buckets", "buckets with lengths"]


@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(0, 60),
    last=st.sampled_from(["keep", "drop", "pad"]),
    shuffle=st.booleans(),
    prefetch=st.sampled_from([0, 0, 0, 2]),
    runs=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 8)), min_size=1, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_parts_are_the_batch_of_one_process_whatever_their_number(
    kind: str, n: int, last: Any, shuffle: bool, prefetch: int, runs: list[tuple[int, int]]
) -> None:
    """Two epochs that are begun by some processes, and gone on with by others from where those were."""
    if last == "keep":
        n -= n % 12

    def loader(processes: tuple[int, int], data: Any) -> Any:
        options: dict[str, Any] = {"shuffle": shuffle and kind != "stream", "seed": 3, "last": last}
        options |= {"prefetch": prefetch, "processes": processes}
        if "buckets" in kind:
            lengths = [1 + i % 6 for i in range(n)] if "lengths" in kind else lambda example: len(example["x"])
            # What is left in a bucket may be any number.
            options["last"] = "drop" if last == "keep" else last
            return bucket_by_length(data, [2, 6], [12, 24], length=lengths, **options)
        return DataLoader(data, 12, **options)

    def source() -> Any:
        if kind == "arrays":
            return {"x": np.arange(n), "y": 10 * np.arange(n)}
        return (
            (lambda: ({"x": i, "y": 10 * i} for i in range(n))) if kind == "stream" else Counted(n, "buckets" in kind)
        )

    whole = loader((0, 1), source())
    left = [*whole, *whole]
    state = json.dumps(whole.state_dict() | {"epoch": 0})
    for count, stop in [*runs, (1, 100)]:
        data = [source() for _ in range(count)]
        loaders = [loader((i, count), d) for i, d in enumerate(data)]
        parts: list[list[Any]] = [[] for _ in loaders]
        for part, seen in zip(loaders, parts, strict=True):
            part.load_state_dict(json.loads(state))
            while part.epoch < 2 and len(seen) < stop:
                seen += itertools.islice(part, stop - len(seen))
        (state,) = {json.dumps(part.state_dict()) for part in loaders}
        made = joined(parts)
        same(made, left[: len(made)])
        left = left[len(made) :]
    assert left == [] and json.loads(state)["epoch"] == 2


def fetched(make: Any, n: int, count: int) -> list[int]:
    """How often each example was taken from the data, by all processes together."""
    data = [Counted(n, "boundaries" in make.keywords) for _ in range(count)]
    for i, each in enumerate(data):
        assert list(make(each, processes=(i, count)))
    return np.bincount([i for each in data for i in each.asked], minlength=n).tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_each_process_takes_its_own_examples_alone(count: int) -> None:
    assert fetched(functools.partial(DataLoader, batch_size=10), 60, count) == [1] * 60
    lengths = [1 + i % 6 for i in range(60)]
    known = functools.partial(bucket_by_length, boundaries=[6], batch_size=10, length=lengths)
    assert fetched(known, 60, count) == [1] * 60
    # To know its length an example has to be had.
    assert fetched(functools.partial(bucket_by_length, boundaries=[6], batch_size=10), 60, count) == [count] * 60


def test_parts_by_grain() -> None:
    """Each process takes every n-th example: together they have the examples of the batch, in another order."""
    grain = pytest.importorskip("grain")

    def batches(index: int, count: int) -> list[list[int]]:
        dataset = grain.MapDataset.source(np.arange(48)).shuffle(seed=1)[index::count].batch(12 // count)
        return [batch.tolist() for batch in dataset]

    for count in (2, 3, 4):
        parts = [batches(i, count) for i in range(count)]
        assert {len(part) for part in parts} == {4}
        for whole, *each in zip(batches(0, 1), *parts, strict=True):
            assert sorted(whole) == sorted(i for part in each for i in part)
            # One example of each in turn is that of one process.
            assert whole == np.stack(each, 1).ravel().tolist()


UNDIVIDED: list[tuple[str, Any]] = [
    ("a batch of 10 does not divide over 4 processes .*a multiple of 4",
     lambda: DataLoader(X, 10, processes=(0, 4))),
    ("of 23 examples, a last batch of 3 does not divide over 2 .*last='pad'",
     lambda: DataLoader(X, 10, processes=(0, 2))),
    ("batch_size=None .* do not divide over 2 .*processes=.0, 1.", lambda: DataLoader(X, None, processes=(1, 2))),
    ("a batch of 6 does not divide over 4", lambda: bucket_by_length(X, [4, 8], [8, 6], processes=(0, 4))),
    ("a last batch of 3 does not divide over 2 .*The batch was taken",
     lambda: list(DataLoader(stream, 10, shuffle=False, processes=(0, 2)))),
    ("a last batch of 1 does not divide over 2",
     lambda: list(bucket_by_length([np.zeros(2)], [4], 4, processes=(0, 2)))),
    (r"processes=\(4, 4\)", lambda: DataLoader(X, 4, processes=(4, 4))),
    ("processes=3", lambda: DataLoader(X, 4, processes=3)),  # type: ignore[arg-type]
    ("processes=.*-1", lambda: bucket_by_length([], [4], 4, processes=(-1, 4))),
    ("length=.*for 1 examples", lambda: bucket_by_length([np.zeros(2)], [4], 4, length=[1, 2])),
    ("length=.*data of no known length", lambda: bucket_by_length(stream, [4], 4, length=[1], shuffle=False)),
]  # fmt: skip


@pytest.mark.parametrize("case", UNDIVIDED, ids=[str(i) for i in range(len(UNDIVIDED))])
def test_what_does_not_divide(case: tuple[str, Any]) -> None:
    words, call = case
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "test_loading.py" in str(caught.value)


BAD: list[tuple[type[Exception], str, Any]] = [
    (ValueError, r"data\['x'\] has 3, data\['y'\] has 4", lambda: DataLoader({"x": X[:3], "y": X[:4]})),
    (ValueError, "data.1. is .*no axis of examples", lambda: DataLoader((X, 3.0))),
    (ValueError, "there are none", lambda: DataLoader({})),
    (TypeError, "data is .* a list", lambda: DataLoader(3)),
    (TypeError, "shuffle=True needs data of known length", lambda: DataLoader(stream)),
    (ValueError, "batch_size=.*1 at least", lambda: DataLoader(X, 0)),
    (ValueError, "last='all'", lambda: DataLoader(X, last="all")),  # type: ignore[arg-type]
    (ValueError, "seed=.*0 or more", lambda: DataLoader(X, seed=-1)),
    (ValueError, "prefetch=.*may wait", lambda: DataLoader(X, prefetch=-1)),
    (ValueError, "no state of a loader", lambda: DataLoader(X).load_state_dict({"epoch": 1})),  # type: ignore[typeddict-item]
    (ValueError, "with 5 examples, and these have 23",
     lambda: DataLoader(X).load_state_dict(DataLoader(X[:5]).state_dict())),
    (ValueError, "differ in structure", lambda: list(DataLoader([{"a": 1}, {"b": 1}], 2))),
    (ValueError, "size=.*1 or more", lambda: prefetch([], 0)),
    (TypeError, "nothing to iterate over", lambda: prefetch(3)),  # type: ignore[arg-type]
    (ValueError, "length 9, and the last boundary is 8", lambda: list(bucket_by_length([np.zeros(9)], [4, 8], 2))),
    (ValueError, "lengths that increase", lambda: bucket_by_length([], [8, 4], 2)),
    (ValueError, "2 batch sizes and 1 boundaries", lambda: bucket_by_length([], [8], [2, 3])),
    (ValueError, "without a sequence", lambda: list(bucket_by_length([3], [8], 2))),
    (ValueError, "example has different shapes",
     lambda: list(bucket_by_length([np.zeros((2, 3)), np.zeros((2, 4))], [4], 2))),
    (ValueError, r"example\[1\] has 9 elements, and its example at most 4",
     lambda: list(bucket_by_length([(np.zeros(2), np.zeros(9))], [4, 8], 2, length=lambda e: 2))),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[1])
def test_errors(case: Any) -> None:
    kind, words, call = case
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "test_loading.py" in str(caught.value)
