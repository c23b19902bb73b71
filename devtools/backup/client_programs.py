"""PostgreSQL's client programs in the server's major version, on this machine or in a container."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, cast

from rich.console import Console
from sqlalchemy import URL, Connection, text

from backend.config import Settings
from backend.errors import UserError
from devtools.backup.swap import quote
from devtools.psql import connection_words
from freshpg import find_clients

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Tools:
    """The client programs of one version in one place. Their messages appear on standard error."""

    command: Callable[[str], list[str]]
    """Returns the command that runs the program of this name."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """The changes to a server's URL that are necessary if the programs run in a container."""

    def run(self, program: str, url: URL, *options: str, **streams: Any) -> None:
        """Run a program on a database. Raises UserError if it fails."""
        with progress(f"Running {program}"), self.start(program, url, *options, **streams) as process:
            try:
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
        if code != 0:
            raise UserError(f"{program} failed.")

    def start(self, program: str, url: URL, *options: str, **streams: Any) -> subprocess.Popen[bytes]:
        conninfo, variables = connection_words(url.set(**self.place))
        command = [*self.command(program), *options, "--dbname", conninfo]
        return subprocess.Popen(command, env=os.environ | variables, **streams)


def progress(work: str) -> AbstractContextManager[object]:
    """Show on a terminal that work is going on."""
    return Console(stderr=True).status(work)


def copy_server(old: Tools, old_url: URL, new: Tools, new_url: URL) -> None:
    """Copy all roles and databases into a new server, whose superuser keeps its password. Raises UserError."""
    # The new server already has this superuser; pg_dumpall quotes a name if necessary.
    names = (str(new_url.username), quote(str(new_url.username)))
    lines = ("DROP ROLE IF EXISTS {};", "CREATE ROLE {};", "ALTER ROLE {} WITH ")
    ours = tuple(line.format(name).encode() for line in lines for name in names)
    # A database may be set to read-only transactions, which must not stop psql.
    options = ("--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1")
    writable = new_url.update_query_dict(
        {"options": "-c default_transaction_read_only=off -c client_min_messages=warning"}
    )
    with (
        progress("Copying the data"),
        old.start("pg_dumpall", old_url, "--clean", "--if-exists", stdout=subprocess.PIPE) as dump,
        new.start("psql", writable, *options, stdin=subprocess.PIPE) as restore,
    ):
        source, target = cast("IO[bytes]", dump.stdout), cast("IO[bytes]", restore.stdin)
        with suppress(BrokenPipeError), target:
            for line in source:
                if not line.startswith(ours):
                    target.write(line)
                elif line.startswith(b"ALTER"):
                    break
            shutil.copyfileobj(source, target)
    if restore.returncode or dump.returncode:
        raise UserError("The data could not be copied. Nothing was changed.")


def find_tools(connection: Connection, settings: Settings) -> Tools:
    """Find the client programs for the server of this connection.

    Looks in Compose's own container, on this machine, and for the image postgres:MAJOR. Raises UserError.
    """
    url, port = settings.database_url, settings.db_port
    major = connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0
    if url.host in LOOPBACK and url.port == port:
        container = (docker_says("ps", "--quiet", "--filter", f"publish={port}") or "").strip()
        version = docker_says("exec", container, "pg_dump", "--version") if container else None
        if re.search(rf"\(PostgreSQL\) {major}\b", version or ""):
            return Tools(inside(container), {"host": "127.0.0.1", "port": 5432})
    directory = find_clients(major)
    if directory is not None:
        return Tools(lambda program: [str(directory / program)])
    image = f"postgres:{major}"
    if docker_says("image", "inspect", image) is None:
        raise UserError(
            f"The server is PostgreSQL {major}, and this machine has no pg_dump and pg_restore of that version.\n"
            f"Install them (on Debian: postgresql-client-{major}), or start Docker and run `docker pull {image}`."
        )
    # The container uses this machine's network, and keeps no log: a log would be a second copy of the dump.
    options = ["--rm", "--interactive", "--log-driver", "none", "--network", "host", "--env", "PGPASSWORD"]
    return Tools(lambda program: ["docker", "run", *options, "--entrypoint", program, image])


def inside(container: str) -> Callable[[str], list[str]]:
    """Return how to run a program in a container that runs."""
    return lambda program: ["docker", "exec", "--interactive", "--env", "PGPASSWORD", container, program]


def docker(*arguments: str, given: str = "", seconds: float | None = None) -> str:
    """Run a docker command with this text as its input, and return its output. Raises UserError."""
    try:
        return subprocess.run(
            ["docker", *arguments], input=given, capture_output=True, text=True, timeout=seconds, check=True
        ).stdout
    except subprocess.CalledProcessError as error:
        raise UserError(f"docker {arguments[0]} failed: {error.stderr.strip()}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Docker does not answer: {error}.") from None


def docker_says(*arguments: str) -> str | None:
    """Return a docker command's output, or None if it fails or Docker does not answer."""
    try:
        return docker(*arguments, seconds=ANSWER_SECONDS)
    except UserError:
        return None
