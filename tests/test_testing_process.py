"""Whatever becomes of the parent, nothing of its servers is left."""

import gc
import json
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from django_pg_hot_async.testing import (
    NotInstalled,
    PostgreSQL,
    ServiceFile,
    StartError,
    _process,
    _supervisor,
)

PARENT = """
import json, os, signal, sys, time
from django_pg_hot_async.testing import PgBouncer, PostgreSQL, ServiceFile

server = PostgreSQL(18)
server.start()
started = [server]
if PgBouncer.installed():
    started.append(PgBouncer(server, "postgres"))
    started[1].start()
service = ServiceFile()
keepers = [one._keeper for one in (*started, service)]
print(json.dumps({
    "pids": [one.pid for one in started] + [k._supervisor.pid for k in keepers],
    "directories": [str(keeper.directory) for keeper in keepers],
}), flush=True)
"""


def until(condition, timeout=15):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(pid):
    state = _supervisor.processes().get(pid, (0, "X"))[1]
    return state not in _supervisor.GONE


def shared_memory(pid_file):
    return int(Path(pid_file).read_text().splitlines()[6].split()[1])


def has_segment(shmid):
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return shmid in [int(line.split()[1]) for line in lines]


@pytest.fixture(scope="module")
def server():
    with PostgreSQL(18) as server:
        yield server


@pytest.fixture
def parent():
    """Start a parent that runs *code* after starting servers; tell what it has."""
    parents = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT + code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        parents.append(process)
        assert process.stdout is not None
        has = json.loads(process.stdout.readline())
        assert all(Path(directory).is_dir() for directory in has["directories"])
        return process, has

    yield start
    for process in parents:
        process.kill()
        process.wait()
        process.communicate()


def gone(has):
    return not any(alive(pid) for pid in has["pids"]) and not any(
        Path(directory).exists() for directory in has["directories"]
    )


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", id="killed"),
        pytest.param("server.suspend(); os.abort()", id="aborted, server suspended"),
        pytest.param("sys.exit(3)", id="exit"),
        pytest.param("server.kill(); os._exit(3)", id="no atexit, server killed"),
        # A fork holds all that the parent held, and lives on.
        pytest.param(
            "pid = os.fork()\n"
            "if pid: os.kill(os.getpid(), signal.SIGKILL)\n"
            "os.close(1); time.sleep(5)",
            id="killed, fork lives on",
        ),
    ],
)
def test_parent_ends(parent, code):
    process, has = parent("import warnings; warnings.simplefilter('ignore')\n" + code)
    process.wait(20)
    until(lambda: gone(has))


def test_parent_interrupted(parent):
    """SIGTERM ends the parent alone; Ctrl-C reaches no server before it."""
    process, has = parent("time.sleep(60)")
    process.terminate()
    process.wait(20)
    until(lambda: gone(has))


def test_child_of_a_fork_ends_and_the_server_does_not(server):
    """Neither its exit nor its `with` block, nor its garbage collection, matters."""
    code = """
import os, sys
from django_pg_hot_async.testing import PostgreSQL
with PostgreSQL(18) as server:
    for leave in (os._exit, sys.exit):
        pid = os.fork()
        if not pid:
            assert server.execute("select 1") == [(1,)]
            try:
                server.stop()
            except RuntimeError as error:
                assert "not by this fork" in str(error)
                leave(0)
            leave(1)
        assert os.waitpid(pid, 0)[1] == 0
        assert server.running
    server.execute("select 1")
print("well")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_collected_as_garbage():
    service = ServiceFile()
    path, pid = service.path, service._keeper._supervisor.pid
    assert path.exists()
    del service
    gc.collect()
    assert not path.exists()
    assert not alive(pid)


@pytest.mark.skipif(not Path("/proc/sysvipc/shm").exists(), reason="Linux only")
def test_shared_memory_of_a_killed_server_is_freed():
    server = PostgreSQL(18)
    server.start()
    segment = shared_memory(server.data_dir / "postmaster.pid")
    assert has_segment(segment)
    server.kill()
    assert has_segment(segment)
    server.close()
    assert not has_segment(segment)


def test_supervisor_told_to_end():
    server = PostgreSQL(18)
    server.start()
    assert server._keeper is not None
    directory = server._keeper.directory
    os.kill(server._keeper._supervisor.pid, signal.SIGTERM)
    until(lambda: not directory.exists())
    assert not alive(server.pid)
    with pytest.raises(StartError, match="supervisor is gone"):
        server.start()
    server.close()


def test_program_that_cannot_be_run():
    keeper = _process.Keeper()
    try:
        with pytest.raises(StartError, match="/no/such/program"):
            keeper.spawn(["/no/such/program"], signal.SIGKILL)
        assert not keeper.running()
        keeper.signal(signal.SIGTERM)
        keeper.signal_tree(signal.SIGTERM)
        assert keeper.log() == ""
    finally:
        keeper.close()


def test_process_that_never_gets_ready():
    """It is ended, and the error has what it said."""
    keeper = _process.Keeper()
    said = []

    def ready(pid, port):
        said.append(pid)
        return False

    try:
        with pytest.raises(StartError, match=r"(?s)it did not start.*well\?"):
            keeper.start(
                "it",
                lambda port: ["/bin/sh", "-c", "echo well?; exec sleep 60"],
                ready,
                None,
                signal.SIGKILL,
                timeout=0.5,
            )
        assert not keeper.running()
        assert not alive(said[0])
    finally:
        keeper.close()


def test_process_that_does_not_end_when_asked(monkeypatch):
    """After some seconds it is killed."""
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.1)
    child = _supervisor.Child(
        ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        log=os.devnull,
        env={},
        user=None,
        ending=signal.SIGTERM,
    )
    until(lambda: children(child.process.pid))
    child.end()
    assert child.process.returncode == -signal.SIGKILL


def children(pid):
    return [p for p, (parent, _) in _supervisor.processes().items() if parent == pid]


def test_processes_without_proc(monkeypatch):
    """``ps`` tells the same."""
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    said = "    7     1 S\n    8     7 Zs\n"
    monkeypatch.setattr(subprocess, "check_output", lambda *args, **kwargs: said)
    assert _supervisor.processes() == {7: (1, "S"), 8: (7, "Z")}


def test_server_runs_as_somebody_else_under_root(server):
    owner = server.data_dir.stat()
    assert stat.S_IMODE(owner.st_mode) == 0o700
    user = _process.run_user()
    assert owner.st_uid == (user[0] if user else os.geteuid())
    assert (user is None) == (os.geteuid() != 0)


def test_root_without_a_user_to_run_as(monkeypatch):
    def unknown(name):
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(NotInstalled, match="'postgres' or 'nobody'"):
        _process.run_user()


@pytest.mark.parametrize("user", [None, (os.geteuid(), os.getegid())])
def test_programs_run_as_oneself_or_another(monkeypatch, tmp_path, user):
    monkeypatch.setattr(_process, "run_user", lambda: user)
    if user is None or os.geteuid() == 0:
        _process.run(["/bin/true"])
    assert _process.reachable(Path("/"))
    assert not _process.reachable(tmp_path / "none") or user
    directory = _process.work_directory()
    assert directory.stat().st_uid == os.geteuid()
    directory.rmdir()


def test_nobody_special_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _process.run_user() is None


def test_methods_of_a_fork_raise(monkeypatch):
    keeper = _process.Keeper()
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    with pytest.raises(RuntimeError, match=f"process {mine}, not by this fork"):
        keeper.running()
    _process._close(mine, keeper._socket, keeper._supervisor)
    monkeypatch.undo()
    assert not keeper.running()
    keeper.close()


def test_fork_lets_go(monkeypatch):
    """What runs in the child: done here on a keeper nobody needs."""
    keeper = _process.Keeper()
    supervisor = keeper._supervisor
    monkeypatch.setattr(_process, "_keepers", {keeper})
    _process._after_fork()
    assert supervisor.returncode == 0
    until(lambda: not keeper.directory.exists())
    os.waitpid(supervisor.pid, 0)
    keeper.close()


@pytest.fixture
def supervised():
    """The loop of a supervisor, in a thread; ask it as a keeper does."""
    ours, theirs = socket.socketpair()
    told: list[int] = []
    parent = [os.getppid()]
    result = []
    thread = threading.Thread(
        target=lambda: result.append(
            _supervisor.serve(theirs.fileno(), parent[0], told)
        )
    )

    def ask(op, **arguments):
        ours.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
        return json.loads(ours.recv(65536))

    def end():
        thread.join(5)
        assert not thread.is_alive()
        return result[0]

    thread.start()
    yield ours, ask, told, end
    told.append(signal.SIGTERM)
    end()
    ours.close()
    theirs.close()


SLEEP: dict[str, Any] = {
    "argv": ["/bin/sleep", "60"],
    "log": os.devnull,
    "env": {},
    "user": None,
    "ending": int(signal.SIGTERM),
}


def test_supervisor_answers(supervised):
    _, ask, told, end = supervised
    assert ask("wait", timeout=0) == {"result": 0}
    assert "no/such" in ask("spawn", **{**SLEEP, "argv": ["/no/such"]})["error"]
    pid = ask("spawn", **SLEEP)["result"]
    assert alive(pid)
    assert ask("wait", timeout=0) == {"result": None}
    assert ask("tree", number=signal.SIGSTOP) == {"result": None}
    assert ask("tree", number=signal.SIGCONT) == {"result": None}
    assert ask("signal", number=signal.SIGKILL)
    assert ask("wait", timeout=5) == {"result": -signal.SIGKILL}
    assert ask("signal", number=signal.SIGKILL) == {"result": -signal.SIGKILL}
    assert ask("tree", number=signal.SIGKILL) == {"result": -signal.SIGKILL}
    told.append(signal.SIGTERM)
    assert end().process.pid == pid


def test_supervisor_reaps_while_nobody_asks(supervised):
    """At the next look after half a second."""
    _, ask, _, _ = supervised
    pid = ask("spawn", **{**SLEEP, "argv": ["/bin/true"]})["result"]
    until(lambda: pid not in _supervisor.processes())


def test_supervisor_ends_with_the_parents_end_of_the_socket(supervised):
    ours, _, _, end = supervised
    ours.close()
    assert end() is None


def test_supervisor_whose_parent_does_not_listen(supervised):
    ours, ask, _, end = supervised
    pid = ask("spawn", **SLEEP)["result"]
    ours.sendall(b'{"op": "wait", "timeout": 0.2}\n' * 2)
    ours.close()
    child = end()
    assert child.process.pid == pid
    child.end()
    assert not alive(pid)


@pytest.mark.parametrize("lives", [True, False])
def test_supervisor_cleans_up(monkeypatch, tmp_path, lives):
    """It ends what still runs and removes the directory."""
    handlers: dict[int, Any] = {}
    child = _supervisor.Child(**SLEEP)
    if not lives:
        child.tree(signal.SIGKILL)

    def serve(ask, parent, told):
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        assert (ask, parent, told) == (0, 7, [signal.SIGTERM])
        return child

    directory = tmp_path / "directory"
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "postmaster.pid").write_text("\n" * 6 + "1 2147483647\n")
    monkeypatch.setattr(sys, "argv", ["", "7", str(directory)])
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(_supervisor, "serve", serve)
    _supervisor.main()
    assert not directory.exists()
    assert child.process.returncode == (-signal.SIGTERM if lives else -signal.SIGKILL)


def test_supervisor_waits_for_what_comes_soon():
    answers = iter([False, False, True])
    _supervisor.until(lambda: next(answers))
    assert next(answers, None) is None
    _supervisor.until(lambda: False, timeout=0)


@pytest.mark.parametrize("user", [None, [1, 2]])
def test_supervisor_runs_it_as_somebody_else(monkeypatch, user):
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        subprocess, "Popen", lambda argv, **kwargs: asked.update(kwargs)
    )
    _supervisor.Child(**{**SLEEP, "user": user})
    assert (asked.get("user"), asked.get("group")) == ((1, 2) if user else (None, None))
    assert asked.get("extra_groups") == ([] if user else None)


def test_directory_that_cannot_be_removed(monkeypatch, tmp_path):
    """It does not try for ever."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    _supervisor.remove(str(tmp_path))
    assert sum(pauses) < 5


def test_keeper_whose_supervisor_hangs_up(monkeypatch):
    keeper = _process.Keeper()
    assert keeper.log() == ""
    ours, theirs = socket.socketpair()
    theirs.shutdown(socket.SHUT_WR)
    with monkeypatch.context() as patch, ours, theirs:
        patch.setattr(keeper, "_socket", ours)
        with pytest.raises(StartError, match="supervisor is gone: no answer"):
            keeper.running()
    keeper.close()


def test_directory_that_takes_more_than_one_go(monkeypatch, tmp_path):
    """A dying process may still write into it."""
    directory = tmp_path / "directory"
    directory.mkdir()
    tries = []

    def rmtree(path, ignore_errors):
        tries.append(path)
        if len(tries) == 2:
            directory.rmdir()

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    _supervisor.remove(str(directory))
    assert len(tries) == 2


def test_temporary_directory_that_the_servers_user_cannot_reach(tmp_path, monkeypatch):
    """Another is taken."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(_process, "run_user", lambda: (os.geteuid(), os.getegid()))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(closed))
    directory = _process.work_directory()
    assert directory.parent != closed
    directory.rmdir()


def test_no_server_environment_of_libpq(monkeypatch):
    monkeypatch.setenv("PGPORT", "1")
    assert "PGPORT" not in _process.environment()


def test_a_port_is_random_whatever_is_seeded():
    """pytest-randomly gives the workers of a parallel run one seed."""

    def ports():
        random.seed(1)
        return [_process.free_port() for _ in range(3)]

    assert ports() != ports()


def test_no_free_port(monkeypatch):
    class Taken(socket.socket):
        def bind(self, address):
            raise OSError("taken")

    monkeypatch.setattr(socket, "socket", Taken)
    with pytest.raises(StartError, match="no free port"):
        _process.free_port()


def test_programs_fail_with_what_they_say():
    with pytest.raises(StartError, match="sh failed: out\nerr"):
        _process.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 1"])
