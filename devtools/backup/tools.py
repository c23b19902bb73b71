"""pg_dump and pg_restore of a server's own major version: where they are, and how they are run.

They speak by standard input and output alone, so that they may as well be in a container. No password is ever an
argument, which lists of processes show.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from sqlalchemy import URL

from backend.errors import UserError
from devtools.psql import connection_words
from freshpg import find_clients

from . import docker

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATIENCE_SECONDS = 5.0
_CHUNK = 1 << 16


class ToolError(UserError):
    """One of PostgreSQL's programs ended with an error, told in its own last words."""


@dataclass(frozen=True)
class Tools:
    """Programs of one major version, found in one place."""

    origin: str
    """In words, as `of the container db-1`."""
    command: Callable[[str], list[str]]
    """What runs the program of this name."""
    place: Callable[[URL], URL] = lambda url: url
    """How the server's URL reads from where the programs run."""

    def dump(self, url: URL, *options: str) -> Iterator[bytes]:
        """Give what pg_dump writes of a database, piece by piece. Raises ToolError."""
        conninfo, environment = connection_words(self.place(url))
        command = [*self.command("pg_dump"), *options, "--dbname", conninfo]
        return _output(command, environment)

    def restore(self, chunks: Iterable[bytes], url: URL, *options: str) -> None:
        """Have pg_restore read a dump, piece by piece, into a database. Raises ToolError."""
        conninfo, environment = connection_words(self.place(url))
        self._feed(["--exit-on-error", *options, "--dbname", conninfo], chunks, environment)

    def dump_roles(self, url: URL) -> Iterator[bytes]:
        """Give the statements that make a server's roles, with their passwords. Raises ToolError."""
        conninfo, environment = connection_words(self.place(url))
        command = [*self.command("pg_dumpall"), "--roles-only", "--dbname", conninfo]
        return _output(command, environment)

    def run_script(self, script: bytes, url: URL) -> None:
        """Have psql run statements of which some may fail: a role may be there already. Raises ToolError."""
        conninfo, environment = connection_words(self.place(url))
        command = [*self.command("psql"), "--no-psqlrc", "--quiet", "--dbname", conninfo]
        self._write(command, [script], environment)

    def check(self, chunks: Iterable[bytes]) -> None:
        """Have pg_restore read a dump's list of contents. Raises ToolError."""
        self._feed(["--list"], chunks, {})

    def _feed(self, arguments: list[str], chunks: Iterable[bytes], environment: dict[str, str]) -> None:
        self._write([*self.command("pg_restore"), *arguments], chunks, environment)

    @staticmethod
    def _write(command: list[str], chunks: Iterable[bytes], environment: dict[str, str]) -> None:
        with _running(command, environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None  # noqa: S101  it is a PIPE, which the type does not say
            # It may end before it has read all: because it failed, or because the list of contents comes first.
            with suppress(BrokenPipeError), process.stdin:
                for chunk in chunks:
                    process.stdin.write(chunk)


def find_tools(url: URL, major: int, *, compose_port: int) -> Tools:
    """Find the programs of the server that the URL leads to, which is of this major version.

    Those in Compose's own container come first, then those on this machine, then an image. Raises UserError.
    """
    if url.host in LOOPBACK and url.port == compose_port:
        container = docker.publisher_of(compose_port)
        if container is not None and docker.version_in(container, "pg_dump") == major:
            return inside(container)
    directory = find_clients(major)
    if directory is not None:
        return Tools(f"in {directory}", lambda program: [str(directory / program)])
    image = f"postgres:{major}"
    if docker.has_image(image):
        return _of_image(image, url)
    raise UserError(
        f"The server is PostgreSQL {major}, and no pg_dump and pg_restore of that version are on this machine.\n"
        f"Install them (Debian's package is postgresql-client-{major}), or start Docker with the image {image}."
    )


def inside(container: str) -> Tools:
    """Return the programs of a server's own container."""
    command = ["docker", "exec", "--interactive", "--env", "PGPASSWORD", container]
    return Tools(
        "of the server's own container",
        lambda program: [*command, program],
        lambda url: url.set(host="127.0.0.1", port=5432),
    )


def _of_image(image: str, url: URL) -> Tools:
    # A log would be a second copy of the dump.
    options = ["--rm", "--interactive", "--log-driver", "none", "--env", "PGPASSWORD"]
    sockets = url.query.get("host")
    if isinstance(sockets, str) and sockets.startswith("/"):
        # As this user, which is what such a server may ask about.
        options += ["--volume", f"{sockets}:{sockets}", "--user", f"{os.getuid()}:{os.getgid()}"]
    is_linux = sys.platform == "linux"
    if is_linux:
        options += ["--network", "host"]

    def place(url: URL) -> URL:
        return url if is_linux or url.host not in LOOPBACK else url.set(host="host.docker.internal")

    def run(program: str) -> list[str]:
        return ["docker", "run", *options, "--entrypoint", program, image]

    return Tools(f"of the image {image}", run, place)


def _output(command: list[str], environment: dict[str, str]) -> Iterator[bytes]:
    with _running(command, environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # noqa: S101  it is a PIPE, which the type does not say
        while chunk := process.stdout.read(_CHUNK):
            yield chunk


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], *, stdin: int, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for as long as the block, wait for its end, and raise ToolError if that is not a good one."""
    with tempfile.TemporaryFile() as words:
        try:
            # In a session of its own: a terminal's Ctrl-C is ours to answer.
            process = subprocess.Popen(
                command, env=os.environ | {"LC_MESSAGES": "C"} | environment, stdin=stdin, stdout=stdout,
                stderr=words, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise ToolError(f"{command[0]} cannot be run: {error.strerror}.") from error
        try:
            yield process
            code = process.wait()
        except BaseException:
            _end(process)
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        if code != 0:
            raise ToolError(_said(words) or f"{command[0]} ended with exit code {code}.")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _said(words: IO[bytes]) -> str:
    """Return what the program said, without the statements that it sent."""
    words.seek(0)
    lines = words.read().decode(errors="replace").splitlines()
    kept = [line.strip() for line in lines if "error:" in line or line.startswith(("DETAIL", "HINT"))]
    return "\n".join((kept or lines)[:3])
