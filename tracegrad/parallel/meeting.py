"""How processes find each other before JAX connects them, so that whoever is missing is an error of Python's.

JAX's own client ends the process (SIGABRT) when the coordinator does not answer in time or a process never comes, and
says neither address nor process. Therefore all meet at the coordinator's address first: process 0 listens there, the
others say who they are, and everybody gets the same answer. Then JAX's service takes over the address.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

COORDINATOR, NUM_PROCESSES, PROCESS_ID = "TRACEGRAD_COORDINATOR", "TRACEGRAD_NUM_PROCESSES", "TRACEGRAD_PROCESS_ID"
LOCAL_DEVICE_IDS, RESTARTS = "TRACEGRAD_LOCAL_DEVICE_IDS", "TRACEGRAD_RESTARTS"
"""The variables by which a launcher says who a process is, and how often it has started all of them again."""

HELLO = "tracegrad"


class ProcessesError(RuntimeError):
    """Several processes do not work together: one is missing, or they are not alike."""


def parts_of(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, or of `[::1]:port`.

    Raises:
      ValueError: if it is neither.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} is not host:port, such as 10.0.0.1:1234")
    return host, int(port)


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def meet(address: str, process_id: int, facts: dict[str, Any], seconds: float) -> None:
    """Returns when as many processes as `facts["num_processes"]` have come, each with the same facts.

    Raises:
      ProcessesError: in every process that came, if one did not come within so many seconds, or one differs.
    """
    deadline = time.monotonic() + seconds
    host, port = parts_of(address)
    hello = {HELLO: 1, "process_id": process_id, "facts": facts}
    if process_id == 0:
        _host(host, port, facts, deadline, seconds)
    else:
        _join(host, port, hello, deadline, seconds)


def some(ids: list[int]) -> str:
    """`process 3`, or `processes 1, 2 and 5 others`."""
    first = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} others" if len(ids) > 8 else "")
    return f"process {first}" if len(ids) == 1 else f"processes {first}"


def _listening(host: str, port: int) -> socket.socket:
    if is_loopback(host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", port), backlog=1024)


def _host(host: str, port: int, facts: dict[str, Any], deadline: float, seconds: float) -> None:
    try:
        server = _listening(host, port)
    except OSError as error:
        raise ProcessesError(
            f"process 0 cannot listen at {host}:{port}: {error.strerror or error}. Choose another port"
        ) from error
    arrived: dict[int, socket.socket] = {}
    connections: list[socket.socket] = []
    count, problem = facts["num_processes"], ""
    with server:
        try:
            while not problem and len(arrived) < count - 1:
                server.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    missing = [i for i in range(1, count) if i not in arrived]
                    problem = f"{some(missing)} of {count} did not come to {host}:{port} within {seconds:g} s"
                    break
                hello = _hello(connection)
                if hello is None:  # Whoever else looks at a port.
                    connection.close()
                    continue
                i = hello["process_id"]
                problem = _differs(i, hello["facts"], facts)
                if not problem and not 0 < i < count:
                    problem = f"a process says that it is number {i} of {count}"
                if i in arrived and not _gone(arrived[i]):
                    problem = problem or f"two processes say that they are number {i}"
                arrived[i] = connection
                connections.append(connection)
            answer = json.dumps({HELLO: 1, "problem": problem}).encode() + b"\n"
            for connection in connections:
                try:
                    connection.sendall(answer)
                except OSError:
                    continue  # It has gone since: JAX's own connection will miss it.
        finally:
            for connection in connections:
                connection.close()
    if problem:
        raise ProcessesError(problem)


def _hello(connection: socket.socket) -> dict[str, Any] | None:
    connection.settimeout(2.0)
    try:
        hello = json.loads(connection.makefile("rb").readline(65536))
        return hello if hello[HELLO] == 1 and isinstance(hello["process_id"], int) and hello["facts"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _gone(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _differs(i: int, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    lines = [
        f"{name} is {ours.get(name)!r} in process 0 and {theirs.get(name)!r} in process {i}"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]
    return "; ".join(lines)


def _join(host: str, port: int, hello: dict[str, Any], deadline: float, seconds: float) -> None:
    pause, cause = 0.02, "nothing answered"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5.0)) as connection:
                connection.sendall(json.dumps(hello).encode() + b"\n")
                cause = "process 0 answered, and did not say that all had come"
                # Process 0 says who is missing when its own time is over, and may have begun later.
                connection.settimeout(left + 2.0)
                answer = json.loads(connection.makefile("rb").readline(65536))
            problem = answer["problem"]
            break
        except TimeoutError:
            cause = "no answer"
        except (ValueError, KeyError, TypeError):
            cause = "what listens there is not process 0 of this training, or it ended"
        except OSError as error:
            cause = error.strerror or str(error)
        time.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
        pause = min(pause * 1.5, 0.5)
    else:
        raise ProcessesError(
            f"process {hello['process_id']} cannot reach the coordinator, process 0, at {host}:{port} "
            f"within {seconds:g} s: {cause}"
        )
    if problem:
        raise ProcessesError(problem)
    # gRPC waits a second before it tries again: it is let loose when JAX's service is there.
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.01)
