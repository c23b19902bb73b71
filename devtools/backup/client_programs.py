"""PostgreSQL's client programs in the server's major version, on this machine or in a container."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any, cast

from rich.console import Console
from rich.status import Status
from rich.text import Text
from sqlalchemy import URL, Connection, text

from backend.config import Settings
from backend.errors import UserError
from devtools.psql import connection_words
from freshpg import find_clients

from .swap import quote

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANSWER_SECONDS = 15.0


class ToolError(UserError):
    """A program failed; the message is the program's output on standard error."""


@dataclass(frozen=True)
class Tools:
    """The client programs of one version in one place."""

    command: Callable[[str], list[str]]
    """Returns the command that runs the program of this name."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """The changes to a server's URL that are necessary if the programs run in a container."""

    def dump(self, url: URL, file: IO[bytes]) -> None:
        """Write a consistent snapshot of a database to a file. Raises ToolError."""
        with progress(f"Dumping {url.database}"):
            self._run("pg_dump", url, "--format=custom", stdin=subprocess.DEVNULL, stdout=file)

    def restore(self, url: URL, file: IO[bytes], *options: str) -> None:
        """Read a dump into a database. Raises ToolError."""
        with progress("Restoring"):
            self._run("pg_restore", url, "--exit-on-error", *options, stdin=file, stdout=subprocess.DEVNULL)

    def _run(self, program: str, url: URL, *options: str, **streams: Any) -> None:  # noqa: ANN401  Popen's
        with self.start(program, url, *options, stderr=subprocess.PIPE, **streams) as process:
            try:
                _, errors = process.communicate()
            except BaseException:
                process.terminate()
                raise
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip()
            raise ToolError(said or f"{program} ended with exit code {process.returncode}.")

    def start(self, program: str, url: URL, *options: str, **streams: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
        conninfo, variables = connection_words(url.set(**self.place))
        command = [*self.command(program), *options, "--dbname", conninfo]
        return subprocess.Popen(command, env=os.environ | variables, **streams)


def copy_server(old: Tools, old_url: URL, new: Tools, new_url: URL) -> None:
    """Copy all roles and databases into a new server, whose superuser keeps its password. Raises ToolError."""
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
        progress("Dumping and restoring"),
        TemporaryFile() as errors,
        old.start(
            "pg_dumpall", old_url, "--clean", "--if-exists", stdout=subprocess.PIPE, stderr=errors
        ) as dump,
        new.start("psql", writable, *options, stdin=subprocess.PIPE, stderr=errors) as restore,
    ):
        source, target = cast("IO[bytes]", dump.stdout), cast("IO[bytes]", restore.stdin)
        try:
            with suppress(BrokenPipeError), target:
                for line in source:
                    if not line.startswith(ours):
                        target.write(line)
                    elif line.startswith(b"ALTER"):
                        break
                shutil.copyfileobj(source, target)
            source.close()
            failed = restore.wait() or dump.wait()
        except BaseException:
            dump.terminate()
            restore.terminate()
            raise
        if failed:
            errors.seek(0)
            raise ToolError(f"{errors.read().decode(errors='replace').strip()}\nNothing was changed.")


def progress(what: str) -> Status:
    """Show a status line at the terminal while something takes time."""
    return Console(stderr=True).status(Text(f"{what} ..."))


def find_tools(connection: Connection, settings: Settings) -> Tools:
    """Find the client programs for the server of this connection.

    Looks in Compose's own container, on this machine, and for the image postgres:MAJOR. Raises UserError.
    """
    url, port = settings.url, settings.db_port
    major = connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0
    if url.host in LOOPBACK and url.port == port:
        container = (docker_says("ps", "--quiet", "--filter", f"publish={port}") or "").strip()
        version = docker_says("exec", container, "pg_dump", "--version") if container else None
        if re.search(rf"\(PostgreSQL\) {major}\b", version or ""):
            inside = ["docker", "exec", "--interactive", "--env", "PGPASSWORD", container]
            return Tools(lambda program: [*inside, program], {"host": "127.0.0.1", "port": 5432})
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
    is_host_elsewhere = sys.platform != "linux" and url.host in LOOPBACK
    return Tools(
        lambda program: ["docker", "run", *options, "--entrypoint", program, image],
        {"host": "host.docker.internal"} if is_host_elsewhere else {},
    )


def docker(*arguments: str, variables: Mapping[str, str] | None = None, seconds: float | None = None) -> str:
    """Run a docker command and return its output. Raises ToolError."""
    if shutil.which("docker") is None:
        raise ToolError("Docker is not installed.")
    try:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            check=False, env=os.environ | dict(variables or {}),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ToolError(f"Docker did not answer within {seconds:g} s.") from None
    if done.returncode != 0:
        raise ToolError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def docker_says(*arguments: str) -> str | None:
    """Return a docker command's output, or None if it fails or Docker does not answer."""
    try:
        return docker(*arguments, seconds=ANSWER_SECONDS)
    except ToolError:
        return None
