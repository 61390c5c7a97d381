"""Checkpoints: a training at a step, in a folder; written whole or not at all, in a thread, and checked when read."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ..errors import called, describe, here
from . import agreement
from .agreement import nothing
from .extras import extra
from .weights import (
    differences,
    from_named,
    is_key,
    is_spread,
    named_leaves,
    on_host,
    shape_and_dtype,
    shortened,
    text,
)

FORMAT = 1
_META, _ARRAYS, _LOCK, _TEMPORARY, _REPLACED = "checkpoint.json", "arrays", ".lock", ".tmp-", ".replaced-"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or is not to be used."""


class Checkpoint(NamedTuple):
    """What `Checkpoints.restore` returns.

    Attributes:
      step: after how many steps it was saved.
      state: like the tree that it was restored into; without one, a dict of NumPy's arrays by name.
      metrics: numbers by name.
      extra: whatever was saved besides, with NumPy's arrays.
    """

    step: int
    state: Any
    metrics: dict[str, float]
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training in a folder, by orbax-checkpoint.

    Each is a folder named by its step: `arrays`, as orbax-checkpoint writes them, and `checkpoint.json`, with the
    shape, the dtype and the SHA-256 of each. There is no pickle in it. It is written elsewhere and then moved, so that
    it is whole or not there, whenever the process ends. `save` copies the arrays to the host and returns; a thread does
    the rest. One training writes into a folder at a time.

    In many processes all of them call `save`, `wait`, `lock`, `close` and `restore`, in the same order, and process 0
    alone writes. Arrays that are spread over processes are gathered, one after the other: each goes over the network,
    and through the memory of every device, whole. All processes read, so all have to see the folder. A checkpoint has
    whole arrays, so that any number of processes and devices reads it.

    Args:
      directory: the folder; it is made when the first checkpoint is saved.
      every: how often `fit` saves, in steps; it saves at the end in any case.
      keep: how many of the last stay; `None` for all.
      monitor: the name of a metric by which one is the best, such as "val_loss". That one stays too.
      mode: whether the least or the greatest is the best.

    Raises:
      ImportError: without orbax-checkpoint, when `fit` begins, and when something is saved or read.
      CheckpointError: from `save` and `wait`, if the folder cannot be written or another process writes into it; what
        was saved before stays.

    Example:
      >>> import tempfile, numpy as np
      >>> from tracegrad import train
      >>> folder = tempfile.TemporaryDirectory()
      >>> with train.Checkpoints(folder.name, keep=2, monitor="val_loss") as checkpoints:
      ...     for step, value in enumerate([3.0, 1.0, 2.0, 4.0]):
      ...         checkpoints.save(step, {"w": np.full(2, value)}, {"val_loss": value})
      >>> checkpoints.steps(), checkpoints.best()
      ([1, 2, 3], 1)
      >>> checkpoints.restore({"w": np.zeros(2)}, best=True).state["w"].tolist()
      [1.0, 1.0]
      >>> folder.cleanup()
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        every: int | None = None,
        keep: int | None = 3,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{called()}: {name} is {value!r} {here()}. Give 1 or more, or None.")
        if mode not in ("min", "max"):
            raise ValueError(f"{called()}: mode={mode!r} {here()}. Choose 'min' or 'max'.")
        self.directory = Path(directory)
        self.every, self.keep, self.monitor, self.mode = every, keep, monitor, mode
        self._locked = False
        self._lock: Any = None  # The file, in process 0.
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        # Called now and then while this waits for another process; it raises to end that.
        self.waiting: Callable[[], None] = nothing

    # -- what is there

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in order."""
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdecimal() and p.is_dir())

    def latest(self) -> int | None:
        """The last step of which there is a checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """The step of the checkpoint whose metric `monitor` is the best; `None` if there is none with it."""
        if self.monitor is None:
            raise ValueError(
                f"{called()}: there is no best without a metric {here()}. Give monitor=, such as 'val_loss'."
            )
        return self._best({step: self._read(step)["metrics"] for step in self.steps()})

    def _best(self, metrics: Mapping[int, Mapping[str, float]]) -> int | None:
        sign, name = 1 if self.mode == "min" else -1, self.monitor or ""
        values = {step: sign * m[name] for step, m in metrics.items() if name in m}
        values = {step: value for step, value in values.items() if not math.isnan(value)}
        return min(values, key=lambda step: (values[step], step), default=None)

    # -- writing

    def save(
        self,
        step: int,
        state: Any,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Saves a training: copies it to the host, and writes it in a thread, in process 0.

        One is written at a time: a second call waits for the first.

        Args:
          step: how many steps there were; a checkpoint of the same step is replaced.
          state: a pytree of arrays; its memory may be donated when this returns.
          metrics: numbers by name.
          extra: what else is to be found again: nested dicts and lists of numbers, texts and arrays.

        Raises:
          CheckpointError: if this, or the one before, cannot be written.
          TypeError: if something in `extra` is nothing of this.
        """
        if not isinstance(step, (int, np.integer)) or step < 0:
            raise ValueError(f"{called()}: step is {describe(step)} {here()}. Give how many steps there were.")
        ocp = _orbax()
        self._wait(f"saving step {step}")
        self.lock()
        arrays, keys, writes = {}, {}, agreement.index() == 0
        for name, leaf in named_leaves(state).items():
            if is_key(leaf):
                keys[f"state.{name}"] = str(jax.random.key_impl(leaf))
            if writes or is_spread(leaf):
                array = on_host(leaf)
                if writes:
                    arrays[f"state.{name}"] = array
        meta = {
            "step": int(step),
            "metrics": {name: float(value) for name, value in (metrics or {}).items()},
            "keys": keys,
            "extra": _without_arrays(dict(extra or {}), arrays, "extra"),
        }
        if not writes:
            return
        self._thread = threading.Thread(
            target=self._write, args=(ocp, int(step), arrays, meta), name="tracegrad checkpoint"
        )
        self._thread.start()

    def _write(self, ocp: Any, step: int, arrays: dict[str, np.ndarray[Any, Any]], meta: dict[str, Any]) -> None:
        temporary = self.directory / f"{_TEMPORARY}{step}"
        try:
            meta["arrays"] = {name: [list(a.shape), str(a.dtype), _digest(a)] for name, a in arrays.items()}
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            with _alone(ocp) as checkpointer:
                # Orbax takes no array without elements; its shape and dtype are all that there is to it.
                full = {name: a for name, a in arrays.items() if a.size}
                checkpointer.save((temporary / _ARRAYS).absolute(), args=ocp.args.PyTreeSave(full))
            content = json.dumps(meta)
            whole = json.dumps(
                {"format": FORMAT, "sha256": hashlib.sha256(content.encode()).hexdigest(), "meta": content}
            )
            (temporary / _META).write_text(whole)
            _synced(temporary)
            target = self.directory / str(step)
            if target.exists():
                target.rename(self.directory / f"{_REPLACED}{step}")
            temporary.rename(target)
            _synced(self.directory, deep=False)
            shutil.rmtree(self.directory / f"{_REPLACED}{step}", ignore_errors=True)
            self._remove_old(step, meta["metrics"])
        except BaseException as error:  # The next one to call is told.
            shutil.rmtree(temporary, ignore_errors=True)
            self._put_back()
            self._error = error

    def _put_back(self) -> None:
        """What was to be replaced, where nothing took its place."""
        for path in self.directory.glob(f"{_REPLACED}*"):
            target = self.directory / path.name.removeprefix(_REPLACED)
            if target.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.rename(target)

    def _remove_old(self, step: int, metrics: dict[str, float]) -> None:
        if self.keep is None:
            return
        steps = self.steps()
        # One saved after a newer one, as when a training goes back, is not thrown away at once.
        stay = {*steps[-self.keep :], step}
        if self.monitor is not None:
            known = {s: metrics if s == step else self._read(s)["metrics"] for s in steps}
            stay.add(self._best(known))  # type: ignore[arg-type]
        for old in steps:
            if old not in stay:
                # First out of the way: what is half removed is no checkpoint.
                gone = self.directory / f"{_TEMPORARY}{old}"
                (self.directory / str(old)).rename(gone)
                shutil.rmtree(gone, ignore_errors=True)

    def wait(self) -> None:
        """Waits until what was saved is written.

        Raises:
          CheckpointError: if it could not be.
        """
        self._wait("waiting for a checkpoint")

    def _wait(self, what: str) -> None:
        agreement.first(what, self._written, self.waiting, (CheckpointError,))

    def _written(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            latest = self.latest()
            last = (
                "there is none before it" if latest is None else f"the last good one, of step {latest}, is still there"
            )
            raise CheckpointError(
                f"{called()}: the checkpoint could not be written to {self.directory} {here()}: "
                f"{_reason(error)}. Nothing of it is left there; {last}."
            ) from error

    def join(self, timeout: float | None = None) -> None:
        """Waits until this process has written what was saved, for so many seconds at most; tells no error."""
        if self._thread is not None:
            self._thread.join(timeout)

    def lock(self) -> None:
        """Makes the folder, and makes this the one that writes into it, until `close` or the end of the process.

        Raises:
          CheckpointError: if another does, or the folder cannot be written.
        """
        if not self._locked:
            agreement.first("locking a folder", self._take, self.waiting, (CheckpointError, ImportError))
            self._locked = True

    def _take(self) -> None:
        import fcntl  # Windows has it not, and the rest of this file it has.

        _orbax()  # A training learns at its start that it could not be saved.

        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            file = open(self.directory / _LOCK, "a+")  # noqa: SIM115
        except OSError as error:
            raise CheckpointError(
                f"{called()}: {self.directory} cannot be written {here()}: {_reason(error)}. Give a folder that can."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise CheckpointError(f"{called()}: {self.directory} cannot be locked {here()}: {error}") from error
            raise CheckpointError(
                f"{called()}: {owner} writes checkpoints into {self.directory} {here()}. Give each training a "
                "folder of its own; in the same process, close() the Checkpoints before, or use it as `with`."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock = file
        weakref.finalize(self, file.close)  # Whoever does not close it keeps the folder no longer than it.
        self._put_back()
        for path in self.directory.glob(f"{_TEMPORARY}*"):  # What a process left that ended while it wrote.
            shutil.rmtree(path, ignore_errors=True)

    @property
    def locked(self) -> bool:
        """Whether this is the one that writes into the folder."""
        return self._locked

    def close(self) -> None:
        """Waits until what was saved is written, and lets another training write into the folder."""
        try:
            self.wait()
        finally:
            self._free()

    def _free(self) -> None:
        self._locked = False
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        if kind is None or agreement.count() == 1:
            self.close()
            return
        # The others may not come here: nobody waits for them.
        try:
            self._written()
        finally:
            self._free()

    # -- reading

    def restore(self, like: Any = None, step: int | None = None, *, best: bool = False) -> Checkpoint:
        """Reads a checkpoint: the last, one of a step, or the best; what is being saved counts. All of it is checked.

        Args:
          like: a pytree of arrays with the names, shapes and dtypes of the state that was saved. Its values do not
            matter, and the new arrays are on the same devices. Without it, the state is a dict by name.
          step: which; the last by default.
          best: that whose metric `monitor` is the best.

        Raises:
          FileNotFoundError: if there is none.
          CheckpointError: if it is damaged, or its state is not like `like`; the message names the array, shapes and
            dtypes.
        """
        chosen, digest = agreement.first(
            "restoring", lambda: self._chosen(step, best), self.waiting, (CheckpointError, FileNotFoundError)
        )
        # A folder on a network may show itself later to others.
        return agreement.all_well(  # type: ignore[no-any-return]
            f"restoring step {chosen}", lambda: self._restored(like, chosen, digest), self.waiting, CheckpointError
        )

    def _chosen(self, step: int | None, best: bool) -> tuple[int, str]:
        """Which step, and the digest of what is in its checkpoint."""
        self.join()  # What is being written is the last then, and nothing is removed while it is read.
        steps = self.steps()
        chosen = self.best() if best else step if step is not None else max(steps, default=None)
        if chosen is None or chosen not in steps:
            which = "" if step is None else f" of step {step}"
            raise FileNotFoundError(
                f"{called()}: there is no checkpoint{which} in {self.directory} {here()}. "
                + (f"There are those of steps {', '.join(map(str, steps))}." if steps else "It has none.")
            )
        return chosen, _digest_of(self._read(chosen))

    def _restored(self, like: Any, chosen: int, digest: str) -> Checkpoint:
        meta = self._read_soon(chosen, digest)
        shapes = {name: (tuple(shape), dtype) for name, (shape, dtype, _) in meta["arrays"].items()}
        own = {name.removeprefix("state."): entry for name, entry in shapes.items() if name.startswith("state.")}
        # A key is saved as its bits; it is the same if its generator is.
        for name, impl in meta["keys"].items():
            shape, _ = own[name.removeprefix("state.")]
            own[name.removeprefix("state.")] = shape[:-1], str(jax.random.key(0, impl=impl).dtype)
        if like is not None and (wrong := differences(own, like, "the checkpoint")):
            raise CheckpointError(
                f"{called()}: the checkpoint of step {chosen} in {self.directory} does not fit {here()}: "
                f"{shortened(wrong)}. It is of another model or optimizer: make those that it was saved with, or give "
                "another folder."
            )
        arrays = self._arrays(chosen, meta, shapes)
        state: Any = {name.removeprefix("state."): a for name, a in arrays.items() if name.startswith("state.")}
        if like is not None:
            state = from_named(state, like)
        return Checkpoint(chosen, state, meta["metrics"], _with_arrays(meta["extra"], arrays))

    def _read_soon(self, step: int, digest: str) -> dict[str, Any]:
        """Reads what process 0 has read; on a network a folder may show itself later to others."""
        deadline = time.monotonic() + (_PATIENCE if agreement.index() else 0)
        while True:
            try:
                meta = self._read(step)
            except CheckpointError:
                if time.monotonic() > deadline:
                    raise
            else:
                if _digest_of(meta) == digest:
                    return meta
                if time.monotonic() > deadline:
                    raise self._damaged(step, "it is another one than that which process 0 has read")
            time.sleep(0.1)

    def _read(self, step: int) -> dict[str, Any]:
        path = self.directory / str(step) / _META
        try:
            whole = json.loads(path.read_text())
            content = whole["meta"]
            if whole["format"] > FORMAT:
                raise CheckpointError(f"{called()}: {path} was written by a newer version of tracegrad {here()}.")
            if hashlib.sha256(content.encode()).hexdigest() != whole["sha256"]:
                raise ValueError("its content is not what was written")
            return json.loads(content)  # type: ignore[no-any-return]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(step, f"{path.name} cannot be read ({_reason(error)})") from error

    def _arrays(self, step: int, meta: dict[str, Any], shapes: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        ocp = _orbax()
        full = [name for name, (shape, _) in shapes.items() if math.prod(shape)]
        path = (self.directory / str(step) / _ARRAYS).absolute()
        try:
            found = _read_arrays(ocp, path, full)
        except Exception as error:  # Orbax and tensorstore raise what they like for a file that is not as it was.
            bad = []
            for name in full:
                try:
                    _read_arrays(ocp, path, [name])
                except Exception:
                    bad.append(f"{name}, {text(*shapes[name])}")
            which = f"{shortened(bad)} cannot be read" if bad else "its arrays cannot be read"
            raise self._damaged(step, f"{which} ({_reason(error)})") from error
        arrays = {}
        for name, (shape, dtype, digest) in meta["arrays"].items():
            array = np.asarray(found[name]) if name in found else np.zeros(shape, jax.numpy.dtype(dtype))
            if shape_and_dtype(array) != (tuple(shape), dtype) or _digest(array) != digest:
                raise self._damaged(step, f"{name}, {text(shape, dtype)}, is not what was saved")
            arrays[name] = array
        return arrays

    def _damaged(self, step: int, what: str) -> CheckpointError:
        others = [s for s in self.steps() if s != step]
        remedy = f"There are those of steps {', '.join(map(str, others))}" if others else "There is no other"
        return CheckpointError(
            f"{called()}: the checkpoint of step {step} in {self.directory} is damaged {here()}: {what}. {remedy}; "
            f"remove {self.directory / str(step)} to go on without it."
        )


_PATIENCE = 30.0
"""For how many seconds a process waits for a checkpoint that process 0 sees."""


def _digest_of(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _orbax() -> Any:
    return extra("orbax.checkpoint", "orbax-checkpoint")


def _alone(ocp: Any) -> Any:
    """What reads and writes in this process, and does not wait for others."""
    if agreement.count() == 1:
        return ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    own = agreement.index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"tracegrad{own}"
    )
    handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def _read_arrays(ocp: Any, path: Path, names: list[str]) -> dict[str, Any]:
    wanted = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    args = ocp.args.PyTreeRestore(item=dict.fromkeys(names, 0), restore_args=wanted, partial_restore=True)
    with _alone(ocp) as checkpointer:
        return checkpointer.restore(path, args=args)  # type: ignore[no-any-return]


def _reason(error: BaseException) -> str:
    """What went wrong, on one line and not as long as tensorstore says it."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:300]}"


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"").hexdigest()


def _synced(path: Path, deep: bool = True) -> None:
    """Waits until the disk has what was written."""
    for part in [*path.rglob("*"), path] if deep else [path]:
        descriptor = os.open(part, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_ARRAY = "__array__"


def _without_arrays(value: Any, arrays: dict[str, np.ndarray[Any, Any]], name: str) -> Any:
    """The value as JSON takes it; arrays in it go to `arrays`."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, bytes):
        return _without_arrays({"__bytes__": np.frombuffer(value, np.uint8)}, arrays, name)
    if isinstance(value, Mapping):
        return {str(k): _without_arrays(v, arrays, f"{name}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, arrays, f"{name}.{i}") for i, v in enumerate(value)]
    if isinstance(value, np.generic) and value.ndim == 0:
        return value.item()
    if isinstance(value, (np.ndarray, jax.Array)):
        arrays[name] = on_host(value)
        return {_ARRAY: name}
    raise TypeError(
        f"{called()}: {name} is {describe(value)} {here()}, which is not kept. Give numbers, texts, arrays, and dicts "
        "and lists of these."
    )


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        if value.keys() == {"__bytes__"}:
            return _with_arrays(value["__bytes__"], arrays).tobytes()
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    return value


__all__ = ["Checkpoint", "CheckpointError", "Checkpoints"]
