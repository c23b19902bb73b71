"""PostgreSQL's client programs of the server's own major version: on this machine, or in a container."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

from rich.filesize import decimal
from sqlalchemy import URL, Connection, text

from backend.config import Settings
from backend.errors import UserError
from devtools.psql import connection_words
from freshpg import find_clients

from .console import progress

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOK_SECONDS, DOCKER_SECONDS = 0.2, 15.0
LINES = 6


class ToolError(UserError):
    """A program failed; the message is what it wrote to standard error."""


@dataclass(frozen=True)
class Tools:
    """Programs of one version in one place."""

    command: Callable[[str], list[str]]
    """Returns the command that runs the program of this name."""
    place: Callable[[URL], URL] = lambda url: url
    """Returns a server's URL as seen from where the programs run."""

    def dump(self, url: URL, file: IO[bytes]) -> None:
        """Write a database to a file, as it is at one moment. Raises ToolError."""
        with progress(f"Dumping {url.database}") as show:
            self.run(
                "pg_dump", url, "--format=custom", stdout=file,
                meanwhile=lambda: show(decimal(os.fstat(file.fileno()).st_size)),
            )  # fmt: skip

    def restore(self, url: URL, file: IO[bytes], *options: str) -> None:
        """Read a dump into a database. Raises ToolError."""
        size = os.fstat(file.fileno()).st_size
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        with progress("Restoring") as show:
            # The program shares the position in the file with us.
            self.run(
                "pg_restore", url, "--exit-on-error", *options, stdin=file,
                meanwhile=lambda: show(f"{decimal(os.lseek(file.fileno(), 0, os.SEEK_CUR))} of {decimal(size)} read"),
            )  # fmt: skip

    def run(
        self,
        program: str,
        url: URL,
        *options: str,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: IO[bytes] | int = subprocess.DEVNULL,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a program on a database to its end. Raises ToolError if it fails, and ends it if we are interrupted."""
        conninfo, variables = connection_words(self.place(url))
        command = [*self.command(program), *options, "--dbname", conninfo]
        environment = os.environ | {"LC_MESSAGES": "C"} | variables
        with TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command, env=environment, stdin=stdin, stdout=stdout, stderr=errors
                )
            except OSError as error:
                raise ToolError(f"{command[0]} cannot be run: {error.strerror}.") from error
            try:
                while (code := poll(process)) is None:
                    meanwhile()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if code != 0:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").splitlines()[:LINES]
                raise ToolError("\n".join(lines) or f"{program} ended with exit code {code}.")


def poll(process: subprocess.Popen[bytes]) -> int | None:
    """Wait a moment for a process's end, and return its exit code, or None if it still runs."""
    try:
        return process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def find_tools(connection: Connection, settings: Settings) -> Tools:
    """Find the programs of the version of the configured server, to which the connection is.

    The first of: Compose's own container, this machine, the image postgres:MAJOR. Raises UserError.
    """
    url, compose_port = settings.url, settings.db_port
    major = connection.scalar(text("SELECT current_setting('server_version_num')::int / 10000")) or 0
    if url.host in LOOPBACK and url.port == compose_port:
        container = (docker_says("ps", "--quiet", "--filter", f"publish={compose_port}") or "").strip()
        version = docker_says("exec", container, "pg_dump", "--version") if container else None
        if re.search(rf"\(PostgreSQL\) {major}\b", version or ""):
            return tools_inside(container, lambda url: url.set(host="127.0.0.1", port=5432))
    directory = find_clients(major)
    if directory is not None:
        return Tools(lambda program: [str(directory / program)])
    image = f"postgres:{major}"
    if docker_says("image", "inspect", image) is not None:
        return tools_of_image(image, url)
    raise UserError(
        f"The server is PostgreSQL {major}, and this machine has no pg_dump and pg_restore of that version.\n"
        f"Install them (on Debian: postgresql-client-{major}), or start Docker and run `docker pull {image}`."
    )


def tools_inside(container: str, place: Callable[[URL], URL] = lambda url: url) -> Tools:
    """Return the programs in a server's own container."""
    command = ["docker", "exec", "--interactive", "--env", "PGPASSWORD", container]
    return Tools(lambda program: [*command, program], place)


def tools_of_image(image: str, url: URL) -> Tools:
    """Return the programs of an image, run in a container of their own that reaches what this machine reaches."""
    # No log, which would be a second copy of the dump.
    options = ["--rm", "--interactive", "--log-driver", "none", "--env", "PGPASSWORD"]
    socket = url.query.get("host")
    if isinstance(socket, str) and socket.startswith("/"):
        options += ["--volume", f"{socket}:{socket}", "--user", f"{os.getuid()}:{os.getgid()}"]
    is_linux = sys.platform == "linux"
    if is_linux:
        options += ["--network", "host"]

    def place(url: URL) -> URL:
        return url if is_linux or url.host not in LOOPBACK else url.set(host="host.docker.internal")

    return Tools(lambda program: ["docker", "run", *options, "--entrypoint", program, image], place)


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


def docker_says(*arguments: str, seconds: float = DOCKER_SECONDS) -> str | None:
    """Return a docker command's output, or None if it fails or Docker does not answer."""
    try:
        return docker(*arguments, seconds=seconds)
    except ToolError:
        return None
