"""As whom the server runs: PostgreSQL refuses to run as root, and development containers are root's."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from .server import PostgresUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_NAMESPACE = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")


@dataclass(frozen=True)
class Identity:
    """How to run a program so that it is not root: a command that goes before it, or an account to become."""

    name: str
    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group that its files have to belong to, as seen from here."""
        if self.uid is None or self.gid is None:
            return os.geteuid(), os.getegid()
        return self.uid, self.gid

    def works(self, command: Sequence[str]) -> bool:
        """Tell whether the command can be run by this identity and succeeds."""
        account: dict[str, Any] = {}
        if self.uid is not None:
            account = {"user": self.uid, "group": self.gid, "extra_groups": []}
        try:
            answer = subprocess.run(  # noqa: PLW1510 (a failure is the answer)
                [*self.prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                **account,
            )
        except OSError:
            return False
        return answer.returncode == 0

    def can_enter(self, directory: Path) -> bool:
        """Tell whether this identity can reach what lies in the directory."""
        return self.works(("/bin/sh", "-c", 'cd -- "$0"', str(directory)))


@cache
def possible_identities() -> tuple[Identity, ...]:
    """Return the identities that a server can have here, the preferred one first.

    A user namespace is preferred for root, because there the files stay root's and no directory has to be opened to
    anybody. Where the kernel or a container's profile refuses it, an unprivileged account serves.
    """
    if os.geteuid() != 0:
        return (Identity("direct"),)
    found = []
    if sys.platform == "linux":
        namespace = Identity("namespace", prefix=_NAMESPACE)
        if namespace.works(("/bin/sh", "-c", "exit 0")):
            found.append(namespace)
    account = _account()
    if account is not None and account.works(("/bin/sh", "-c", "exit 0")):
        found.append(account)
    return tuple(found)


def preferred_identity() -> Identity:
    """Return the identity that a server should have here; raise PostgresUnavailable where there is none."""
    try:
        return possible_identities()[0]
    except IndexError:
        raise PostgresUnavailable(
            "PostgreSQL refuses to run as root, and neither a user namespace nor the account nobody can be had here; "
            "run this as an ordinary user."
        ) from None


def _account() -> Identity | None:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return None
    # macOS numbers nobody -2, which the kernel takes as the unsigned value that getpwnam gives.
    return Identity("account", uid=nobody.pw_uid, gid=nobody.pw_gid)
