"""Draft a migration from the models, on a temporary server: `nox -s db_revision -- -m "add x"`.

It reads no settings, and does not use the developer's database.
"""

import argparse
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from alembic.util import rev_id

from backend import migrations
from backend.config import ROOT
from backend.errors import UserError
from backend.models.models import Base
from devtools.command_line import enter
from devtools.migrations.check import migrated_engine
from devtools.migrations.drafting import Draft, draft


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    message = checked_message(options.message)
    heads = migrations.scripts().get_heads()
    drafted: Draft | None = Draft()
    if options.merge and len(heads) < 2:  # noqa: PLR2004  a merge is of two
        raise UserError("Nothing was written: there is only one head, so there is nothing to merge.")
    if not options.merge:
        migrations.head()
    if not (options.merge or options.blank):
        with migrated_engine("Using a temporary database") as engine, engine.connect() as connection:
            drafted = draft(connection, Base.metadata)
    if drafted is None:
        raise UserError("Nothing was written: the migrations already match the models.")
    report(write(drafted, message, heads), drafted)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="nox -s db_revision --",
        description="Write a migration from the schema of the existing migrations to that of the models. Renames are "
        "not guessed, and comments in the file list the risks on a live table: read them.",
    )
    parser.add_argument(
        "-m", "--message", help="what it does; becomes the file's first line and its name: `add x to y`"
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--blank", action="store_true", help="write an empty migration, for example to change rows"
    )
    kinds.add_argument("--merge", action="store_true", help="write a migration that joins two branches")
    return parser.parse_args(arguments)


def checked_message(message: str | None) -> str:
    """Return the message as a sentence without its full stop. Raises UserError if it cannot name the file."""
    words = " ".join((message or "").split()).rstrip(".")
    if not re.search(r"[A-Za-z0-9]", words) or "\\" in words or '"' in words:
        raise UserError(
            'Nothing was written: say what the migration does, with a letter or a digit and without \\ and ", because '
            'it becomes the file\'s name and docstring: `nox -s db_revision -- -m "add x to y"`.'
        )
    return words[0].upper() + words[1:]


def write(drafted: Draft, message: str, heads: list[str]) -> Path:
    """Write the file, formatted, and return its path. Raises UserError if a file of that name exists."""
    scripts = migrations.scripts()
    before = {path.name: path.read_bytes() for path in Path(scripts.versions).glob("*.py")}
    script = scripts.generate_revision(
        rev_id(), message, head=heads or "base", upgrades=textwrap.indent(drafted.upgrade, "    "),
        downgrades=textwrap.indent(drafted.downgrade, "    "),
        imports="from sqlalchemy.dialects import postgresql",
    )  # fmt: skip
    if script is None:
        raise UserError("Nothing was written: Alembic made no file.")
    path = Path(script.path)
    if path.name in before:
        path.write_bytes(before[path.name])
        raise UserError(f"Nothing was written: {path.name} already exists, so choose another message.")
    migrations.scripts.cache_clear()
    for command in (("check", "--fix", "--select", "F401,I"), ("format",)):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(path)], cwd=ROOT, check=True)
    return path


def report(path: Path, drafted: Draft) -> None:
    print(f"Wrote {os.path.relpath(path)}.")
    for sentence in drafted.missing:
        print(f"  To be completed: {sentence}.")
    if drafted.remarks:
        print(f"  Remarks for a live table in its comments: {len(drafted.remarks)}. See docs/migrations.md.")
    print("Read it, then run it up, down and up again on rows: `nox -s tests -- -k staircase`.")


if __name__ == "__main__":
    enter(main)
