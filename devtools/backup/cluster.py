"""All that one server holds, copied to a new one; and servers in containers to copy from and to."""

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile

from sqlalchemy import URL

from backend.errors import UserError
from backend.scripts.terminal import say

from .console import progress
from .swap import literal, quote
from .tools import ToolError, Tools, docker, docker_says, tools_inside

LABEL = "procore-integrator.db_upgrade"
SOCKET = {"host": "/var/run/postgresql"}
START_SECONDS, STOP_SECONDS, PAUSE = 300.0, "120", 0.2
# No password is asked for, and nobody else gets in: the container has no network.
OLD_SERVER = """
echo 'local all all trust' > /tmp/hba.conf
exec docker-entrypoint.sh postgres -c hba_file=/tmp/hba.conf -c listen_addresses=127.0.0.1 -c ssl=off \
    -c unix_socket_directories=/var/run/postgresql
"""
# A role or database may have made transactions read-only, which must not stop what is restored.
WRITABLE = {"options": "-c default_transaction_read_only=off"}
DATABASES = "SELECT datname FROM pg_database WHERE datname NOT IN ('template0', 'template1') ORDER BY datname"


@dataclass(frozen=True)
class Server:
    """A server that runs: its URL, as its superuser, and the programs that fit it."""

    url: URL
    tools: Tools


def copy(old: Server, new: Server) -> None:
    """Copy all roles, and all databases but template1. Raises ToolError."""
    copy_roles(old, new)
    names = old.tools.output("psql", old.url, "--no-psqlrc", "-At0", "--command", DATABASES)
    for name in filter(None, names.split("\0")):
        with TemporaryFile() as file:
            old.tools.dump(old.url.set(database=name), file)
            into = new.url.set(database="template1").update_query_dict(WRITABLE)
            new.tools.restore(into, file, "--clean", "--if-exists", "--create")
        say(f"  copied {name}")


def copy_roles(old: Server, new: Server) -> None:
    user = str(new.url.username)
    script = old.tools.output("pg_dumpall", old.url, "--globals-only")
    # The new server has its superuser already, with the password that it is configured with.
    mine = f"CREATE ROLE {quote(user)};", f"CREATE ROLE {user};"
    lines = [line for line in script.splitlines() if line not in mine]
    if new.url.password is not None:
        lines.append(f"ALTER ROLE {quote(user)} PASSWORD {literal(str(new.url.password))};")
    with TemporaryFile() as file:
        file.write("\n".join(lines).encode())
        file.seek(0)
        new.tools.run("psql", new.url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", stdin=file)


@contextmanager
def old_server(
    image: str, mount: str, data: str, user: str, *, of: str, account: str = "root"
) -> Iterator[Server]:
    """Run an old server, whose superuser is `user`, on the data at a path of a volume or directory."""
    options = ["--volume", f"{mount}:/volume", "--env", f"PGDATA=/volume/{data}", "--user", account]
    command = ["--entrypoint", "sh", image, "-euc", OLD_SERVER]
    with container([*options, *command], {}, of=of) as name:
        yield wait_for(name, URL.create("postgresql+psycopg", user, database="template1", query=SOCKET))


@contextmanager
def new_server(
    image: str, mount: str, data: str, variables: Mapping[str, str], *, of: str
) -> Iterator[Server]:
    """Run a new server, made as the image does, with its data at a path of the volume."""
    options = [
        "--volume",
        mount,
        "--env",
        f"PGDATA={data}",
        *(word for name in variables for word in ("--env", name)),
    ]
    with container([*options, image], variables, of=of) as name:
        yield wait_for(
            name,
            URL.create(
                "postgresql+psycopg", variables["POSTGRES_USER"], variables["POSTGRES_PASSWORD"],
                database="template1", query=SOCKET,
            ),
        )  # fmt: skip


@contextmanager
def container(command: Sequence[str], variables: Mapping[str, str], *, of: str) -> Iterator[str]:
    """Run a container while the block runs, and stop it cleanly. Raises ToolError."""
    name = f"db_upgrade-{secrets.token_hex(4)}"
    options = ("--detach", "--network", "none", "--name", name, "--label", f"{LABEL}={of}")
    try:
        docker("run", *options, *command, variables=variables)
        yield name
        docker("stop", "-t", STOP_SECONDS, name)
        code = docker("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        if code != "0":
            raise ToolError(f"A server of the upgrade did not stop cleanly (exit code {code}).")
    finally:
        remove(name)


def remove_leftovers(of: str) -> None:
    """Remove the containers that an upgrade of these data that was killed has left."""
    remove(*(docker_says("ps", "--all", "--quiet", "--filter", f"label={LABEL}={of}") or "").split())


def remove(*containers: str) -> None:
    for name in containers:
        docker_says("stop", "-t", STOP_SECONDS, name, seconds=float(STOP_SECONDS))
        docker_says("rm", "--force", "--volumes", name)


def wait_for(name: str, url: URL) -> Server:
    """Return the server in a container once it takes connections over TCP: that of a first start does not."""
    tools = tools_inside(name)
    deadline = time.monotonic() + START_SECONDS
    with progress("Starting a server"):
        while docker_says("exec", name, "pg_isready", "--quiet", "--host", "127.0.0.1") is None:
            running = docker("inspect", "--format", "{{.State.Running}}", name).strip() == "true"
            if not running or time.monotonic() > deadline:
                log = (docker_says("logs", "--tail", "5", name) or "").strip()
                raise UserError(
                    f"A server for the upgrade did not start. Nothing was changed. Its log ends:\n{log}"
                )
            time.sleep(
                PAUSE
            )  # there is nothing to wait on: a container does not report that its server is ready
    return Server(url, tools)
