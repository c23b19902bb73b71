"""Every task of this project. `nox -l` lists them; what stands after `--` is passed on.

uv is used where nox finds it; virtualenv and pip serve otherwise.
"""

import os
import shutil
import sys
from pathlib import Path

import nox

if sys.version_info < (3, 11):  # noqa: UP036  nox may be run by any, and the packages would say it at length
    sys.exit(
        f"Python 3.11 to 3.14 is needed, and this is {sys.version.split()[0]}: make .venv with a newer one."
    )

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = os.environ.get("NOX_DEFAULT_VENV_BACKEND") or "uv|virtualenv"
nox.options.envdir = os.environ.get("NOX_ENVDIR") or ".nox"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = True

DEVELOPMENT = "requirements/development.txt"
# A server that is asked to stop finishes what it does: nox's own patience is half a second.
PATIENCE = {"interrupt_timeout": 40.0, "terminate_timeout": 10.0}


# pip compiles what it installs, uv only if told to; where Python may not write its caches, nobody would, ever.
COMPILE = {"UV_COMPILE_BYTECODE": "1"}


# In the dev container there is one environment, which nox runs in itself: sessions keep it as the lock says.
IN_PLACE = nox.options.default_venv_backend == "none"


def prepare(session: nox.Session) -> None:
    """Install the locked environment, which every session shares in content."""
    if IN_PLACE:
        uv = ("uv", "pip", "install", "--python", sys.executable)
        session.run(*uv, "--quiet", "--requirement", DEVELOPMENT, external=True, log=False)
    else:
        session.install("--quiet", "--requirement", DEVELOPMENT, env=COMPILE)


def database(session: nox.Session, verb: str) -> None:
    prepare(session)
    session.run("python", "-m", "backend.devtools.database", verb, *session.posargs, **PATIENCE)


@nox.session
def dev(session: nox.Session) -> None:
    """Serve the API with reload on http://127.0.0.1:8000; no Docker needed."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.dev", *session.posargs, **PATIENCE)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the suite on an ephemeral PostgreSQL (-- --postgres docker|embedded|URL, -n 2)."""
    prepare(session)
    session.run("pytest", *session.posargs, **PATIENCE)


@nox.session
def tests_matrix(session: nox.Session) -> None:
    """Run the suite on every PostgreSQL and Python here, and say what differs (-- --list, -k word)."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.matrix", *session.posargs, **PATIENCE)


@nox.session
def db_init(session: nox.Session) -> None:
    """Bring the database's schema to head (-- --ephemeral: on a server that comes and goes)."""
    database(session, "init")


@nox.session
def db_reset(session: nox.Session) -> None:
    """Drop what is in the database, known or not, and build it anew (-- --yes-drop NAME, --ephemeral)."""
    database(session, "reset")


@nox.session
def db_seed(session: nox.Session) -> None:
    """Fill the database with believable rows, in any amount (-- --scale 1000, --seed N, --replace)."""
    database(session, "seed")


@nox.session
def db_shell(session: nox.Session) -> None:
    """Open psql on the database (-- -c 'SELECT 1' and psql's other options)."""
    database(session, "shell")


@nox.session
def db_backup(session: nox.Session) -> None:
    """Write the whole database into one file, verified, while it is in use (-- FILE, --ephemeral)."""
    database(session, "backup")


@nox.session
def db_restore(session: nox.Session) -> None:
    """Put a backup, verified, in the database's place, and keep the old one (-- FILE, --yes-drop NAME)."""
    database(session, "restore")


@nox.session
def db_upgrade(session: nox.Session) -> None:
    """Bring data of an older PostgreSQL, Compose's or the embedded one's, along (-- --drop-old, --anew)."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.backup.upgrade", *session.posargs, **PATIENCE)


@nox.session
def db_revision(session: nox.Session) -> None:
    """Draft a migration from the models, on a server that comes and goes (-- -m "add x", --blank)."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.revise", *session.posargs, **PATIENCE)


@nox.session
def db_check(session: nox.Session) -> None:
    """Tell what differs between models, migrations and your database (-- --json, --ephemeral)."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.check", *session.posargs, **PATIENCE)


@nox.session
def diagram(session: nox.Session) -> None:
    """Draw the tables in the README anew, from the models (-- --check)."""
    prepare(session)
    session.run("python", "-m", "backend.devtools.diagram", *session.posargs)


@nox.session
def utc_check(session: nox.Session) -> None:
    """Prove on a database that no layer stores or shows a wrong time (-- --json, --only)."""
    database(session, "utc")


@nox.session(venv_backend="none")
def doctor(session: nox.Session) -> None:
    """Tell what is well here and what is not, each with its cure; changes nothing (-- --json, --only)."""
    session.run(sys.executable, "-B", "-m", "backend.devtools.doctor", *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of imports with Ruff and import-linter."""
    prepare(session)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo", "--cache-dir", f"{nox.options.envdir}/import-linter")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strict."""
    prepare(session)
    session.run("mypy", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Try Compose, containers and the README's commands from a fresh clone; needs Docker."""
    prepare(session)
    chosen = ("--postgres", "docker", "-p", "no:randomly", "-n", "2", "backend/e2e")
    session.run("pytest", *chosen, *session.posargs, **PATIENCE)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what is promised of speed, as ratios in one run (-- isolation, -- utc)."""
    prepare(session)
    session.run("python", "-m", "backend.benchmarks", *session.posargs, **PATIENCE)


@nox.session(venv_backend="none")
def venv(session: nox.Session) -> None:
    """Make .venv complete, for the editor and for plain pytest."""
    if IN_PLACE:
        prepare(session)
        return
    python = Path(".venv/bin/python")
    if not python.exists():
        session.run(sys.executable, "-m", "venv", ".venv", external=True)
    uv = shutil.which(
        "uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
    session.run(*install, "--quiet", "--requirement", DEVELOPMENT, env=COMPILE, external=True)


@nox.session
def lock(session: nox.Session) -> None:
    """Write the locks in requirements/ from pyproject.toml (-- --upgrade for newer versions)."""
    prepare(session)
    compile_lock = ("uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header")
    target = ("--python-version", "3.11", "pyproject.toml", *session.posargs)
    runtime = "requirements/runtime.txt"
    session.run(*compile_lock, *target, "--output-file", runtime)
    session.run(*compile_lock, *target, "--group", "development", "-c", runtime, "--output-file", DEVELOPMENT)
