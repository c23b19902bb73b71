"""The user that a server runs as: PostgreSQL refuses root, and initdb a user without an entry in /etc/passwd."""

import os
import pwd
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .server import PostgresUnavailable


@dataclass(frozen=True)
class RunAs:
    """How to run a program as a user that PostgreSQL accepts."""

    name: str
    prefix: tuple[str, ...] = ()
    """A command that goes before the program's."""
    uid: int | None = None
    gid: int | None = None
    """The account to change to, if any."""

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that the server's files have to belong to."""
        return (
            os.geteuid() if self.uid is None else self.uid,
            os.getegid() if self.gid is None else self.gid,
        )

    @property
    def account(self) -> dict[str, Any]:
        """Popen's arguments for the account to change to."""
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(
        self, command: Sequence[str], inherited: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end; return its exit status and what it says on both outputs.

        It inherits these file descriptors.
        """
        return subprocess.run(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=server_environment(),
            check=False,
            pass_fds=inherited,
            **self.account,
        )

    def works(self, command: Sequence[str] = ("true",)) -> bool:
        """Tell whether the command runs as this user and succeeds."""
        with suppress(OSError):
            return self.run(command).returncode == 0
        return False

    def can_enter(self, directory: Path) -> bool:
        """Tell whether this user can reach the directory."""
        return self.uid is None or self.works(("/bin/sh", "-c", 'cd -- "$0"', str(directory)))

    def give(self, tree: Path) -> None:
        """Make a directory and everything in it this user's, the directory itself last."""
        if tree.stat().st_uid == self.owner[0]:
            return
        for place, _, files in os.walk(tree, topdown=False):
            for name in (*(os.path.join(place, file) for file in files), place):  # noqa: PTH118 (a Path for each of thousands is slow)
                os.chown(name, *self.owner, follow_symlinks=False)


def server_environment() -> dict[str, str]:
    """Return this process's environment without what changes a server's behaviour or its messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


@cache
def possible_users() -> tuple[RunAs, ...]:
    """Return the users that a server can run as here, the preferred one first.

    For root, a user namespace is preferred: the files stay root's. If the kernel or a container's profile refuses it,
    the account nobody serves. A user without an entry in /etc/passwd is mapped to nobody in a namespace.
    """
    uid = os.geteuid()
    with suppress(KeyError):
        if uid != 0 and pwd.getpwuid(uid):
            return (RunAs("this user"),)
    found = []
    with suppress(KeyError):
        nobody = pwd.getpwnam("nobody")
        if sys.platform == "linux":
            mapping = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
            found.append(RunAs("namespace", ("unshare", "--user", *mapping, "--")))
        if uid == 0:
            found.append(RunAs("nobody", uid=nobody.pw_uid, gid=nobody.pw_gid))
    return tuple(each for each in found if each.works())


def preferred_user() -> RunAs:
    """Return the user that a server should run as here; raise PostgresUnavailable if there is none."""
    if possible := possible_users():
        return possible[0]
    if (uid := os.geteuid()) == 0:
        raise PostgresUnavailable(
            "PostgreSQL refuses to run as root, and neither a user namespace nor the account nobody works here; "
            "run this as an ordinary user."
        )
    raise PostgresUnavailable(
        f"User id {uid} has no entry in /etc/passwd, which initdb needs, and user namespaces are not allowed here; "
        f"add one: echo 'app:x:{uid}:{os.getegid()}::/tmp:/bin/sh' >> /etc/passwd"
    )
