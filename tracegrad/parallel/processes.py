"""Several processes as one program: how they start, and whether what should be alike in all of them is."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import clusters, xla_bridge  # What JAX finds is not public.

from ..errors import called, describe, here
from .meeting import (
    COORDINATOR,
    LOCAL_DEVICE_IDS,
    NUM_PROCESSES,
    PROCESS_ID,
    ProcessesError,
    is_loopback,
    meet,
    parts_of,
    some,
)
from .store import read, store, turn

_SHOWN = 5
_ALL, _OWN = "all", "differs between its own devices"


class Processes(NamedTuple):
    """What `initialize` returns.

    Attributes:
      process_id: which process this is, from 0.
      num_processes: how many there are.
      coordinator_address: where process 0 listens; `None` if there is one process.
      found: where this was found: "arguments", "variables" (those of `python -m tracegrad.launch`), "cluster" (SLURM,
        Open MPI, Kubernetes, Cloud TPU) or "nothing".
    """

    process_id: int
    num_processes: int
    coordinator_address: str | None
    found: str


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    local_device_ids: Sequence[int] | None = None,
    heartbeat_seconds: int = 10,
    timeout_seconds: float = 300,
    shutdown_seconds: int = 300,
) -> Processes:
    """Makes this process one of several, by `jax.distributed`; call it before anything uses a device.

    Without arguments it takes what it finds: the variables that `python -m tracegrad.launch` sets
    (`TRACEGRAD_COORDINATOR`, `TRACEGRAD_NUM_PROCESSES`, `TRACEGRAD_PROCESS_ID`, `TRACEGRAD_LOCAL_DEVICE_IDS`), else
    SLURM, Open MPI, Kubernetes or Cloud TPU as JAX finds them. Where there is nothing of these, or one process, it does
    nothing: the same script runs alone. Afterwards `jax.devices()` has the devices of all processes. On a CPU they
    talk by Gloo, which is JAX's default.

    Args:
      coordinator_address: `host:port` at which process 0 listens, and which all can reach.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      local_device_ids: which GPUs of this machine are this process's; all by default, under SLURM and Open MPI one.
      heartbeat_seconds: a process that was not heard of for so long is taken for hung, and all others end.
      timeout_seconds: how long to wait until all have come.
      shutdown_seconds: how long one that has finished waits for the others.

    Raises:
      ValueError: if some of the arguments or variables are missing, or are no such numbers.
      RuntimeError: if several processes are initialized twice, or after a device was used.
      ProcessesError: in every process that came: if one did not come in time (or, in the others, if process 0 cannot
        be reached), or they do not agree about how many there are, how many devices each has, or the version of JAX.

    Example:
      >>> from tracegrad import parallel
      >>> parallel.initialize()
      Processes(process_id=0, num_processes=1, coordinator_address=None, found='nothing')
    """
    for name, number in (("heartbeat_seconds", heartbeat_seconds), ("shutdown_seconds", shutdown_seconds)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{called()}: {name} is {number!r} {here()}. Give whole seconds, 1 or more.")
    if not isinstance(timeout_seconds, (int, float)) or not timeout_seconds > 0:
        raise ValueError(f"{called()}: timeout_seconds is {timeout_seconds!r} {here()}. Give seconds, more than 0.")
    found = _found(coordinator_address, num_processes, process_id, local_device_ids, timeout_seconds)
    (address, count, number), devices, where = found
    if count == 1:
        return Processes(0, 1, None, where)
    if jax.distributed.is_initialized():
        raise RuntimeError(f"{called()} was called before, or jax.distributed.initialize was {here()}. Call it once.")
    if xla_bridge.backends_are_initialized():
        raise RuntimeError(
            f"{called()}: devices were used before {here()}. Call it first: before any array is made, and before "
            "jax.devices(), which has only this process's devices until then."
        )
    deadline = time.monotonic() + timeout_seconds
    try:
        meet(address, number, {"num_processes": count, "jax": jax.__version__}, timeout_seconds)
    except ProcessesError as error:
        raise ProcessesError(f"{called()}: {error} {here()}.") from error
    host, port = parts_of(address)
    jax.distributed.initialize(
        address,
        count,
        number,
        devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(int(deadline - time.monotonic()), 10),
        heartbeat_timeout_seconds=heartbeat_seconds,
        shutdown_timeout_seconds=shutdown_seconds,
        coordinator_bind_address=f"{f'[{host}]' if ':' in host else host}:{port}" if is_loopback(host) else None,
    )
    local = jax.local_devices()
    facts = {"the number of devices": len(local), "their kind": f"{local[0].platform} {local[0].device_kind}"}
    check_alike("what devices there are", facts, timeout_seconds=timeout_seconds)
    return Processes(number, count, address, where)


def _found(
    address: str | None, count: int | None, number: int | None, devices: Sequence[int] | None, seconds: float
) -> tuple[tuple[str, int, int], list[int] | None, str]:
    """Coordinator, number of processes and which one; the local devices; and where that was found."""
    given: dict[str, Any] = {"coordinator_address": address, "num_processes": count, "process_id": number}
    where, names, env = "arguments", list(given), os.environ
    if devices is None and env.get(LOCAL_DEVICE_IDS):
        devices = [_whole(LOCAL_DEVICE_IDS, text) for text in env[LOCAL_DEVICE_IDS].split(",")]
    if all(value is None for value in given.values()):
        where, names = "variables", [COORDINATOR, NUM_PROCESSES, PROCESS_ID]
        given = {name: env.get(name) or None for name in names}
    if all(value is None for value in given.values()):
        where = "cluster"
        detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
        *values, devices = detect(None, None, None, devices, None, int(seconds))
        if all(value is None for value in values):
            return ("", 1, 0), None, "nothing"
        given = dict(zip(names, values, strict=True))
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(
            f"{called()}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing {here()}, and "
            f"{', '.join(name for name in names if name not in missing)} given. Give all three, or none."
        )
    at, of, which = given.values()
    of, which = (_whole(name, value) for name, value in zip(names[1:], (of, which), strict=True))
    if of < 1 or not 0 <= which < of:
        raise ValueError(
            f"{called()}: {names[1]} is {of} and {names[2]} is {which} {here()}. The processes are numbered from 0 to "
            f"{names[1]} - 1."
        )
    try:
        parts_of(str(at))
    except ValueError as error:
        raise ValueError(f"{called()}: {names[0]} {error} {here()}.") from error
    return (str(at), of, which), None if devices is None else list(devices), where


def _whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, (str, int, np.integer)):
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"{called()}: {name} is {value!r} {here()}. Give a whole number.")


# -- alike in all


def check_alike(name: str, tree: Any, *, timeout_seconds: float = 300) -> None:
    """Raises in every process, unless what each gave is the same in all of them, bit for bit.

    All processes must call it, in the same order. Of an array that is spread over devices, the parts that several
    devices hold are compared, and no other; of a replicated one that is all of it. Nothing is compiled, and the
    processes talk by the coordinator, not by their devices: one that does something else is named after
    `timeout_seconds`, and none hangs. In a single process it does nothing.

    The cost: each local copy of an array goes to the host and through SHA-256, at 1.5 GB/s a core (a compiled function
    had a third of that on a CPU), several at the same time; and some 10 ms between 3 processes. The 1.2 GB of 100
    million float32 parameters with Adam's state are 0.8 s: look at each thousandth step.

    Args:
      name: what is compared, for the message, such as "the parameters".
      tree: a pytree of arrays; other leaves, such as numbers and texts, are compared by their `repr`.
      timeout_seconds: how long to wait for the others.

    Raises:
      ProcessesError: in every process, with the processes and the leaves that differ: in structure, shape, dtype or
        values.

    Example:
      >>> import numpy as np
      >>> from tracegrad import parallel
      >>> parallel.check_alike("the parameters", {"w": np.ones(3)})
    """
    client = store()
    if client is None or jax.process_count() == 1:
        return
    own, count = jax.process_index(), jax.process_count()
    looks = _looks(tree)
    total = json.dumps(_totals(name, looks, own))
    number = turn("checks", own)
    folder, deadline = f"tracegrad/alike/{number}", time.monotonic() + timeout_seconds
    client.key_value_set(f"{folder}/total/{own}", total)
    if own == 0:
        totals, late = _gathered(f"{folder}/total", count, deadline)
        if late:
            missing = f"{some(late)} did not come to this check within {timeout_seconds:g} s"
            client.key_value_set(f"{folder}/verdict", f"late {missing}")
        else:
            client.key_value_set(f"{folder}/verdict", "alike" if _are_alike(totals.values()) else "differ")
            client.key_value_delete(f"tracegrad/alike/{number - 1}")  # All have come here, and need it no more.
    verdict = _wait(f"{folder}/verdict", deadline + 10)
    if verdict == "alike":
        return
    if verdict == "differ":
        client.key_value_set(f"{folder}/look/{own}", json.dumps([name, looks]))
        deadline = time.monotonic() + 30
        if own == 0:
            said, _ = _gathered(f"{folder}/look", count, deadline)
            client.key_value_set(f"{folder}/text", _how({i: json.loads(look) for i, look in said.items()}))
        text = _wait(f"{folder}/text", deadline + 10)
        text = text or "it is not the same, and process 0 ended before it said where"
    else:
        text = (verdict or "").removeprefix("late ")
        text = text or f"process 0 did not come to this check within {timeout_seconds:g} s"
    client.key_value_set(f"{folder}/read/{own}", "read")
    if own == 0:  # The store ends with this process: first the others are to have the message.
        _gathered(f"{folder}/read", count, time.monotonic() + (1 if verdict != "differ" else 10))
    raise ProcessesError(
        f"{called()}: {name}, checked {here()}: {text}. Every process must run the same program, and give the same "
        "values of what is not split over the devices: read the same files, and make random numbers by the same key."
    )


def check_program(name: str, lowered: Any) -> None:
    """Raises in every process, unless they all compile the same: devices that run different programs may compute what
    none of them stands for, or wait for each other. Large arrays in the program are not looked at.

    Args:
      name: what is compared, for the message.
      lowered: JAX's `Lowered`.
    """
    if jax.process_count() > 1:
        text = lowered.compiler_ir().operation.get_asm(large_elements_limit=16)
        check_alike(name, hashlib.sha256(text.encode()).hexdigest())


def _wait(key: str, deadline: float) -> str | None:
    return read(key, max(deadline - time.monotonic(), 0.1))


def _gathered(folder: str, count: int, deadline: float) -> tuple[dict[int, str], list[int]]:
    """What each process put there, and those that did not in time."""
    values = {i: _wait(f"{folder}/{i}", deadline) for i in range(count)}
    there = {i: value for i, value in values.items() if value is not None}
    return there, [i for i in values if i not in there]


class _Look(NamedTuple):
    """What a process has of a leaf: its type or value, and of the parts that it shares with others their digests.

    A part has its place in the array, and the processes that hold it.
    """

    name: str
    kind: str
    parts: dict[str, tuple[str, str]]


def _looks(tree: Any) -> list[_Look]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 16), "tracegrad digests") as pool:
        begun = [(jax.tree_util.keystr(path, simple=True, separator="."), *_begun(leaf, pool)) for path, leaf in leaves]
        return [
            _Look(name, kind, {at: (holders, _one(list(copies))) for at, (holders, copies) in parts.items()})
            for name, kind, parts in begun
        ]


def _begun(leaf: Any, pool: ThreadPoolExecutor) -> tuple[str, Mapping[str, tuple[str, Iterable[str]]]]:
    """The type of a leaf, and its parts, whose digests are being computed."""
    if not isinstance(leaf, (np.ndarray, np.generic, jax.Array)):
        return repr(leaf), {}
    kind = f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if not isinstance(leaf, jax.Array) or len(leaf.sharding.device_set) == 1:
        return kind, {"": (_ALL, pool.map(_digest, [leaf]))}
    holders: dict[str, list[int]] = {}
    for device, index in leaf.sharding.devices_indices_map(leaf.shape).items():
        holders.setdefault(str(index), []).append(device.process_index)  # type: ignore[attr-defined]
    copies: dict[str, list[Any]] = {}
    for shard in leaf.addressable_shards:
        copies.setdefault(str(shard.index), []).append(shard.data)
    parts: dict[str, tuple[str, Iterable[str]]] = {
        at: (",".join(map(str, sorted(set(holders[at])))), pool.map(_digest, datas))
        for at, datas in copies.items()
        if len(holders[at]) > 1
    }
    return f"{kind} {getattr(leaf.sharding, 'spec', '')}".rstrip(), parts


def _one(digests: list[str]) -> str:
    return digests[0] if len(set(digests)) == 1 else _OWN


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()[:32]


def _totals(name: str, looks: list[_Look], process_id: int) -> dict[str, str]:
    """One digest for each set of processes that hold the same: these are to have the same one."""
    groups: dict[str, list[Any]] = {_ALL: [name, [look[:2] for look in looks]]}
    for look in looks:
        for at, (holders, digest) in look.parts.items():
            own = process_id if digest == _OWN else None  # Two such are not alike either.
            groups.setdefault(holders, []).append([look.name, at, digest, own])
    hashed = {holders: hashlib.sha256(json.dumps(said).encode()).hexdigest() for holders, said in groups.items()}
    return {hashlib.sha256(holders.encode()).hexdigest()[:16]: digest for holders, digest in hashed.items()}


def _are_alike(totals: Iterable[str]) -> bool:
    said: dict[str, set[str]] = {}
    for total in totals:
        for holders, digest in json.loads(total).items():
            said.setdefault(holders, set()).add(digest)
    return all(len(digests) == 1 for digests in said.values())


def _how(said: Mapping[int, tuple[str, list[Any]]]) -> str:
    """Which processes differ from the most, and in what."""
    tables: dict[int, dict[tuple[str, str], str]] = {}
    for i, (name, looks) in said.items():
        tables[i] = {("", "name"): name}
        for leaf, kind, parts in looks:
            tables[i] |= {(leaf, "kind"): kind} | {(leaf, f"part {at}"): digest for at, (_, digest) in parts.items()}
    lines: dict[int, dict[str, str]] = {i: {} for i in sorted(said)}
    against: dict[int, int] = {}
    for leaf, what in dict.fromkeys(key for i in sorted(tables) for key in tables[i]):
        votes = {i: tables[i].get((leaf, what)) for i in sorted(tables)}
        if what.startswith("part"):
            votes = {i: vote for i, vote in votes.items() if vote is not None}
        most = Counter(votes.values()).most_common(1)[0][0]
        j = next(i for i, vote in votes.items() if vote == most)
        for i, vote in votes.items():
            if vote != most or vote == _OWN:
                against.setdefault(i, j)
                lines[i].setdefault(leaf if what != "name" else "name", _line(leaf, what, vote, most, i, j))
    texts = [
        f"process {i} differs{f' from process {against[i]}' if against[i] != i else ''}: "
        + ", ".join(list(of.values())[:_SHOWN])
        + (f" and {len(of) - _SHOWN} more" if len(of) > _SHOWN else "")
        for i, of in lines.items()
        if of
    ]
    return "; ".join(texts[:_SHOWN]) + (f"; and {len(texts) - _SHOWN} more processes" if texts[_SHOWN:] else "")


def _line(leaf: str, what: str, own: str | None, most: str | None, i: int, j: int) -> str:
    leaf = leaf or "the value"
    if what == "name":
        return f"it checks {own!r}, and process {j} {most!r}"
    if what != "kind":
        return f"the values of {leaf} differ" + (" between the devices of the process" if own == _OWN else "")
    if own is None or most is None:
        return f"{leaf} is {'not in process' if own is None else 'in process'} {i}{'' if own is None else ' alone'}"
    return f"{leaf} is {_short(own)} in process {i} and {_short(most)} in process {j}"


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_mesh(devices: Any) -> None:
    """Raises unless every process has a device among these, a mesh or a sequence.

    A program over devices of some processes alone has no results in the others, and one that these do not run hangs.

    Raises:
      ValueError: with the processes that have none.

    Example:
      >>> import jax
      >>> from tracegrad import parallel
      >>> parallel.check_mesh(jax.devices())
    """
    if isinstance(devices, jax.sharding.Mesh):
        devices = devices.devices
    devices = list(np.asarray(devices, dtype=object).reshape(-1))
    wrong = [d for d in devices if not isinstance(d, jax.Device)]
    if wrong:
        raise TypeError(f"{called()}: {describe(wrong[0])} is no device {here()}. Give a Mesh, or a list of devices.")
    present = {d.process_index for d in devices}
    if missing := [i for i in range(jax.process_count()) if i not in present]:
        raise ValueError(
            f"{called()}: the mesh of {len(devices)} devices has none of {some(missing)} {here()}, of "
            f"{jax.process_count()}. Take all of jax.devices(), or as many of each process; to use fewer, start fewer "
            "processes."
        )
