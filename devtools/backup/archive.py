"""The one file that a backup is: how it is written, so that it is whole or not there, and how it is read."""

import fcntl
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import IO, Annotated

from pydantic import BaseModel, Field, ValidationError

from backend.config import ROOT
from backend.errors import UserError

from .figures import Figures
from .properties import Properties

DIRECTORY = ROOT / "backups"
FORMAT = 1
CHUNK = 1 << 20
_DUMP, _MANIFEST = "database.dump", "manifest.json"
_STAMP = "%Y%m%dT%H%M%SZ"
_PARTIAL = ".partial"
_PLAIN_DUMP = b"PGDMP"
# What else zipfile says of a file that was changed, by what was: a length, a flag or a version, a method.
_CHANGED = (EOFError, RuntimeError, zlib.error, lzma.LZMAError)
_LONGEST_MANIFEST = 64 << 20


class Manifest(BaseModel):
    """What a backup says of itself."""

    format: int
    made_at: datetime
    database: str
    server_version: Annotated[str, Field(pattern=r"^\d+")]
    revision: str | None
    properties: Properties
    figures: Figures

    @property
    def major(self) -> int:
        """The server's major version; `19beta1` is of 19."""
        return int("".join(takewhile(str.isdecimal, self.server_version)))


class _Kind(BaseModel):
    """As much of a manifest as one of any format has."""

    format: int


@dataclass(frozen=True)
class Backup:
    """A backup that was found whole."""

    path: Path
    manifest: Manifest
    _zip: zipfile.ZipFile

    @property
    def size(self) -> int:
        return self._zip.getinfo(_DUMP).file_size

    def chunks(self) -> Iterator[bytes]:
        """Give what pg_dump wrote, piece by piece."""
        with self._zip.open(_DUMP) as dump:
            while chunk := dump.read(CHUNK):
                yield chunk


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime(_STAMP)


def default_path(database: str, revision: str | None, moment: datetime) -> Path:
    """Return the file's usual place and name: database, revision, and when it was made, in UTC."""
    return DIRECTORY / f"{_tame(database)}-{_tame(revision or 'no-revision')}-{stamp(moment)}.zip"


def newest(database: str) -> Path:
    """Return this database's newest backup in the usual place, by the time in its name. Raises UserError."""
    name = re.compile(rf"{re.escape(_tame(database))}-[\w.]+-(\d{{8}}T\d{{6}}Z)\.zip")
    found = [
        (match[1], path)
        for path in DIRECTORY.glob("*.zip")
        if (match := name.fullmatch(path.name)) is not None
    ]
    if not found:
        raise UserError(
            f"There is no backup of {database} in {shown(DIRECTORY)}.\n"
            "Make one (`nox -s db_backup`), or say which file to restore (`nox -s db_restore -- FILE`)."
        )
    return max(found)[1]


def shown(path: Path) -> str:
    """Name a file for a person: from here, if it is below, else in full."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def writing(path: Path) -> Iterator["Writer"]:
    """Lend a writer of a file that gets its name when the block ends well; otherwise nothing is left of it.

    It is this user's alone to read. Raises UserError where the name is taken or not to be had.
    """
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _remove_leftovers(partial)
        if os.path.lexists(path):
            raise UserError(f"{shown(path)} is there already, and is left as it is: say another name.")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Writer(path, file)
            file.flush()
            os.fsync(file.fileno())
            _name(partial, path)
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


class Writer:
    """Writes a backup: first what pg_dump says, piece by piece, and then what it is."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file

    def write(self, chunks: Iterable[bytes], manifest: Manifest) -> None:
        # Stored, for pg_dump has compressed it. What was dumped may be larger than anybody knows beforehand.
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(_entry(_DUMP, manifest.made_at), "w", force_zip64=True) as dump:
                for chunk in chunks:
                    dump.write(chunk)
            archive.writestr(_entry(_MANIFEST, manifest.made_at), manifest.model_dump_json(indent=1))

    def size(self) -> int:
        return self._file.seek(0, os.SEEK_END)

    def read_back(self) -> Backup:
        """Read what was written, as a restoration would."""
        self._file.flush()
        return _read(self.path, zipfile.ZipFile(self._file), lambda _: None)


@contextmanager
def reading(path: Path, tell: Callable[[int], None] = lambda _: None) -> Iterator[Backup]:
    """Lend a backup every byte of which was read and found as it was written; `tell` hears how many there were so far.

    Raises UserError for what is none, is not whole, or was made by newer code.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_PLAIN_DUMP))
            if beginning == _PLAIN_DUMP:
                raise UserError(
                    f"{shown(path)} is pg_dump's own, and has no figures to be verified by.\n"
                    "pg_restore reads it; what `nox -s db_backup` writes is a zip with such a file in it."
                )
            with zipfile.ZipFile(file) as archive:
                yield _read(path, archive, tell)
    # The second is what zipfile says to a flipped bit by which a way of packing is named that it does not know.
    except (zipfile.BadZipFile, NotImplementedError) as error:
        is_zip = beginning.startswith(b"PK")
        said = "is not whole: it was cut or changed" if is_zip else "is no backup of `nox -s db_backup`"
        raise UserError(f"{shown(path)} {said}. Nothing was changed.") from error
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read: {error.strerror}.") from error


def _read(path: Path, archive: zipfile.ZipFile, tell: Callable[[int], None]) -> Backup:
    try:
        # What was compressed may be of any length, and this is read whole.
        if archive.getinfo(_MANIFEST).file_size > _LONGEST_MANIFEST:
            raise zipfile.BadZipFile(_MANIFEST)
        text = archive.read(_MANIFEST)
        made_by = _Kind.model_validate_json(text).format
        if made_by > FORMAT:
            raise UserError(
                f"{shown(path)} was made by newer code (its format is {made_by}, and {FORMAT} is known here).\n"
                "Check out the code that made it. Nothing was changed."
            )
        backup = Backup(path, Manifest.model_validate_json(text), archive)
        read = 0
        # To its end, where the sum that zip keeps is compared.
        for chunk in backup.chunks():
            read += len(chunk)
            tell(read)
    except _CHANGED as error:
        raise zipfile.BadZipFile(str(error)) from error
    except (KeyError, ValidationError) as error:
        raise UserError(
            f"{shown(path)} is a zip, but no backup of `nox -s db_backup`. Nothing was changed."
        ) from error
    return backup


def _entry(name: str, moment: datetime) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, moment.astimezone(UTC).timetuple()[:6])
    entry.external_attr = 0o600 << 16
    return entry


def _name(partial: Path, path: Path) -> None:
    """Give the file its name, unless another has taken that meanwhile, and have both survive a loss of power."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links.
        partial.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(own: Path) -> None:
    """Remove the unfinished files of runs that were killed: nobody holds their lock any more."""
    for partial in {own, *own.parent.glob(f".*.zip{_PARTIAL}")}:
        with suppress(OSError), partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.unlink()


def _tame(word: str) -> str:
    """Make a word fit for a file's name."""
    return re.sub(r"[^\w.]", "_", word)
