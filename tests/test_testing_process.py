"""Whatever becomes of the parent, nothing of its servers is left."""

import gc
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

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
        process.stdout.close()


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
    monkeypatch.setattr(_process.pwd, "getpwnam", unknown)
    with pytest.raises(NotInstalled, match="'postgres' or 'nobody'"):
        _process.run_user()


def test_temporary_directory_that_the_servers_user_cannot_reach(tmp_path, monkeypatch):
    """Another is taken."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(_process, "run_user", lambda: (os.geteuid(), os.getegid()))
    monkeypatch.setattr(_process.tempfile, "gettempdir", lambda: str(closed))
    directory = _process.work_directory()
    assert directory.parent != closed
    directory.rmdir()


def test_no_server_environment_of_libpq(monkeypatch):
    monkeypatch.setenv("PGPORT", "1")
    assert "PGPORT" not in _process.environment()


def test_no_free_port(monkeypatch):
    class Taken(_process.socket.socket):
        def bind(self, address):
            raise OSError("taken")

    monkeypatch.setattr(_process.socket, "socket", Taken)
    with pytest.raises(StartError, match="no free port"):
        _process.free_port()


def test_programs_fail_with_what_they_say():
    with pytest.raises(StartError, match="sh failed: out\nerr"):
        _process.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 1"])
