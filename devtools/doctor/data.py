"""The data directories of embedded servers in the checkout, beside the version that runs."""

from __future__ import annotations

import re
from shlex import quote
from typing import TYPE_CHECKING

from devtools.doctor.finding import Finding, ok, unknown, warning, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from devtools.doctor.checkout import Checkout

NAME = "database/directory"


def check(checkout: Checkout) -> list[Finding]:
    image = re.search(r"image: postgres:(\d+)", checkout.compose_text)
    major = image[1] if image else ""
    found = [
        finding
        for place in sorted((checkout.root / ".dev").glob("postgres-*"))
        for finding in _directory(checkout, place, major)
    ]
    return found or [
        ok(NAME, "There is no .dev/postgres-* yet; `nox -s dev` makes one where Compose's is not up.")
    ]


def _directory(checkout: Checkout, place: Path, major: str) -> Iterator[Finding]:
    shown = checkout.shown(place)
    try:
        held = (place / "data" / "PG_VERSION").read_text(encoding="ascii").strip()
    except PermissionError:
        yield unknown(
            NAME, f"{shown} belongs to another user.", "Look as its owner, or remove it as its owner."
        )
        return
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        yield warning(
            NAME,
            f"{shown} holds no whole database.",
            f"Remove it (`rm -r {quote(shown)}`), and it is made anew.",
        )
        return
    except OSError as error:
        # A disk that fails now may be read tomorrow: nothing is to be removed for that.
        yield unknown(NAME, f"{shown} cannot be read: {(error.strerror or type(error).__name__).lower()}.")
        return
    if place.name != f"postgres-{major}":
        yield warning(
            NAME,
            f"{shown} is used by no command: they use postgres-{major}.",
            "`nox -s db_upgrade` brings an older version's data along, and drops them with `-- --drop-old`; of any "
            "other keep what you need, and remove it.",
        )
    elif held != major:
        yield wrong(
            NAME,
            f"{shown} holds data of PostgreSQL {held}, and what runs is {major}.",
            f"Dump them by PostgreSQL {held}'s programs, or remove them to begin anew: `rm -r {shown}`.",
        )
    else:
        yield ok(NAME, f"{shown} holds data of PostgreSQL {held}.")
