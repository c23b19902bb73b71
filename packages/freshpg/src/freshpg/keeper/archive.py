"""One file that holds the data directory of a server that was shut down: a seed, from which others are grown.

One file and not a directory, so that it appears whole or not at all, is read in one go, and one checksum covers
everything. A file's content that occurs again, as the catalogs of template0, template1 and postgres do, is kept once,
and zeros at its end, which are most of a segment of WAL, not at all.
"""

# Importing pathlib would double this process's start, which every server's start waits for.
# ruff: noqa: PTH102, PTH104, PTH108, PTH114, PTH118, PTH123, PTH208

import contextlib
import json
import os
import re
import stat
import zlib
from typing import Any

FORMAT = 1
"""Part of every seed's key: one of another format is never opened."""

_MAGIC = b"postgres seed\n"
_HEAD = len(_MAGIC) + 16
_LEFT_OUT = ("postmaster.pid", "postmaster.opts", "pg_internal.init")
VERIFIER = re.compile(rb"SCRAM-SHA-256\$(\d+):[A-Za-z0-9+/=]{24}\$[A-Za-z0-9+/=]{44}:[A-Za-z0-9+/=]{44}")


class BrokenSeed(Exception):  # noqa: N818 (it says what is so)
    """A seed is not what was written, or not ours; the message says how."""


def find_secret(data: str) -> bytes:
    """Return the superuser's verifier in the data of a new server. Raises BrokenSeed if none or several."""
    found = {match.group() for _, match in _verifiers(data)}
    if len(found) != 1:
        raise BrokenSeed(f"{len(found)} passwords are in it")
    return found.pop()


def set_secret(data: str, known: bytes, secret: str) -> bytes:
    """Replace the superuser's verifier in the data of a server that does not run; return the new one.

    `secret` is what follows the count of iterations in a verifier for one iteration: `SALT$STOREDKEY:SERVERKEY`, each
    in base64 (RFC 5803). It takes the place of another of the same length, so that a start needs no server of its own
    to set the password, and no two servers that grow from one seed have the same. It needs data without checksums.
    Raises BrokenSeed.
    """
    places = [(path, match) for path, match in _verifiers(data) if match.group() == known]
    if not places:
        raise BrokenSeed("the superuser's password is not where it should be")
    # The count keeps its width: the server reads 0001 as 1.
    iterations = "1".rjust(len(places[0][1].group(1)), "0")
    new = f"SCRAM-SHA-256${iterations}:{secret}".encode()
    for path, match in places:
        with open(path, "r+b") as file:
            file.seek(match.start())
            file.write(new)
    return new


def _verifiers(data: str) -> list[tuple[str, re.Match[bytes]]]:
    """Find the verifiers of all roles, with the files that they are in."""
    found = []
    for name in os.listdir(os.path.join(data, "global")):
        path = os.path.join(data, "global", name)
        with open(path, "rb") as file:
            found += [(path, match) for match in VERIFIER.finditer(file.read())]
    return found


def write(data: str, path: str, secret: bytes) -> None:
    """Write the data as the seed `path`, whole or not at all. Raises OSError, and BrokenSeed where they hold links."""
    contents: dict[bytes, tuple[int, int]] = {}
    directories, files, length = [], [], 0
    for place, names, found in os.walk(data):
        directories += [os.path.relpath(os.path.join(place, name), data) for name in names]
        for name in found:
            whole = os.path.join(place, name)
            if name in _LEFT_OUT:
                continue
            if os.path.islink(whole):
                raise BrokenSeed(f"{whole} is a link")
            with open(whole, "rb") as file:
                content = file.read()
            kept = content.rstrip(b"\0")
            if kept not in contents:
                contents[kept] = (length, len(kept))
                length += len(kept)
            files.append([os.path.relpath(whole, data), *contents[kept], len(content)])
    if any(os.path.islink(os.path.join(data, name)) for name in directories):
        raise BrokenSeed("a directory is a link")
    header = {"directories": directories, "files": files, "secret": secret.decode()}
    parts = [json.dumps(header).encode(), *contents]
    _write_whole(path, [_head(parts), *parts])


def _head(parts: list[bytes]) -> bytes:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return _MAGIC + len(parts[0]).to_bytes(8, "big") + checksum.to_bytes(8, "big")


def _write_whole(path: str, parts: list[bytes]) -> None:
    making = f"{path}.{os.urandom(4).hex()}.making"
    try:
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.writelines(parts)
        os.rename(making, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(making)
        raise


def read(path: str) -> tuple[dict[str, Any], memoryview]:
    """Read a seed; return its header and its contents. Raises FileNotFoundError, and BrokenSeed."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise BrokenSeed("somebody else can write to it")
            buffer = memoryview(bytearray(found.st_size))
            if found.st_size < _HEAD or file.readinto(buffer) != found.st_size:
                raise BrokenSeed("it ends early")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BrokenSeed(error.strerror or type(error).__name__) from None
    start = _HEAD + int.from_bytes(buffer[len(_MAGIC) : len(_MAGIC) + 8], "big")
    checksum = zlib.crc32(buffer[_HEAD:])
    if buffer[: len(_MAGIC)] != _MAGIC or checksum != int.from_bytes(buffer[_HEAD - 8 : _HEAD], "big"):
        raise BrokenSeed("its checksum is another")
    header: dict[str, Any] = json.loads(bytes(buffer[_HEAD:start]))
    return header, buffer[start:]


def extract(path: str, data: str, owner: tuple[int, int]) -> bytes:
    """Grow the data from a seed in the empty directory `data`; return the superuser's verifier in it.

    Raises FileNotFoundError and other OSErrors, and BrokenSeed.
    """
    header, contents = read(path)
    given_away = tuple(owner) != (os.geteuid(), os.getegid())
    for name in header["directories"]:
        os.mkdir(os.path.join(data, name), 0o700)
        if given_away:
            os.chown(os.path.join(data, name), *owner)
    for name, offset, length, size in header["files"]:
        descriptor = os.open(os.path.join(data, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            left = contents[offset : offset + length]
            while left:
                left = left[os.write(descriptor, left) :]
            if size != length:
                os.ftruncate(descriptor, size)
            if given_away:
                os.fchown(descriptor, *owner)
        finally:
            os.close(descriptor)
    verifier: str = header["secret"]
    return verifier.encode()
