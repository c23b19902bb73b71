"""Servers in containers, for an upgrade: an old one on a copy of its data, and a new one that makes its own."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import URL

from backend.errors import UserError

from . import docker
from .talk import progress
from .tools import Tools, inside

_LABEL = "procore-integrator.db_upgrade"
_START_SECONDS = 600.0
_PAUSE = 0.1
_STOP_SECONDS = 120

# The old data are mounted read-only, and copied into the container, which needs all the time that this takes. There the
# first of the roles gets a password that is known, in single-user mode: nobody could say the old one for certain.
_OLD = r"""
set -eu
mkdir /old && cd "/data/$OLD_PATH"
tar -c --exclude="./$NEW_TOP" --exclude=./postmaster.pid --exclude=./postmaster.opts -f - . | tar -x -C /old -f -
chmod 700 /old
printf 'local all all trust\nhost all all all scram-sha-256\n' > /old/pg_hba.conf
chown -R postgres /old
cat > /first <<END
DO \$\$ DECLARE first text := (SELECT rolname FROM pg_authid WHERE oid = 10); \
BEGIN EXECUTE format('ALTER ROLE %I PASSWORD %L', first, '$OLD_PASSWORD'); END \$\$
COPY (SELECT rolname FROM pg_authid WHERE oid = 10) TO '/old/first-role'
END
cat > /start <<'END'
set -eu
cd /
postgres --single -D /old -c password_encryption=scram-sha-256 template1 < /first > /dev/null
exec postgres -D /old -c listen_addresses='*' -c port=5432 -c ssl=off -c hba_file=/old/pg_hba.conf \
    -c unix_socket_directories=/tmp -c autovacuum=off -c archive_mode=off
END
exec su postgres -s /bin/sh -c '. /start'
"""


@dataclass(frozen=True)
class Side:
    """One of the two servers of an upgrade: how it is reached as its superuser, and the programs that fit it."""

    url: URL
    tools: Tools


@contextmanager
def old_server(image: str, volume: str, path: str, *, beside: str, of: str) -> Iterator[Side]:
    """Lend a server on a copy of the data that lie at this path of a volume, or directory, mounted read-only.

    What is called `beside` and lies among the data is not theirs, and left out. The container is of that upgrade.
    """
    password = secrets.token_urlsafe(24)
    environment = {"OLD_PATH": path, "OLD_PASSWORD": password, "NEW_TOP": beside}
    options = ["--volume", f"{volume}:/data:ro", "--user", "root", "--entrypoint", "sh"]
    with _container(image, options, environment, ["-c", _OLD], of=of, side="old") as container:
        with progress(f"Copying the old data into a container of {image}"):
            url = _wait(container, _first_role(container), password)
        yield Side(url, inside(container))


@contextmanager
def new_server(
    image: str, volume: str, target: str, data: str, environment: Mapping[str, str], *, of: str
) -> Iterator[tuple[Side, str]]:
    """Lend a new server, and its container, whose data come to lie at a path of the volume, made as the image does."""
    options = ["--volume", f"{volume}:{target}"]
    user, password = environment["POSTGRES_USER"], environment["POSTGRES_PASSWORD"]
    variables = {**environment, "PGDATA": f"{target}/{data}"}
    with _container(image, options, variables, [], of=of, side="new") as container:
        with progress(f"Starting {image}"):
            url = _wait(container, user, password)
        yield Side(url, inside(container)), container


def stop_cleanly(container: str) -> None:
    """Stop a server so that all is written. Raises UserError where it did not end well."""
    docker.run("stop", "--time", str(_STOP_SECONDS), container)
    code = docker.run("inspect", "--format", "{{.State.ExitCode}}", container).strip()
    if code != "0":
        raise UserError(f"The new server did not stop well (exit code {code}). Nothing was changed.")


def labels(of: str, side: str = "none") -> tuple[str, ...]:
    """Return the options by which a container is known to be of an upgrade of these data."""
    return "--label", f"{_LABEL}={of}", "--label", f"{_LABEL}.side={side}"


def remove_leftovers(of: str) -> None:
    """Remove the containers that an interrupted upgrade of the same data left."""
    _remove("--filter", f"label={_LABEL}={of}")


@contextmanager
def _container(
    image: str,
    options: Sequence[str],
    environment: Mapping[str, str],
    command: Sequence[str],
    *,
    of: str,
    side: str,
) -> Iterator[str]:
    docker.pull(image)
    # By name alone, so that no value is in a list of processes.
    variables = [word for name in environment for word in ("--env", name)]
    arguments = (
        "--detach",
        "--publish",
        "127.0.0.1::5432",
        *labels(of, side),
        *options,
        *variables,
        image,
        *command,
    )
    try:
        yield docker.run("run", *arguments, environment=environment).strip()
    finally:
        # By its labels, for its id may not have been heard of when Ctrl-C came.
        _remove("--filter", f"label={_LABEL}={of}", "--filter", f"label={_LABEL}.side={side}")


def _remove(*filters: str) -> None:
    found = (docker.ask("ps", "--all", "--quiet", *filters) or "").split()
    if found:
        docker.ask("rm", "--force", "--volumes", *found, seconds=_STOP_SECONDS)


def _first_role(container: str) -> str:
    """Return the name of the superuser that the data were made with, once they are copied."""
    deadline = time.monotonic() + _START_SECONDS
    while not (said := docker.ask("exec", container, "cat", "/old/first-role")):
        _look(container, deadline)
    return said.removesuffix("\n")


def _wait(container: str, user: str, password: str) -> URL:
    """Return the server's URL once it takes connections over TCP, which that of a first start does not."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        state = json.loads(docker.run("inspect", "--format", "{{json .NetworkSettings.Ports}}", container))
        ports = (state or {}).get("5432/tcp") or []
        if ports:
            url = URL.create(
                "postgresql+psycopg", user, password, "127.0.0.1", int(ports[0]["HostPort"]), "postgres"
            )
            words = url.get_dialect()().create_connect_args(url)[1]
            try:
                psycopg.connect(**words, connect_timeout=2).close()
            except psycopg.OperationalError:
                pass
            else:
                return url
        _look(container, deadline)


def _look(container: str, deadline: float) -> None:
    """Pause; raise UserError where the container has ended, or takes too long."""
    running = docker.run("inspect", "--format", "{{.State.Running}}", container).strip() == "true"
    if not running or time.monotonic() > deadline:
        log = (docker.ask("logs", "--tail", "5", container) or "").strip()
        raise UserError(f"A server for the upgrade did not start. Nothing was changed. Its log ends:\n{log}")
    # A container tells nobody that its server takes connections: it has to be asked again.
    time.sleep(_PAUSE)
