"""Several processes find each other, say who is missing, and notice what is not alike in all of them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from tracegrad import parallel
from tracegrad.parallel import meeting, processes

from .running import ROOT, Running

pytestmark = pytest.mark.xdist_group("processes")

CLUSTERS = [
    "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "OMPI_MCA_orte_hnp_uri",
    "KUBERNETES_SERVICE_HOST", "TRACEGRAD_COORDINATOR", "TRACEGRAD_NUM_PROCESSES", "TRACEGRAD_PROCESS_ID",
    "TRACEGRAD_LOCAL_DEVICE_IDS",
]  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CLUSTERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# -- what is found


SLURM = {
    "SLURM_JOB_ID": "1234", "SLURM_STEP_NODELIST": "node[007-009],x", "SLURM_NTASKS": "4", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}  # fmt: skip
OMPI = {
    "OMPI_MCA_orte_hnp_uri": "8192000.0;tcp://10.1.2.3,10.4.5.6:34911", "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_LOCAL_RANK": "2",
}  # fmt: skip
OURS = {"TRACEGRAD_COORDINATOR": "h:7", "TRACEGRAD_NUM_PROCESSES": "3", "TRACEGRAD_PROCESS_ID": "2"}
# JAX takes the port from the number of the job: 61440 + 1234 % 4096, and for Open MPI of the job / 4096.
FOUND: dict[str, tuple[dict[str, str], tuple[Any, ...], tuple[Any, ...]]] = {
    "nothing": ({}, (), (("", 1, 0), None, "nothing")),
    "arguments": (OURS, ("a:1", 2, 1), (("a:1", 2, 1), None, "arguments")),
    "variables": (OURS | SLURM, (), (("h:7", 3, 2), None, "variables")),
    "devices": (OURS | {"TRACEGRAD_LOCAL_DEVICE_IDS": "2,3"}, (), (("h:7", 3, 2), [2, 3], "variables")),
    "SLURM": (SLURM, (), (("node007:62674", 4, 3), [1], "cluster")),
    "SLURM on one": (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, (), (("node007:62674", 1, 0), [1], "cluster")),
    "Open MPI": (OMPI, (), (("10.1.2.3:63440", 8, 5), [2], "cluster")),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_found(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env, arguments, expected = FOUND[case]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert processes._found(*(arguments or (None,) * 3), None, 5) == expected


def test_one_process_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert parallel.initialize() == (0, 1, None, "nothing")
    assert parallel.initialize("nowhere:1", 1, 0) == (0, 1, None, "arguments")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    for name, value in (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}).items():
        monkeypatch.setenv(name, value)
    assert parallel.initialize() == (0, 1, None, "cluster")
    assert not jax.distributed.is_initialized()


def three(address: Any, count: Any, number: Any) -> dict[str, Any]:
    return {"coordinator_address": address, "num_processes": count, "process_id": number}


WRONG: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "no address": (three(None, 2, 0), {}, "coordinator_address is missing .*, and num_processes, process_id given"),
    "one of three": ({"process_id": 0}, {}, "coordinator_address, num_processes are missing"),
    "half the variables": ({}, {"TRACEGRAD_PROCESS_ID": "0"}, "TRACEGRAD_COORDINATOR, TRACEGRAD_NUM_PROCESSES are"),
    "out of range": (three("a:1", 2, 2), {}, "num_processes is 2 and process_id is 2"),
    "negative": (three("a:1", 2, -1), {}, "process_id is -1"),
    "no process": (three("a:1", 0, 0), {}, "num_processes is 0"),
    "a fraction": (three("a:1", 2.5, 0), {}, "num_processes is 2.5"),
    "a word": ({}, OURS | {"TRACEGRAD_PROCESS_ID": "two"}, "TRACEGRAD_PROCESS_ID is 'two'"),
    "no port": (three("host", 2, 0), {}, "coordinator_address 'host' is not host:port"),
    "no such port": (three("host:70000", 2, 0), {}, "'host:70000' is not host:port"),
    "heartbeat": ({"heartbeat_seconds": 0}, {}, "heartbeat_seconds is 0"),
    "timeout": ({"timeout_seconds": -1}, {}, "timeout_seconds is -1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, env, message = WRONG[case]
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message) as caught:
        parallel.initialize(**arguments)
    assert str(caught.value).startswith("initialize: ") and "test_processes.py" in str(caught.value)


def test_devices_were_used(port: int) -> None:
    jax.devices()
    with pytest.raises(RuntimeError, match=r"initialize: devices were used before at .*test_processes.py"):
        parallel.initialize(f"127.0.0.1:{port}", 2, 0)


# -- how they meet


def meetings(port: int, *calls: tuple[int, dict[str, Any], float], host: str = "127.0.0.1") -> Iterator[str]:
    """What each process of a meeting is told; "" if all is well."""
    told: dict[int, str] = {}

    def come(at: int, process_id: int, facts: dict[str, Any], seconds: float) -> None:
        try:
            meeting.meet(f"{host}:{port}", process_id, facts, seconds)
            told[at] = ""
        except meeting.ProcessesError as error:
            told[at] = str(error)

    threads = [threading.Thread(target=come, args=(i, *call), daemon=True) for i, call in enumerate(calls)]
    for thread in reversed(threads):  # Process 0 last: the others have to try again.
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(20)
    yield from (told[i] for i in range(len(calls)))


THREE = {"num_processes": 3}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", socket.gethostname()])
def test_all_come(port: int, host: str) -> None:
    def serve() -> None:  # As JAX's service does when all have come; until then they wait.
        time.sleep(0.7)
        with socket.create_server((host, port)):
            time.sleep(1)

    threading.Thread(target=serve, daemon=True).start()
    begun = time.monotonic()
    assert set(meetings(port, (0, THREE, 10), (1, THREE, 10), (2, THREE, 10), host=host)) == {""}
    assert time.monotonic() - begun < 5


def test_one_does_not_come(port: int) -> None:
    begun = time.monotonic()
    told = set(meetings(port, (0, THREE, 1.0), (2, THREE, 10)))
    assert told == {f"process 1 of 3 did not come to 127.0.0.1:{port} within 1 s"}
    assert time.monotonic() - begun < 3


def test_they_disagree(port: int) -> None:
    told = list(meetings(port, (0, THREE, 10), (1, {"num_processes": 4}, 2)))
    assert set(told) == {"num_processes is 3 in process 0 and 4 in process 1"}


def test_two_have_the_same_number(port: int) -> None:
    assert set(meetings(port, (0, THREE, 10), (1, THREE, 2), (1, THREE, 2))) == {
        "two processes say that they are number 1"
    }


NOBODY = [
    ("127.0.0.1", "Connection refused"),
    ("nowhere.invalid", "not known|resolution"),
]


@pytest.mark.parametrize("case", NOBODY, ids=[host for host, _ in NOBODY])
def test_nobody_is_there(case: tuple[str, str], port: int) -> None:
    host, cause = case
    begun = time.monotonic()
    (told,) = meetings(port, (1, THREE, 1.0), host=host)
    assert re.search(
        rf"process 1 cannot reach the coordinator, process 0, at {host}:{port} within 1 s: .*({cause})", told
    )
    assert time.monotonic() - begun < 8  # A resolver may take its time.


def test_somebody_else_is_there(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        (told,) = meetings(port, (0, THREE, 1.0))
        assert f"process 0 cannot listen at 127.0.0.1:{port}: " in told and "Choose another port" in told
        (told,) = meetings(port, (1, THREE, 0.5))
        assert re.search("within 0.5 s: .*(did not say that all had come|no answer)", told)


def test_whoever_looks_at_the_port_does_no_harm(port: int) -> None:
    def look() -> None:
        time.sleep(0.3)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"", b"[1]\n", b"\xff\xfe\n"):
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(data)

    threading.Thread(target=look, daemon=True).start()
    (told,) = meetings(port, (0, THREE, 1.5))
    assert told == f"processes 1, 2 of 3 did not come to 127.0.0.1:{port} within 1.5 s"


# -- in processes of their own


def test_an_unreachable_coordinator_is_an_error_of_python(port: int) -> None:
    """JAX's client would end the process by SIGABRT."""
    program = f"""
        import time
        from tracegrad import parallel
        begun = time.monotonic()
        try:
            parallel.initialize("127.0.0.1:{port}", 2, 1, timeout_seconds=1)
        except parallel.ProcessesError as error:
            print(error, time.monotonic() - begun < 2.5)
    """
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(
        rf"initialize: process 1 cannot reach .*127.0.0.1:{port} within 1 s: Connection refused.*True", done.stdout
    )


def test_as_slurm_starts_them(tmp_path: Path) -> None:
    """Two processes with SLURM's variables, on a node with the name localhost."""
    program = (
        "import jax\nfrom tracegrad import parallel\nprint(parallel.initialize(timeout_seconds=40), jax.device_count())"
    )
    running = []
    for i in range(2):
        env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)} | {"PYTHONPATH": str(ROOT)}
        env |= SLURM | {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2", "SLURM_PROCID": str(i)}
        env |= {"SLURM_JOB_ID": str(os.getpid()), "JAX_PLATFORMS": "cpu"}
        (tmp_path / "program.py").write_text(program)
        command = [sys.executable, "-m", "tracegrad.worker", str(tmp_path / "program.py")]
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        port = 61440 + os.getpid() % 4096
        for i, process in enumerate(running):
            out, err = process.communicate(timeout=60)
            assert out.strip() == (
                f"Processes(process_id={i}, num_processes=2, coordinator_address='localhost:{port}', found='cluster') 2"
            )
            assert process.returncode == 0 and not err
    finally:
        for process in running:
            process.kill()


CHECKS = """
import os, time
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tracegrad import parallel
own = parallel.initialize(heartbeat_seconds=10, timeout_seconds=60)
i = own.process_id
mesh = Mesh(np.array(jax.devices()), "d")
def placed(spec, *values):
    shape = jax.device_put(values[0]).shape
    shape = (shape[0] * len(jax.devices()),) if spec else shape
    parts = [jax.device_put(v, d) for v, d in zip(values, jax.local_devices(), strict=True)]
    return jax.make_array_from_single_device_arrays(shape, NamedSharding(mesh, P(*spec)), parts)
def rows(*values):
    # Rows over two groups of devices, of which process 1 has one of each.
    rows = Mesh(np.array(jax.devices()).reshape(2, 3), ("rows", "same"))
    parts = [jax.device_put(np.full((1, 2), float(values[i])), d) for d in jax.local_devices()]
    return jax.make_array_from_single_device_arrays((2, 2), NamedSharding(rows, P("rows")), parts)
one, ones = np.ones(3, np.float32), np.ones((2, 3), np.float32)
nan = np.array([np.nan, -0.0, 0.0])
cases = {
    "alike": {"w": one, "n": 3, "t": "x", "none": None, "key": jax.random.key(1), "nan": nan, "no": np.zeros((0, 3))},
    "replicated": placed((), one, one),
    "split": placed(("d",), one * i, one + i),
    "value": {"a": one, "w": one + (i == 1) * np.float32(2) ** -23},
    "sign of zero": {"w": nan if i else -nan},
    "shape": [one if i else ones],
    "dtype": [one if i == 2 else one.astype(np.float16)],
    "leaf": {"a": one, "b": one} if i == 2 else {"a": one},
    "text": {"program": "x" if i == 1 else "y", "lr": 0.1 * (1 + i // 2)},
    "key": jax.random.key(i),
    "copies": placed((), one + (i == 1), one + (i == 1)),
    "one copy": placed((), one, one + (i == 2)),
    "all copies": placed((), one, one + 1),
    "rows alike": {"a": rows(0, 0, 0)},
    "rows": {"a": rows(0, 0, 1)},
    "alike again": one,
}
for name, tree in cases.items():
    try:
        parallel.check_alike(name, tree, timeout_seconds=20)
        print(f"{name}: alike", flush=True)
    except parallel.ProcessesError as error:
        print(error, flush=True)
try:
    parallel.check_alike("a" if i else "b", 1)
except parallel.ProcessesError as error:
    print(error, flush=True)
try:
    parallel.check_mesh(jax.devices()[:4])
except ValueError as error:
    print(error, flush=True)
try:
    parallel.initialize()
except RuntimeError as error:
    print(error, flush=True)
begun = time.time()
for _ in range(20):
    parallel.check_alike("the cost", one)
print("cost", (time.time() - begun) / 20, flush=True)
if i != 1:
    try:
        parallel.check_alike("late", one, timeout_seconds=1)
    except parallel.ProcessesError as error:
        print(error, flush=True)
else:
    time.sleep(2)
"""
DIFFERENT = {
    "value": "process 1 differs from process 0: the values of w differ.",
    "sign of zero": "process 0 differs from process 1: the values of w differ.",
    "shape": r"process 0 differs from process 1: 0 is float32[2,3] in process 0 and float32[3] in process 1",
    "dtype": "process 2 differs from process 0: 0 is float32[3] in process 2 and float16[3] in process 0",
    "leaf": "process 2 differs from process 0: b is in process 2 alone",
    "key": "process 1 differs from process 0: the values of the value differ; process 2 differs from process 0",
    "copies": "process 1 differs from process 0: the values of the value differ.",
    "one copy": "process 2 differs from process 0: the values of the value differ between the devices of the process.",
    "all copies": "process 0 differs: the values of the value differ between the devices of the process; process 1",
    "rows": "process 2 differs from process 1: the values of a differ.",
    "text": "process 1 differs from process 0: program is 'x' in process 1 and 'y' in process 0; process 2 differs "
    "from process 0: lr is 0.2 in process 2 and 0.1 in process 0",
    "b": "process 0 differs from process 1: it checks 'b', and process 1 'a'",
}


def test_what_differs_is_said_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "checks.py"
    path.write_text(CHECKS)
    with Running(["--processes", 3, "--devices-per-process", 2, "--max-restarts", 0], [path]) as run:
        assert run.end(100) == 0, run.text()
    lines = [line for _, line in run.lines]
    for i in range(3):
        said = [line.removeprefix(f"[{i}] ") for line in lines if line.startswith(f"[{i}] ")]
        assert [s for s in said if s.endswith(": alike")] == [
            f"{name}: alike" for name in ("alike", "replicated", "split", "rows alike", "alike again")
        ], said
        for name, how in DIFFERENT.items():
            name = "a" if name == "b" and i else name
            (line,) = [s for s in said if s.startswith(f"check_alike: {name}, checked at {path}:")]
            assert f": {how}" in line, line
        assert any("the mesh of 4 devices has none of process 2 at" in s for s in said), said
        assert any(s.startswith("initialize was called before") for s in said), said
        assert i == 1 or any("process 1 did not come to this check within 1 s" in s for s in said), said
        (cost,) = [float(s.split()[1]) for s in said if s.startswith("cost")]
        assert cost < 0.5


def test_processes_with_other_numbers_of_devices(tmp_path: Path) -> None:
    path = tmp_path / "devices.py"
    path.write_text(
        "import os\nfrom tracegrad import parallel\n"
        "if os.environ['TRACEGRAD_PROCESS_ID'] == '1':\n"
        "    os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=3'\n"
        "parallel.initialize(timeout_seconds=30)\n"
    )
    with Running(["--processes", 2, "--max-restarts", 0], [path]) as run:
        assert run.end(60) == 1
    text = "process 1 differs from process 0: the number of devices is 3 in process 1 and 1 in process 0"
    for i in range(2):
        assert any(line.startswith(f"[{i}] ") and text in line for _, line in run.lines), run.text()
