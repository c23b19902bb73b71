"""Which cached seed a server may grow from: a bare one, or one with the project's template database in it.

Embedded servers grow from files, those in containers from images (`container_seed.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import platform
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cache
from .keeper.archive import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SEEDED_TEMPLATE = "seeded_template"
"""The name of the template database in a seed; a run gives it another."""
INSIDE_SETTING = "seed.template"
"""A setting of a server of ours: the name of the template database that it began with."""
WANTED_SETTING = "seed.wanted"
"""A setting of a server of ours: the digest of the template for which there was no seed."""
IMAGE_SETTING = "seed.image"
"""A setting of a server of ours in a container: the image that it was asked for by."""


@dataclass(frozen=True)
class Seeds:
    """What a keeper is told: the seeds to try, and where to store the new ones that it makes."""

    choices: Sequence[dict[str, Any]] = ()
    """Each with its path and the arguments that tell the server which it was; the first that is there is taken."""
    unseeded: Sequence[str] = ()
    """The arguments of a server that had to be initialised."""
    store: Path | None = None
    """Where what initdb made goes."""
    at_end: Path | None = None
    """Where the data go as they are at the server's end, if its owner asks for it."""


NO_SEEDS = Seeds()


def seeds_for(version: str, initdb: Sequence[str], template: str | None) -> Seeds:
    """Return the seeds for servers of this version that this command initialises; NO_SEEDS without a cache."""
    bare = cache.place_of("bare", _key(version, initdb))
    if bare is None:
        return NO_SEEDS
    choices: list[dict[str, Any]] = []
    wanted: list[str] = []
    if template is not None:
        choices.append(
            {
                "path": str(template_seed(bare, template)),
                "arguments": _setting(INSIDE_SETTING, SEEDED_TEMPLATE),
            }
        )
        wanted = _setting(WANTED_SETTING, template)
    choices.append({"path": str(bare), "arguments": wanted})
    return Seeds(choices, wanted, bare)


def template_seed(bare: Path, template: str) -> Path:
    """Return where the seed is that is like this bare one and has the template of this digest in it."""
    return bare.with_name(bare.name.replace("bare-", f"template-{template[:16]}-", 1))


def _setting(name: str, value: str) -> list[str]:
    return ["-c", f"{name}={value}"]


def _key(version: str, initdb: Sequence[str]) -> str:
    """Digest what decides what initdb makes. Another build of the version is told by the size of its program."""
    program = Path(initdb[0]).with_name("postgres")
    parts = [FORMAT, version, program.stat().st_size, platform.machine(), *initdb[1:]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def secret_of(password: str) -> str:
    """Return the part of a SCRAM verifier that depends on the password (RFC 5803), for one iteration.

    One is enough, and saves a connection 3 ms, for a password that is long, random and ASCII, as it has to be.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"{salt_text}${stored_text}:{server_text}"


class NoInput(Exception):  # noqa: N818 (it says what is so)
    """A pattern names no file; the message says which."""


def digest_of(root: Path, patterns: Iterable[str]) -> str | None:
    """Return a digest of all files that the patterns name, relative to `root`, and those below what they name.

    None without patterns. Raises NoInput where one names no file, for then its changes would never be seen.
    """
    files: dict[str, Path] = {}
    for pattern in patterns:
        found = [
            file for place in root.glob(pattern) for file in (_below(place) if place.is_dir() else [place])
        ]
        if not found:
            raise NoInput(f"{pattern} names no file below {root}")
        files |= {file.relative_to(root).as_posix(): file for file in found}
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(json.dumps([name, hashlib.sha256(files[name].read_bytes()).hexdigest()]).encode())
    return whole.hexdigest() if files else None


def _below(directory: Path) -> Iterable[Path]:
    return (
        file
        for file in directory.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"
    )
