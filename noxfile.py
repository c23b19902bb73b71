"""Every task of this project. `nox -l` lists them; arguments after `--` are passed on.

All sessions share one environment, `.venv` (or `$UV_PROJECT_ENVIRONMENT`), which nox creates and keeps in step with
the lock.
"""

import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
if f"{sys.version_info.major}.{sys.version_info.minor}" not in PYTHONS:
    sys.exit(
        f"Python 3.11 to 3.14 is needed; this is {sys.version.split()[0]}. Make .venv with one of those."
    )

# With PYTHONSAFEPATH, `python -m` would not find this directory's modules.
os.environ.pop("PYTHONSAFEPATH", None)

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
# An empty value is an absent one: the checkout itself is no environment.
VENV = ROOT / (os.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv")
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "requirements" / "development.txt"
WORKERS = str(min(4, os.cpu_count() or 1))
PACKAGE = "packages/freshpg"
# A server needs time to finish its requests when it is stopped; by default nox waits half a second.
PATIENCE = {"interrupt_timeout": 40.0, "terminate_timeout": 10.0}
# `$UV` is set by uvx; nox[uv] installs it next to nox; without it, venv and pip do the same more slowly.
UV = os.environ.get("UV") or shutil.which(
    "uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
)


def install(session: nox.Session, python: str, *, uv: str | None) -> None:
    """Install the lock and the package (editable, without build isolation, so nothing else is downloaded)."""
    command = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    options = {"env": {"UV_COMPILE_BYTECODE": "1"}, "external": True, "silent": False}
    session.run(*command, "--quiet", "--requirement", str(LOCK), **options)
    session.run(*command, "--quiet", "--no-deps", "--no-build-isolation", "--editable", PACKAGE, **options)


def prepare(session: nox.Session) -> None:
    """Create the environment if it does not exist, and update it if the lock has changed."""
    if not PYTHON.exists():
        session.log(f"Creating {VENV.name} with Python {sys.version.split()[0]}")
        make = [UV, "venv", "--quiet", "--seed", "--python", sys.executable] if UV else None
        # Only what was an environment is cleared: $UV_PROJECT_ENVIRONMENT may name any directory.
        clear = ["--clear"] if (VENV / "pyvenv.cfg").exists() else []
        session.run(*(make or [sys.executable, "-m", "venv"]), *clear, str(VENV), external=True)
    stamp = VENV / ".lock-digest"
    inputs = (LOCK, ROOT / PACKAGE / "pyproject.toml")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="ascii") != digest:
        session.log(f"Installing {LOCK.relative_to(ROOT)} into {VENV.name}")
        install(session, str(PYTHON), uv=UV)
        stamp.write_text(digest, encoding="ascii")


def run(session: nox.Session, program: str, *arguments: str, **options: object) -> None:
    """Run a program of the environment."""
    prepare(session)
    env = {"VIRTUAL_ENV": str(VENV), "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
    session.run(str(VENV / "bin" / program), *arguments, env=env, external=True, **PATIENCE, **options)


def module(session: nox.Session, name: str, *arguments: str) -> None:
    run(session, "python", "-m", name, *arguments, *session.posargs)


@nox.session
def dev(session: nox.Session) -> None:
    """Serve the API with reload on http://127.0.0.1:8000; no Docker needed."""
    module(session, "devtools.dev")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the application's tests on an ephemeral PostgreSQL (-- -k word, --postgres docker|embedded|URL)."""
    # With arguments, exactly what they say: --pdb and its like do not go together with workers.
    run(session, "pytest", *(session.posargs or ("-n", WORKERS)))


@nox.session
def tests_tools(session: nox.Session) -> None:
    """Run the tests of devtools and of the package freshpg (-- --postgres docker|embedded|URL, -n 2)."""
    run(session, "pytest", "devtools/tests", *session.posargs)
    run(session, "pytest", f"--rootdir={PACKAGE}", PACKAGE, *session.posargs)


@nox.session(venv_backend="uv|virtualenv", python=PYTHONS, download_python="never", reuse_venv=True)
@nox.parametrize("postgres", ["15", "17", "18"])
def tests_matrix(session: nox.Session, postgres: str) -> None:
    """Run the application's tests on PostgreSQL 15, 17 and 18, with each Python on this machine."""
    install(session, "python", uv=UV)
    image = ("--postgres", "docker", "--postgres-image", f"postgres:{postgres}")
    session.run("pytest", *image, *session.posargs, **PATIENCE)


@nox.session
def db_init(session: nox.Session) -> None:
    """Bring the database's schema to head (-- --ephemeral: on a temporary server)."""
    module(session, "devtools.database", "init")


@nox.session
def db_reset(session: nox.Session) -> None:
    """Drop everything in the database and create the schema again (-- --yes-drop NAME, --ephemeral)."""
    module(session, "devtools.database", "reset")


@nox.session
def db_seed(session: nox.Session) -> None:
    """Fill the database with realistic rows (-- --scale 1000, --seed N, --replace)."""
    module(session, "devtools.database", "seed")


@nox.session
def db_shell(session: nox.Session) -> None:
    """Open psql on the database (-- -c 'SELECT 1' and psql's other options)."""
    # Ctrl-C cancels a statement in psql; nox would end psql 40 s later. Not SIG_IGN, which psql would inherit.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        module(session, "devtools.database", "shell")
    finally:
        signal.signal(signal.SIGINT, before)


@nox.session
def db_backup(session: nox.Session) -> None:
    """Write the database into one file while it is in use (-- FILE, --ephemeral)."""
    module(session, "devtools.database", "backup")


@nox.session
def db_restore(session: nox.Session) -> None:
    """Replace the database with a backup, and keep the old one (-- FILE, --yes-drop NAME)."""
    module(session, "devtools.database", "restore")


@nox.session
def db_upgrade(session: nox.Session) -> None:
    """Move the data of an older PostgreSQL, Compose's or the embedded one's, to this one (-- --drop-old)."""
    module(session, "devtools.backup.postgres_upgrade")


@nox.session
def db_revision(session: nox.Session) -> None:
    """Draft a migration from the models, tried on a temporary server (-- -m "add x", --blank, --merge)."""
    module(session, "devtools.migrations.revise")


@nox.session
def db_check(session: nox.Session) -> None:
    """Show what differs between models, migrations and your database (-- --json, --ephemeral)."""
    module(session, "devtools.migrations.check")


@nox.session
def diagram(session: nox.Session) -> None:
    """Update the picture of the tables in docs/database.md from the models."""
    where = ("inject", "docs/database.md", "backend.models.models:Base")
    run(session, "paracelsus", *where, "--column-sort", "preserve-order", *session.posargs)


@nox.session
def utc_check(session: nox.Session) -> None:
    """Prove on a database that no layer stores or shows a wrong time (-- --json, --only)."""
    module(session, "devtools.database", "utc")


@nox.session
def doctor(session: nox.Session) -> None:
    """Show what works here, what does not, and how to fix it; changes nothing (-- --json, --only)."""
    python = PYTHON if PYTHON.exists() else Path(sys.executable)
    session.run(str(python), "-B", "-m", "devtools.doctor", *session.posargs, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and the direction of imports."""
    run(session, "ruff", "check", *session.posargs)
    run(session, "ruff", "format", "--check")
    run(session, "lint-imports", "--no-logo", "--cache-dir", f"{nox.options.envdir or '.nox'}/import-linter")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strict."""
    run(session, "mypy", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Try Compose, containers and the README's commands from a fresh clone; needs Docker."""
    options = "--postgres docker -p no:randomly -n 2 --dist loadfile --no-loadscope-reorder"
    run(session, "pytest", *options.split(), "e2e", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed, as ratios in one run (-- isolation, -- utc, -- api)."""
    module(session, "benchmarks")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the locks in requirements/ from pyproject.toml (-- --upgrade for newer versions)."""
    # Not by run(), which installs the lock first: an invalid one must not prevent a new one.
    uv = UV or str(VENV / "bin" / "uv")
    command = (uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header")
    target = ("--python-version", "3.11", "pyproject.toml", *session.posargs)
    runtime = "requirements/runtime.txt"
    session.run(*command, *target, "--output-file", runtime, external=True)
    development = ("--group", "development", "-c", runtime, "--output-file", str(LOCK))
    session.run(*command, *target, *development, external=True)
