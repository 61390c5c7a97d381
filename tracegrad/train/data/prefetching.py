"""What comes next is made ready in a thread while the present batch is worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from ...errors import called, describe, here

T = TypeVar("T")

_PATIENCE = 1.0
"""For how many seconds a thread may take to end once nobody waits for it; a source may be waiting itself."""


def prefetch(iterable: Iterable[T], size: int = 2, *, device: Any = None) -> Iterator[T]:
    """The items of an iterable, of which the next few are made in a thread while one is worked on.

    An exception in the iterable is raised at its place among the items. The thread ends when the items do, or when the
    iterator is closed or dropped, as by leaving the loop.

    Args:
      iterable: anything that a `for` goes through.
      size: how many items wait at most, beside the one that is being made.
      device: a device, or a sharding, that the arrays of each item are put on in the thread; `None` leaves them. With a
        sharding over the devices of several processes the items are this process's part of the arrays.

    Example:
      >>> from tracegrad.train import data
      >>> list(data.prefetch(range(3)))
      [0, 1, 2]
    """
    if not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"{called()}: size={size!r} {here()} is how many items may wait. Give 1 or more.")
    try:
        iterator = iter(iterable)
    except TypeError:
        raise TypeError(f"{called()}: {describe(iterable)} is nothing to iterate over {here()}") from None
    return _ahead(iterator, size, device)


def _put(item: Any, device: Any) -> Any:
    if isinstance(device, jax.sharding.Sharding) and not device.is_fully_addressable:
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(device, np.asarray(x)), item)
    return jax.device_put(item, device)


def _ahead(iterator: Iterator[T], size: int, device: Any) -> Iterator[T]:
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(size)
    stopped = threading.Event()

    def work() -> None:
        try:
            for item in iterator:
                ready.put((True, item if device is None else _put(item, device)))
                if stopped.is_set():
                    return
            ready.put((False, None))
        except BaseException as error:  # Whatever it is, the one who waits for the item is told.
            ready.put((False, error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=work, name="tracegrad prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        # The thread may be waiting for room.
        while not ready.empty():
            ready.get()
        thread.join(_PATIENCE)
