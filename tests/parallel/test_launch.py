"""The launcher: what its processes get, how they end, and what it says and does then."""

from __future__ import annotations

import os
import re
import signal
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tracegrad import launch, worker
from tracegrad.parallel import meeting

from . import training
from .running import ROOT, Running, alive

pytestmark = pytest.mark.xdist_group("processes")

Script = Callable[[str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    def write(text: str) -> Path:
        path = tmp_path / "program.py"
        path.write_text("import os, signal, sys, time\n" + textwrap.dedent(text))
        return path

    return write


def launched(capsys: pytest.CaptureFixture[str], *options: Any) -> tuple[int, list[str], str]:
    """Exit code, the lines on stdout in order of the process, and stderr."""
    code = launch.main([str(o) for o in options])
    out, err = capsys.readouterr()
    return code, sorted(out.splitlines()), err


def test_each_line_has_its_process(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("""
        i = os.environ["TRACEGRAD_PROCESS_ID"]
        print("a", i, sys.argv[1:], flush=True)
        print("of", os.environ["TRACEGRAD_NUM_PROCESSES"], file=sys.stderr)
        sys.stdout.write("no end " + i)
        sys.stdout.buffer.write(b"\\xff")
    """)
    code, out, err = launched(capsys, "--processes", 3, path, "--epochs", 5, "-m")
    assert code == 0
    assert out == sorted(
        [f"[{i}] a {i} ['--epochs', '5', '-m']" for i in range(3)] + [f"[{i}] no end {i}\ufffd" for i in range(3)]
    )
    assert sorted(err.splitlines()) == [f"[{i}] of 3" for i in range(3)]


def test_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program/__init__.py").write_text("")
    (tmp_path / "program/run.py").write_text("import sys\nprint(__name__, sys.argv[1:], __package__)\n")
    monkeypatch.chdir(tmp_path)
    code, out, _ = launched(capsys, "--processes", 2, "-m", "program.run", "a", "-b")
    assert (code, out) == (0, [f"[{i}] __main__ ['a', '-b'] program" for i in range(2)])


ENDS: dict[str, tuple[str, int, str]] = {
    "well": ("pass", 0, ""),
    "sys.exit(0)": ("sys.exit(0)", 0, ""),
    "sys.exit(3)": ("sys.exit(3)", 3, "process 1 (pid N) ended with exit code 3"),
    "sys.exit of a text": ("sys.exit('no data')", 1, "[1] no data"),
    "sys.exit(256)": ("sys.exit(256)", 1, "exit code 1"),
    "os._exit": ("os._exit(7)", 7, "exit code 7"),
    "exception": ("1 / 0", 1, "[1] ZeroDivisionError: division by zero"),
    "kill -9": ("os.kill(os.getpid(), signal.SIGKILL)", 137, "process 1 (pid N) was killed by SIGKILL"),
    "segmentation fault": ("os.kill(os.getpid(), signal.SIGSEGV)", 139, "was killed by SIGSEGV"),
    "abort": ("os.abort()", 134, "process 1 (pid N) ended itself by SIGABRT"),
    "wrong usage": ("import argparse; argparse.ArgumentParser().parse_args(['-x'])", 2, "called wrongly"),
}


@pytest.mark.parametrize("end", ENDS)
def test_how_one_ends(end: str, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    program, expected, said = ENDS[end]
    path = script(f"""
        if os.environ["TRACEGRAD_PROCESS_ID"] == "1":
            {program}
        elif {expected}:
            time.sleep(60)
    """)
    begun = time.monotonic()
    code, _, err = launched(capsys, "--processes", 2, "--max-restarts", 0, path)
    assert code == expected and said in re.sub(r"pid \d+", "pid N", err), err
    assert time.monotonic() - begun < 20
    if expected not in (0, 2):
        assert "no restart of 0 is left" in err
    # A traceback begins in the program; only one of the whole process is faulthandler's.
    assert ("worker.py" in err) == (end in ("segmentation fault", "abort"))


def test_it_starts_again(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("""
        print(*(os.environ[n] for n in ("TRACEGRAD_RESTARTS", "TRACEGRAD_COORDINATOR", "NPROC")), flush=True)
        sys.exit(0 if os.environ["TRACEGRAD_RESTARTS"] == "2" else 4)
    """)
    code, out, err = launched(capsys, "--backoff", 0.1, "--devices-per-process", 7, "--threads", 9, path)
    assert code == 0 and [line.split()[1] for line in out] == ["0", "1", "2"]
    assert len({line.split()[2] for line in out}) == 3, "a port was used twice"
    assert {line.split()[3] for line in out} == {"9"}
    assert re.findall(r"restart (\d) of 3 with 1 process in (.*) s", err) == [("1", "0.1"), ("2", "0.2")]


def test_with_fewer_processes(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("""
        n, again = os.environ["TRACEGRAD_NUM_PROCESSES"], int(os.environ["TRACEGRAD_RESTARTS"])
        print(again, n, os.environ["NPROC"], os.environ["XLA_FLAGS"], os.environ["TRACEGRAD_LOCAL_DEVICE_IDS"])
        if again < 4:
            os.kill(os.getpid(), signal.SIGKILL) if os.environ["TRACEGRAD_PROCESS_ID"] == "0" else time.sleep(60)
    """)
    options = ["--processes", 4, "--min-processes", 2, "--max-restarts", 4, "--backoff", 0, "--devices-per-process", 2]
    code, out, _ = launched(capsys, *options, path)
    assert code == 0
    last = [line.split() for line in out if line.split()[1] == "4"]
    assert [line[0] for line in last] == ["[0]", "[1]"] and {line[2] for line in last} == {"2"}
    assert {line.split()[2] for line in out if line.split()[1] in "01"} <= {"4"}
    assert {line.split()[3] for line in out} == {str(max(os.cpu_count() or 1, 8))}, "other threads give other bits"
    assert "--xla_force_host_platform_device_count=2" in last[0] and [line[-1] for line in last] == ["0,1", "2,3"]


WRONG: dict[str, str] = {
    "--processes 0 X": "--processes must be 1 or more, not 0",
    "--max-restarts -1 X": "--max-restarts must be 0 or more",
    "--processes 2 --min-processes 3 X": "--min-processes 3 is more than --processes 2",
    "--nnodes 2 X": "--nnodes needs --coordinator",
    "--nnodes 2 --node-rank 2 --coordinator a:1 X": "--node-rank 2 is not from 0 to --nnodes - 1 = 1",
    "--processes 2 --min-processes 1 --nnodes 2 --coordinator a:1 X": "--min-processes is for one machine",
    "--backoff -1 X": "--backoff must be 0 or more",
    "nothing.py": "there is no file nothing.py",
    "--coordinator a X": "--coordinator: 'a' is not host:port",
    "": "required: program",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_options(line: str, script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        launch.main(line.replace("X", str(script("pass"))).split())
    assert caught.value.code == 2 and WRONG[line] in capsys.readouterr().err


def test_a_worker_without_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="no program"):
        worker.main([])


SIGNALS: dict[str, tuple[int, int, str]] = {
    "SIGTERM": (signal.SIGTERM, 143, "saved 15"),
    "SIGHUP": (signal.SIGHUP, 129, "saved 1"),
    "SIGINT": (signal.SIGINT, 130, "saved 2"),
}


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Sends signals to this process, in which the launcher runs, each when a file is there."""
    threads: list[threading.Thread] = []

    def begin(*signals: tuple[str, int]) -> None:
        def run() -> None:
            for name, number in signals:
                until = time.monotonic() + 30
                while len(list(tmp_path.glob(f"{name}-*"))) < 2 and time.monotonic() < until:
                    time.sleep(0.02)
                os.kill(os.getpid(), number)

        # Not before the launcher listens to them: it does when its processes make these files.
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()

    yield begin
    for thread in threads:
        thread.join(40)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_is_passed_on_and_ends_it(name: str, script: Script, send: Any, tmp_path: Path, capsys: Any) -> None:
    number, expected, said = SIGNALS[name]
    path = script(f"""
        def there(name):
            open(f"{tmp_path}/{{name}}-{{os.getpid()}}", "w").close()
        def save(number, frame):
            time.sleep(0.3)
            print("saved", number)
            sys.exit(0)
        for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(n, save)
        signal.signal(signal.SIGUSR1, lambda *_: there("got"))
        there("ready")
        time.sleep(60)
    """)
    send(("ready", signal.SIGUSR1), ("got", number))
    before = signal.getsignal(number)
    code, out, err = launched(capsys, "--processes", 2, "--grace", 20, path)
    assert code == expected and out == [f"[{i}] {said}" for i in range(2)]
    assert f"{name}: passed on" in err and "restart" not in err
    assert signal.getsignal(number) is before


def test_who_does_not_end_in_time_is_killed(script: Script, send: Any, tmp_path: Path, capsys: Any) -> None:
    path = script(f"""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(f"{tmp_path}/ready-{{os.getpid()}}", "w").close()
        time.sleep(60)
    """)
    send(("ready", signal.SIGTERM))
    code, _, err = launched(capsys, "--processes", 2, "--grace", 0.5, path)
    assert code == 143 and "processes 0, 1 did not end in time and are killed" in err
    assert not any(alive(int(p.name.partition("-")[2])) for p in tmp_path.glob("ready-*"))


def test_nothing_outlives_the_launcher(script: Script) -> None:
    """Neither when it is killed itself, nor what a process of it started."""
    path = script("""
        import subprocess
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        print("pids", os.getpid(), child.pid)
        if os.environ["TRACEGRAD_RESTARTS"] == "0":
            sys.exit(1)
        time.sleep(60)
    """)
    with Running(["--backoff", 0], [path]) as run:
        _, first = run.line(r"pids (\d+) (\d+)", 30)
        _, second = run.line(r"pids (\d+) (\d+)", 30)
        assert not alive(int(first[1])) and not alive(int(first[2]))
        run.process.kill()
        until = time.monotonic() + 5
        while alive(int(second[1])) and time.monotonic() < until:
            time.sleep(0.02)
        assert not alive(int(second[1])), "the worker outlived its launcher"
        os.kill(int(second[2]), signal.SIGKILL)  # The launcher was killed before it could.


def test_a_program_that_says_nothing_any_more(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("""
        def where_it_hangs():
            time.sleep(60)
        print("begun", flush=True)
        if os.environ["TRACEGRAD_PROCESS_ID"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
        where_it_hangs()
    """)
    code, _, err = launched(capsys, "--processes", 2, "--max-restarts", 0, "--stall-timeout", 1, path)
    assert code == 1 and "in where_it_hangs" in err, err
    assert re.search(r"process 1 \(pid \d+\) was stopped by SIGSTOP", err)
    assert re.search(r"no process wrote anything for 1\.\d s; process 1 had been stopped for 1\.\d s; they are", err)


def test_an_exception_in_one_ends_all_at_once(script: Script) -> None:
    """Not after the barrier at which JAX waits when a process ends."""
    path = script("""
        import jax
        from jax.experimental import multihost_utils
        from tracegrad import parallel
        own = parallel.initialize(timeout_seconds=30)
        parallel.check_alike("the start", 0)
        print("ready", flush=True)
        if own.process_id == 1:
            time.sleep(0.5)
            raise LookupError("nothing there")
        multihost_utils.sync_global_devices("all")
    """)
    with Running(["--processes", 2, "--max-restarts", 0], [path]) as run:
        for _ in range(2):
            run.line("ready", 40)
        begun = time.monotonic()
        at, _ = run.line(r"process 1 \(pid \d+\) ended with exit code 1", 10)
        assert at - begun < 2.0 and run.end(10) == 1
        assert "LookupError: nothing there" in run.text()


def test_two_machines(tmp_path: Path) -> None:
    """Two launchers as on two machines: the coordinator is killed, and both start their processes again."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    options = ["--processes", 1, "--nnodes", 2, "--coordinator", f"127.0.0.1:{port}", "--backoff", 0.1]
    program = [training.__file__, training.prepare(tmp_path), 30, "--pause", 0.05]
    with Running([*options, "--node-rank", 0], program) as one, Running([*options, "--node-rank", 1], program) as two:
        one.line(r"\[0\] step 5 attempt 0 of 2", 60)
        two.line(r"\[1\] step 5 attempt 0 of 2", 10)
        os.kill(one.pids[0][0], signal.SIGKILL)
        one.line("process 0 .* was killed by SIGKILL", 1)
        two.line("restart 1 of", 20)
        one.line(r'result .*"step": 30,', 90)
        assert one.end(20) == 0 and two.end(20) == 0


def test_the_readme_names_what_there_is() -> None:
    text = (ROOT / "tracegrad/parallel/README.md").read_text()
    names = set(re.findall(r"TRACEGRAD_\w+", text))
    assert {meeting.COORDINATOR, meeting.NUM_PROCESSES, meeting.PROCESS_ID} <= names
    assert names <= {value for value in vars(meeting).values() if isinstance(value, str)}
    options = {o for action in launch.parser()._actions for o in action.option_strings}
    for line in re.findall(r"tracegrad\.launch.*", text):
        assert {word for word in line.split("train.py")[0].split() if word.startswith("--")} <= options, line
