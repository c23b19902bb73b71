"""Draft a migration from the models, on a temporary server: `nox -s db_revision -- -m "add x"`.

No settings are read, and no database of the developer's is looked for.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from alembic.script import ScriptDirectory
from alembic.util import rev_id

import freshpg
from backend import migrations
from backend.config import ROOT
from backend.database import init_db
from backend.errors import UserError
from backend.models.models import Base
from devtools.command_line import enter
from devtools.migrations.check import plain_refusals_of
from devtools.migrations.drafting import Draft, draft
from freshpg.command import tell

HOW = 'nox -s db_revision -- -m "add x to y"'
BLANK = Draft("pass", "pass")


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    message = checked_message(options.message)
    heads = migrations.heads()
    if options.merge:
        if len(heads) < 2:  # noqa: PLR2004  a merge is of two
            raise UserError(
                "Nothing was written: the migrations end in one revision, so there is nothing to merge."
            )
        report(write(BLANK, message, heads), BLANK)
        return
    migrations.head()
    drafted = BLANK if options.blank else draft_on_temporary_server()
    if drafted is None:
        raise UserError("Nothing was written: the migrations already make what the models say.")
    report(write(drafted, message, heads), drafted)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="db_revision",
        description="Write a migration that takes the schema, as the migrations make it, to what the models say. "
        "Renames are not guessed, and what is risky on a live table is said in the file: read it.",
    )
    parser.add_argument(
        "-m", "--message", help="what it does, as the file's first line and name: `add x to y`"
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--blank", action="store_true", help="write one that does nothing yet, such as to change rows"
    )
    kinds.add_argument("--merge", action="store_true", help="write one that joins two branches of migrations")
    return parser.parse_args(arguments)


def checked_message(message: str | None) -> str:
    """Return the message as a sentence without its full stop. Raises UserError if it says nothing."""
    words = " ".join((message or "").split()).rstrip(".")
    if not words:
        raise UserError(f"Nothing was written: say what the migration does, {HOW}.")
    if not re.search(r"[A-Za-z0-9]", words) or "\\" in words or '"' in words:
        raise UserError(
            "Nothing was written: the message becomes a file's name and its docstring, so it needs a letter or a "
            f'digit, and can contain neither \\ nor ": {HOW}.'
        )
    return words[0].upper() + words[1:]


def draft_on_temporary_server() -> Draft | None:
    choice = freshpg.choose("auto")
    tell(f"Database: a temporary one, brought to head. Yours is not touched. {choice.announcement}.")
    with (
        choice.start() as server,
        plain_refusals_of(freshpg.ensure_database(server.url, "drafting")) as engine,
    ):
        init_db(engine)
        with engine.connect() as connection:
            return draft(connection, Base.metadata)


def write(drafted: Draft, message: str, heads: list[str]) -> Path:
    """Write the file, formatted, and return its path. Raises UserError if a file of that name exists."""
    scripts = ScriptDirectory.from_config(migrations.alembic_config())
    before = {path.name: path.read_bytes() for path in Path(scripts.versions).glob("*.py")}
    script = scripts.generate_revision(
        rev_id(), message, head=heads or "base", upgrades=indented(drafted.upgrade),
        downgrades=indented(drafted.downgrade), imports="\n".join(drafted.imports),
    )  # fmt: skip
    if script is None:
        raise UserError("Nothing was written: Alembic made no file.")
    path = Path(script.path)
    if path.name in before:
        path.write_bytes(before[path.name])
        raise UserError(f"Nothing was written: {path.name} exists already, so choose another message.")
    migrations.forget()
    for command in (("check", "--fix", "--select", "F401,I"), ("format",)):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--quiet", str(path)], cwd=ROOT, check=True)
    return path


def indented(body: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in body.splitlines())


def report(path: Path, drafted: Draft) -> None:
    print(f"Wrote {path.relative_to(ROOT)}.")
    for sentence in drafted.missing:
        print(f"  To be completed: {sentence}.")
    if drafted.remarks:
        print(f"  Remarks for a live table in its comments: {len(drafted.remarks)}. See docs/migrations.md.")
    print("Read it, then prove it up, down and up again on rows: `nox -s tests -- -k staircase`.")


if __name__ == "__main__":
    enter(main)
