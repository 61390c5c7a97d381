"""Where batches come from: anything that a `for` goes through, and the position in it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten

from ..errors import called, describe, here
from . import agreement

_MANY = 16
"""So many different shapes of batches are too many, if they were in the first steps."""


class BatchError(ValueError):
    """A batch is not what the step can take, or there is none."""


class Source:
    """Batches as the arguments of a step, epoch by epoch, from a position that is saved and found again.

    The position is the source's own where it has one: `state_dict` and `load_state_dict`, as a `DataLoader` has them,
    or `get_state` and `set_state` of its iterators, as grain has them. Anything else is gone through again.

    Attributes:
      fetching: whether a batch is being waited for: what is raised then comes from the source.
      total: how many batches were handed out.
    """

    def __init__(self, batches: Any, notice: Callable[[], None]) -> None:
        # A tuple of arrays is the data, as Keras takes it, and hardly a series of batches.
        whole = isinstance(batches, tuple) and all(hasattr(x, "shape") for x in batches)
        if not (hasattr(batches, "__iter__") or callable(batches)) or hasattr(batches, "shape") or whole:
            raise TypeError(
                f"{called()}: batches is {describe(batches)} {here()}. Give an iterable of batches, such as "
                "train.data.DataLoader((x, y), 32), or a function that returns one for each epoch."
            )
        self.fetching = False
        self._batches = batches
        self._notice = notice
        self._count = 0
        self.total = 0
        self._iterator: Iterator[Any] = iter(())
        self._first_epoch: Any = None
        self._ended = True
        self._position: dict[str, Any] | None = None
        self._shapes: list[list[Any]] = []
        self._expected: list[Any] | None = None
        self._smaller: list[Any] | None = None
        self._comparing = False

    def length(self) -> int | None:
        """How many batches an epoch has, where that is known."""
        try:
            return len(self._batches)
        except (TypeError, AttributeError):
            return None

    def epoch(self) -> Iterator[tuple[Any, ...]]:
        """The batches of the next epoch, or of what is left of this one after `go_to`."""
        self.fetching = True
        # Types are looked up: to ask of each whether it is an array takes longer.
        iterator, last, structure, known = self._begun(), None, None, set(_ARRAYS)
        for batch in iterator:
            self.fetching = False
            self._count += 1
            self.total += 1
            args = tuple(batch) if type(batch) in (tuple, list) else (batch,)
            leaves, tree = tree_flatten(args)
            if any([type(x) not in known for x in leaves]):  # noqa: C419
                leaves = [_as_array(x) for x in leaves]
                args = jax.tree.unflatten(tree, leaves)
                known |= {type(x) for x in leaves if isinstance(x, _ARRAYS)}
            shapes = [x.shape for x in leaves if hasattr(x, "shape")]
            if shapes != last or tree != structure:
                last, structure = shapes, tree
                self._new(tree, leaves)
            if self._comparing:
                self._compare(self._written(tree, leaves))
            yield args
            self.fetching = True
        self.fetching = False
        self._smaller, self._ended = None, True
        if not self._count:
            raise BatchError(f"there is no batch in this epoch. {self._remedy()}")

    def _begun(self) -> Iterator[Any]:
        position, self._position = self._position, None
        self._ended = False
        self._count = 0 if position is None else position["count"]
        if position is not None and position.get("over"):
            return iter(())
        self._first_epoch = getattr(self._batches, "epoch", None)
        self._iterator = iter(self._batches if hasattr(self._batches, "__iter__") else self._batches())
        if position is not None and position["kind"] == "iterator":
            self._iterator.set_state(position["state"])  # type: ignore[attr-defined]
        elif position is not None and position["kind"] == "count":
            for _ in itertools.islice(self._iterator, self._count):
                pass
        return self._iterator

    def _remedy(self) -> str:
        if hasattr(self._batches, "__next__"):
            return (
                f"batches is an iterator ({type(self._batches).__name__}), which can be gone through once: give a "
                "list, a DataLoader, or a function that returns an iterator for each epoch"
            )
        return "Give data, and batches that are not larger than what there is of it"

    # -- the position

    def position(self) -> dict[str, Any]:
        """Where this is: after the batches that were handed out."""
        first = self._shapes[0] if self._shapes else None
        count = 0 if self._ended else self._count
        found = {"kind": "count", "count": count, "batch": self._expected or first}
        if hasattr(self._batches, "state_dict"):
            # With the last batch of an epoch a DataLoader is at the begin of the next.
            over = bool(count) and self._first_epoch is not None and self._batches.epoch != self._first_epoch
            return found | {"kind": "loader", "state": self._batches.state_dict(), "over": over}
        if count and hasattr(self._iterator, "get_state"):
            return found | {"kind": "iterator", "state": self._iterator.get_state()}
        return found

    def go_to(self, position: dict[str, Any]) -> None:
        """Goes to where `position` was: the next epoch is what was left of that one.

        Raises:
          ValueError: if the position is of another kind of source.
        """
        if position["kind"] == "each":
            parts = len(position["of"])
            if parts != agreement.count():
                raise ValueError(
                    f"{called()}: the checkpoint has a position in the data of each of {parts} processes, and there "
                    f"are {agreement.count()} {here()}. Use as many, or a train.data.DataLoader."
                )
            position = position["of"][agreement.index()]
        own = hasattr(self._batches, "state_dict")
        if (position["kind"] == "loader") != own:
            before, now = ("another source", "a loader") if own else ("a loader", "another source")
            raise ValueError(
                f"{called()}: the checkpoint has a position in {before}, and batches is {now}, "
                f"{type(self._batches).__name__} {here()}. Give data as it was."
            )
        if own:
            self._batches.load_state_dict(position["state"])
        self._expected = position["batch"]
        self._comparing = self._expected is not None
        self._position = position

    # -- what batches are like

    def _written(self, tree: Any, leaves: list[Any]) -> list[Any]:
        """The structure, shapes and dtypes of a batch as a checkpoint has them: of the batch of all processes."""
        _, parts = getattr(self._batches, "processes", None) or (0, agreement.count())
        kinds = []
        for leaf in leaves:
            shape = list(np.shape(leaf))
            if shape and not (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
                shape[0] *= parts
            kinds.append([shape, str(getattr(leaf, "dtype", type(leaf).__name__))])
        return [str(tree), kinds]

    def _new(self, tree: Any, leaves: list[Any]) -> None:
        now = self._written(tree, leaves)
        if now in self._shapes:
            return
        if self._shapes and now[0] != self._shapes[0][0]:
            raise BatchError(
                f"the batch is ({_shown(now)}), of another structure than those before, ({_shown(self._shapes[0])}). "
                "Give all of them the same"
            )
        self._shapes.append(now)
        if len(self._shapes) == _MANY and self.total < 4 * _MANY:
            warnings.warn(
                f"{called()}: {_MANY} of the first {self.total} batches have different shapes {here()}, and for each "
                "the step is compiled anew. Pad them: train.data.DataLoader(..., last='pad'), or "
                "train.data.bucket_by_length for sequences.",
                stacklevel=2,
            )
        self._notice()

    def _compare(self, now: list[Any]) -> None:
        """Holds the first batches after `go_to` against those before: a smaller one can only end an epoch."""
        assert self._expected is not None
        smaller, self._smaller = self._smaller, None
        if smaller is None and _is_part(now, self._expected) and now != self._expected and self._count > 1:
            self._smaller = now
        elif smaller is not None or now != self._expected:
            raise BatchError(
                f"the checkpoint is of a training with batches of ({_shown(self._expected)}), and these are of "
                f"({_shown(smaller or now)}): the steps would be others. Give data and a batch size as they were, or "
                "begin anew with the parameters of the checkpoint, Checkpoints(folder).restore(state)"
            )
        else:
            self._comparing = False


_ARRAYS = (np.ndarray, jax.Array, np.generic, bool, int, float, complex)


def _as_array(leaf: Any) -> Any:
    """An array of another library's as NumPy's."""
    if isinstance(leaf, _ARRAYS) or not hasattr(leaf, "__array__"):
        return leaf
    try:
        return np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's bfloat16, and what has a gradient of PyTorch's
        raise BatchError(
            f"NumPy makes no array of {describe(leaf)} in the batch ({error}). Convert it where batches are made"
        ) from error


def _shown(written: list[Any]) -> str:
    return ", ".join(f"{dtype}[{','.join(map(str, shape))}]" for shape, dtype in written[1])


def _is_part(one: list[Any], whole: list[Any]) -> bool:
    """Whether that is a smaller batch of the same."""
    if one[0] != whole[0] or len(one[1]) != len(whole[1]):
        return False
    return all(
        a[1] == b[1] and len(a[0]) == len(b[0]) and a[0][1:] == b[0][1:] and a[0][:1] <= b[0][:1]
        for a, b in zip(one[1], whole[1], strict=True)
    )
