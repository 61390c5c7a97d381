"""Minibatches: shuffled, in an order that a seed decides, from a place that is saved and found again."""

from __future__ import annotations

import bisect
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import jax
import numpy as np

from ...errors import called, describe, here
from .prefetching import _ahead

Last = Literal["keep", "drop", "pad"]
Made = tuple[Any, int]
"""A batch, and by how much it moves the position on."""


class _BadExampleError(ValueError):
    """Something is wrong with an example. The line of the user's is that which takes the batch, not one of a thread."""


class LoaderState(TypedDict):
    """seed, epoch: which order; position: how far in it; size: the number of examples, None where it is not known."""

    seed: int
    epoch: int
    position: int
    size: int | None


class _Loader:
    """What goes through data epoch by epoch, and knows where it is."""

    def __init__(
        self, data: Any, shuffle: bool, seed: int, last: Last, prefetch: int, processes: tuple[int, int] | None
    ) -> None:
        if last not in ("keep", "drop", "pad"):
            raise ValueError(f"{called()}: last={last!r} {here()}. Choose 'keep', 'drop' or 'pad'.")
        if not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ValueError(f"{called()}: seed={seed!r} {here()}. Give an integer, 0 or more.")
        if not isinstance(prefetch, (int, np.integer)) or prefetch < 0:
            raise ValueError(f"{called()}: prefetch={prefetch!r} {here()}. Give how many batches may wait.")
        self.source = _Source(data)
        self._processes = None if processes is None else _process(processes)
        self.seed = int(seed)
        self.epoch = 0
        self._position = 0
        self._restored = False
        self._shuffle = shuffle
        self._last = last
        self._prefetch = int(prefetch)
        if shuffle and self.source.size is None:
            raise TypeError(
                f"{called()}: shuffle=True needs data of known length {here()}, and this is {describe(data)}. Give "
                "list(data), or shuffle=False."
            )

    @property
    def processes(self) -> tuple[int, int]:
        """Which part of each batch this process has, and of how many."""
        # JAX is asked late: it looks for its devices then, and jax.distributed.initialize has to be before that.
        return self._processes or (jax.process_index(), jax.process_count())

    def _part(self, count: int) -> slice:
        """Which of so many examples of a batch are this process's."""
        index, processes = self.processes
        if count % processes:
            raise _BadExampleError(f"{self._undivided(count)}.")
        each = count // processes
        return slice(index * each, (index + 1) * each)

    def _undivided(self, count: int) -> str:
        return (
            f"a last batch of {count} does not divide over {self.processes[1]} processes, and their parts have to be "
            "equal. Give last='pad', which has weights, or last='drop', or another batch size"
        )

    def _check_processes(self) -> None:
        """Each process has an equal part of a batch: told before the first one, and not after an epoch."""
        of = self.processes[1]
        for size in self._batch_sizes():
            if of > 1 and size is None:
                raise ValueError(
                    f"{called()}: batch_size=None gives examples one by one, which do not divide over {of} processes "
                    f"{here()}. Give a batch size, or processes=(0, 1) for all examples in each process."
                )
            if size is not None and size % of:
                raise ValueError(
                    f"{called()}: a batch of {size} does not divide over {of} processes {here()}. The batch size is "
                    f"that of all of them together: give a multiple of {of}."
                )

    def state_dict(self) -> LoaderState:
        """Where this is: after the batches that were handed out. It can be pickled, and written as JSON.

        It is the same in each process, and for every number of them.
        """
        return {"seed": self.seed, "epoch": self.epoch, "position": self._position, "size": self.source.size}

    def load_state_dict(self, state: LoaderState) -> None:
        """Goes to where `state_dict` was taken: the next loop goes on from there, to the end of that epoch.

        What has no length is gone through again up to there.

        Raises:
          ValueError: if it is no such state, or of data of another length.
        """
        keys = LoaderState.__required_keys__
        if not isinstance(state, dict) or state.keys() != keys:
            raise ValueError(
                f"load_state_dict: {describe(state)} {here()} is no state of a loader. Give a state_dict()."
            )
        if state["size"] != self.source.size:
            raise ValueError(
                f"load_state_dict: the state is of data with {state['size']} examples, and these have "
                f"{self.source.size} {here()}: the order would be another. Load it into a loader of the same data."
            )
        self.seed, self.epoch, self._position = (int(state[k]) for k in ("seed", "epoch", "position"))  # type: ignore[literal-required]
        self._restored = True

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch; of what is left of it after `load_state_dict`. A loop that is left begins anew."""
        self._check_processes()
        if not self._restored:
            self._position = 0
        self._restored = False
        return self._going(_with_last(self._batches(self.epoch, self._position)))

    def _going(self, batches: Iterator[tuple[Made | None, bool]]) -> Iterator[Any]:
        epoch = self.epoch
        if self._prefetch:
            batches = _ahead(batches, self._prefetch, None)
        while True:
            try:
                made, last = next(batches)
            except StopIteration:
                return
            except _BadExampleError as error:
                raise ValueError(f"{error} The batch was taken {here()}.") from error
            # Before the batch is handed out: a state saved while it is worked on is that after it.
            if last:
                self.epoch, self._position = epoch + 1, 0
            elif made is not None:
                self._position += made[1]
            if made is not None:
                yield made[0]

    def _order(self, epoch: int) -> np.ndarray[Any, Any]:
        size = self.source.size
        assert size is not None
        if not self._shuffle:
            return np.arange(size)
        # NumPy promises these bits for good, and those of its permutation only for a version.
        bits = np.random.PCG64(np.random.SeedSequence([self.seed, epoch])).random_raw(size)
        return np.argsort(bits, kind="stable")

    def _batches(self, epoch: int, position: int) -> Iterator[Made]:
        raise NotImplementedError

    def _batch_sizes(self) -> list[int | None]:
        raise NotImplementedError


def _with_last(batches: Iterator[Made]) -> Iterator[tuple[Made | None, bool]]:
    """Each with whether it is the last; `None` if there is none."""
    held = next(batches, None)
    for following in batches:
        yield held, False
        held = following
    yield held, True


class DataLoader(_Loader):
    """Minibatches of data, reshuffled each epoch, without replacement.

    A loop over it is one epoch. Its order is decided by the seed and the number of the epoch alone, on every machine
    and with every version of NumPy. A loop that is left early begins anew; after `load_state_dict` it goes on.

    Args:
      data: a pytree of arrays with the examples along their first axis, such as `(x, y)` or `{"x": x, "y": y}`; or
        examples, pytrees of one structure: a list or anything else with a length and elements, anything that a `for`
        goes through, or a function that returns such a thing, for each epoch.
      batch_size: how many examples are put together along a new first axis (that of the arrays), in all processes
        together. `None` gives examples one by one, as they are.
      shuffle: whether in random order; needs a length.
      seed: what decides the order.
      last: what is done with a last batch that is smaller: "keep", "drop", or "pad" it with examples of it. With "pad"
        every item is a pair `(batch, weights)`, the weights 1 for examples and 0 for padding, `f32[batch_size]`.
      prefetch: how many batches are made ready in a thread; 0 for no thread. See `prefetch`.
      processes: `(index, count)`: each batch is divided into `count` equal parts, and this loader gives the one with
        this index. By default those of JAX, `(jax.process_index(), jax.process_count())`: the parts in the order of the
        processes are the batch of one process alone. `(0, 1)` gives each process all of it. Only the examples of the
        part are taken from the data; what has no length is gone through whole, in each process.

    Attributes:
      epoch: how many epochs have been gone through.
      seed: what decides the order.

    Raises:
      ValueError: if arrays differ in length, or examples in structure or shape; if a setting is none there is; if a
        batch, or with "keep" the last one, does not divide over the processes.
      TypeError: if `data` is nothing of this.

    Example:
      >>> import numpy as np
      >>> from tracegrad.train import data
      >>> loader = data.DataLoader((np.arange(5), np.arange(5) * 10), 2, seed=1)
      >>> [x.tolist() for x, y in loader]
      [[2, 4], [0, 3], [1]]
      >>> [x.tolist() for x, y in loader]
      [[3, 0], [2, 1], [4]]
      >>> loader.state_dict()
      {'seed': 1, 'epoch': 2, 'position': 0, 'size': 5}
      >>> parts = [data.DataLoader(np.arange(5), 4, seed=1, last="drop", processes=(i, 2)) for i in range(2)]
      >>> [[x.tolist() for x in part] for part in parts]
      [[[2, 4]], [[0, 3]]]
    """

    def __init__(
        self,
        data: Any,
        batch_size: int | None = 1,
        *,
        shuffle: bool = True,
        seed: int = 0,
        last: Last = "keep",
        prefetch: int = 0,
        processes: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(data, shuffle, seed, last, prefetch, processes)
        self.batch_size = None if batch_size is None else _batch_size(batch_size)
        if processes is not None:
            self._check_processes()

    def __len__(self) -> int:
        """How many items an epoch has."""
        size = self.source.size
        if size is None:
            raise TypeError(f"len: this loader's data has no length {here()}")
        if self.batch_size is None:
            return size
        return size // self.batch_size if self._last == "drop" else -(-size // self.batch_size)

    def _batch_sizes(self) -> list[int | None]:
        return [self.batch_size]

    def _check_processes(self) -> None:
        super()._check_processes()
        size, step = self.source.size, self.batch_size
        if self._last == "keep" and size and step and (rest := size % step) % self.processes[1]:
            raise ValueError(f"{called()}: of {size} examples, {self._undivided(rest)} {here()}.")

    def _batches(self, epoch: int, position: int) -> Iterator[Made]:
        size, step = self.source.size, self.batch_size
        if size is None:
            yield from self._stream(position)
            return
        order = self._order(epoch)
        for start in range(position, size, step or 1):
            index = order[start : start + (step or 1)]
            if step is None:
                yield self.source.example(int(index[0])), 1
            elif len(index) == step or self._last != "drop":
                rows = self._rows(len(index))
                yield self._weighted(self.source.batch(index[rows % len(index)]), rows, len(index)), len(index)

    def _stream(self, position: int) -> Iterator[Made]:
        held: list[Any] = []
        for i, example in enumerate(self.source.stream()):
            if i < position:
                continue
            if self.batch_size is None:
                yield example, 1
                continue
            held.append(example)
            if len(held) == self.batch_size:
                yield self._of_stream(held), len(held)
                held = []
        if held and self._last != "drop":
            yield self._of_stream(held), len(held)

    def _of_stream(self, held: list[Any]) -> Any:
        rows = self._rows(len(held))
        return self._weighted(stacked([held[i % len(held)] for i in rows]), rows, len(held))

    def _rows(self, count: int) -> np.ndarray[Any, Any]:
        """Which rows of a batch of so many examples are made here; with "pad" those from `count` on are padding."""
        rows = self.batch_size if self._last == "pad" and self.batch_size else count
        return np.arange(rows)[self._part(rows)]

    def _weighted(self, batch: Any, rows: np.ndarray[Any, Any], count: int) -> Any:
        return (batch, (rows < count).astype(np.float32)) if self._last == "pad" else batch


def _process(processes: Any) -> tuple[int, int]:
    try:
        index, count = (operator.index(n) for n in processes)
    except (TypeError, ValueError):
        index, count = 0, 0
    if not 0 <= index < count:
        raise ValueError(
            f"{called()}: processes={processes!r} {here()}. Give which this is and how many there are, such as (0, 4) "
            "to (3, 4)."
        )
    return index, count


def _batch_size(batch_size: Any) -> int:
    if not isinstance(batch_size, (int, np.integer)) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"{called()}: batch_size={batch_size!r} {here()}. Give an integer, 1 at least.")
    return int(batch_size)


class _Source:
    """Data of any kind: arrays, examples by number, or examples one after the other."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.arrays = False
        self.size: int | None = None
        self._used = False
        if _is_tree(data):
            self.arrays = True
            self.size = _common_length(data)
        elif hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, (str, bytes)):
            self.size = len(data)
        elif isinstance(data, (str, bytes)) or not (hasattr(data, "__iter__") or callable(data)):
            raise TypeError(
                f"{called()}: data is {describe(data)} {here()}. Give a pytree of arrays, or examples: a list, "
                "anything that a for goes through, or a function that returns such a thing."
            )

    def example(self, i: int) -> Any:
        return jax.tree.map(lambda x: x[i], self.data) if self.arrays else self.data[i]

    def batch(self, index: np.ndarray[Any, Any]) -> Any:
        if self.arrays:
            return jax.tree.map(lambda x: x[index], self.data)
        return stacked([self.data[int(i)] for i in index])

    def stream(self) -> Iterator[Any]:
        if self.size is not None:
            return (self.example(i) for i in range(self.size))
        iterator: Iterator[Any] = iter(self.data() if callable(self.data) else self.data)
        if iterator is self.data:
            if self._used:
                raise _BadExampleError(
                    f"the data is an iterator ({type(self.data).__name__}), which can be gone through once: give a "
                    "function that returns one, or a list."
                )
            self._used = True
        return iterator


def _is_tree(data: Any) -> bool:
    if hasattr(data, "shape") or isinstance(data, (tuple, Mapping)):
        return True
    several = any(hasattr(data, name) for name in ("__iter__", "__next__", "__getitem__"))
    return not several and not jax.tree_util.treedef_is_leaf(jax.tree.structure(data))


def _common_length(data: Any) -> int:
    leaves = jax.tree_util.tree_leaves_with_path(data)
    for path, leaf in leaves:
        if not np.ndim(leaf):
            raise ValueError(
                f"{called()}: data{jax.tree_util.keystr(path)} is {describe(leaf)}, which has no axis of examples "
                f"{here()}. Leave out what belongs to no example; a sequence of examples is a list."
            )
    lengths = [len(leaf) for _, leaf in leaves]
    if len(set(lengths)) != 1:
        named = ", ".join(f"data{jax.tree_util.keystr(p)} has {n}" for (p, _), n in zip(leaves, lengths, strict=True))
        raise ValueError(
            f"{called()}: the arrays differ in how many examples they have {here()}: {named or 'there are none'}. Give "
            "arrays of the same first axis; a sequence of examples is a list."
        )
    return lengths[0]


def stacked(examples: Sequence[Any]) -> Any:
    """Examples as one pytree, along a new first axis of each array."""
    return _of_each(examples, lambda path, arrays: np.stack(_alike(path, arrays, 0)))


def _of_each(examples: Sequence[Any], fun: Callable[[str, list[np.ndarray[Any, Any]]], Any]) -> Any:
    """A function of each array that the examples have, of all of them together, as one pytree."""
    tree: Any = jax.tree.structure(examples[0])
    for example in examples[1:]:
        if jax.tree.structure(example) != tree:
            raise _BadExampleError(
                f"the examples differ in structure: {tree} and {jax.tree.structure(example)}. Give all of them "
                "the same."
            )

    def one(path: Any, *leaves: Any) -> Any:
        return fun(f"example{jax.tree_util.keystr(path)}", [np.asarray(leaf) for leaf in leaves])

    return jax.tree_util.tree_map_with_path(one, *examples)


def _alike(path: str, arrays: list[np.ndarray[Any, Any]], first: int) -> list[np.ndarray[Any, Any]]:
    """The arrays, which must have the same shape from axis `first` on."""
    shapes = {a.shape for a in arrays}
    if len({(len(shape), shape[first:]) for shape in shapes}) > 1:
        remedy = "Make them one." if first else "Make them one, or use bucket_by_length for sequences."
        raise _BadExampleError(f"{path} has different shapes in a batch: {sorted(shapes)}. {remedy}")
    return arrays


# -- sequences of different lengths


def bucket_by_length(
    data: Any,
    boundaries: Sequence[int],
    batch_size: int | Sequence[int],
    *,
    length: Callable[[Any], int] | Sequence[int] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    last: Last = "keep",
    pad_value: Any = 0,
    prefetch: int = 0,
    processes: tuple[int, int] | None = None,
) -> BucketLoader:
    """Minibatches of sequences of similar length, padded to a few lengths, so that few programs are compiled.

    Each example goes to the bucket of the least boundary that it fits into; when there are enough examples in a bucket,
    they are a batch. In every other respect this is a `DataLoader`; `position` in its state counts batches.

    Args:
      data: examples, as for `DataLoader`: pytrees in which every array with an axis is a sequence along its first.
      boundaries: the lengths that sequences are padded to, increasing; the last is the greatest there may be.
      batch_size: how many examples a batch has; or for each bucket.
      length: the length of an example; by default of the longest of its sequences. Or the lengths of all examples, in
        their order: then a process takes from the data only the examples of its parts, and otherwise all of them.
      shuffle, seed, prefetch, processes: as for `DataLoader`.
      last: what is done with the examples left in each bucket at the end of an epoch: "keep", "drop" or "pad" them to a
        whole batch, with a mask that is false.
      pad_value: what sequences are padded with.

    Returns:
      An iterable of pairs `(batch, mask)`, two pytrees like the examples: of arrays of shape `(B, L, ...)` where an
      example has a sequence and `(B,)` where it has a number, and of booleans of shape `(B, L)` and `(B,)`, true where
      something is no padding.

    Raises:
      ValueError: from the loop, if an example is longer than the last boundary.

    Example:
      >>> import numpy as np
      >>> from tracegrad.train import data
      >>> sentences = [([1, 2], 0), ([3], 1), ([4, 5, 6], 1)]
      >>> sentences = [(np.array(tokens), label) for tokens, label in sentences]
      >>> for (tokens, labels), (mask, _) in data.bucket_by_length(sentences, [2, 4], 2, shuffle=False):
      ...     print(tokens.tolist(), labels.tolist(), mask.sum(1).tolist())
      [[1, 2], [3, 0]] [0, 1] [2, 1]
      [[4, 5, 6, 0]] [1] [3]
    """
    return BucketLoader(data, boundaries, batch_size, length, shuffle, seed, last, pad_value, prefetch, processes)


class BucketLoader(_Loader):
    """What `bucket_by_length` returns."""

    def __init__(
        self,
        data: Any,
        boundaries: Sequence[int],
        batch_size: int | Sequence[int],
        length: Callable[[Any], int] | Sequence[int] | None,
        shuffle: bool,
        seed: int,
        last: Last,
        pad_value: Any,
        prefetch: int,
        processes: tuple[int, int] | None,
    ) -> None:
        super().__init__(data, shuffle, seed, last, prefetch, processes)
        self._boundaries = [int(b) for b in boundaries]
        if not self._boundaries or sorted(set(self._boundaries)) != self._boundaries or self._boundaries[0] < 1:
            raise ValueError(
                f"{called()}: boundaries={list(boundaries)} {here()}. Give lengths that increase, such as [16, 32, 64]."
            )
        sizes = list(batch_size) if isinstance(batch_size, Sequence) else [batch_size] * len(self._boundaries)
        if len(sizes) != len(self._boundaries):
            raise ValueError(
                f"{called()}: {len(sizes)} batch sizes and {len(self._boundaries)} boundaries {here()}. Give one for "
                "each."
            )
        self._sizes = [_batch_size(size) for size in sizes]
        if processes is not None:
            self._check_processes()
        self._length: Callable[[Any], int] = length if callable(length) else _longest
        self._lengths = None if length is None or callable(length) else _known_lengths(length, self.source.size)
        self._pad_value = pad_value

    def _batch_sizes(self) -> list[int | None]:
        return [*self._sizes]

    def _examples(self, epoch: int) -> Iterator[tuple[int, Callable[[], Any]]]:
        """The length of each example, and how it is had."""
        if self._lengths is not None:
            example = self.source.example
            yield from ((int(self._lengths[i]), functools.partial(example, i)) for i in self._order(epoch).tolist())
            return
        known = self.source.size is not None
        examples = map(self.source.example, self._order(epoch).tolist()) if known else self.source.stream()
        yield from ((self._length(example), lambda example=example: example) for example in examples)

    def _batches(self, epoch: int, position: int) -> Iterator[Made]:
        made = 0
        buckets: list[list[Callable[[], Any]]] = [[] for _ in self._boundaries]
        for n, example in self._examples(epoch):
            which = bisect.bisect_left(self._boundaries, n)
            if which == len(buckets):
                raise _BadExampleError(
                    f"bucket_by_length: an example has length {n}, and the last boundary is {self._boundaries[-1]}. "
                    "Give a greater one, or cut or leave out longer examples."
                )
            buckets[which].append(example)
            if len(buckets[which]) == self._sizes[which]:
                made += 1
                if made > position:
                    yield self._padded(buckets[which], which), 1
                buckets[which] = []
        for which, rest in enumerate(buckets):
            if rest and self._last != "drop":
                made += 1
                if made > position:
                    yield self._padded(rest, which), 1

    def _padded(self, held: list[Callable[[], Any]], which: int) -> Any:
        width, count = self._boundaries[which], len(held)
        rows = np.arange(self._sizes[which] if self._last == "pad" else count)
        rows = rows[self._part(len(rows))]
        examples = [held[i % count]() for i in rows]

        def one(path: str, arrays: list[np.ndarray[Any, Any]]) -> _Padded:
            arrays = _alike(path, arrays, 1)
            if not arrays[0].ndim:
                return _Padded(np.stack(arrays), rows < count)
            shape = (len(rows), width, *arrays[0].shape[1:])
            out = np.full(shape, self._pad_value, np.result_type(*arrays))
            mask = np.zeros(shape[:2], bool)
            for i, array in enumerate(arrays):
                if len(array) > width:
                    raise _BadExampleError(
                        f"bucket_by_length: {path} has {len(array)} elements, and its example at most {width} by its "
                        "length. Let length= give that of its longest sequence."
                    )
                if rows[i] < count:
                    out[i, : len(array)] = array
                    mask[i, : len(array)] = True
            return _Padded(out, mask)

        both = _of_each(examples, one)
        return tuple(jax.tree.map(lambda x, i=i: x[i], both, is_leaf=lambda x: isinstance(x, _Padded)) for i in (0, 1))


def _known_lengths(given: Any, size: int | None) -> np.ndarray[Any, Any]:
    lengths = np.asarray(given)
    integers = np.issubdtype(lengths.dtype, np.integer) or not lengths.size
    if lengths.shape != (size,) or not integers:
        of = "data of no known length" if size is None else f"{size} examples"
        raise ValueError(
            f"{called()}: length={describe(given)} {here()}, for {of}. Give a function of an example, or an integer "
            "for each example of data with a length."
        )
    return lengths


class _Padded(NamedTuple):
    array: Any
    mask: Any


def _longest(example: Any) -> int:
    lengths = [np.shape(leaf)[0] for leaf in jax.tree.leaves(example) if np.ndim(leaf)]
    if not lengths:
        raise _BadExampleError(f"bucket_by_length: an example is {describe(example)}, without a sequence.")
    return int(max(lengths))


__all__ = ["BucketLoader", "DataLoader", "LoaderState", "bucket_by_length"]
