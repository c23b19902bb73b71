"""What `python -m ... cache` tells."""

# ruff: noqa: T201 (it speaks to a person)

from __future__ import annotations

import time
from typing import Any

from . import cache
from .engine import connect_to_engine
from .server import PostgresUnavailable


def show_cache(*, clear: bool) -> None:
    """Print what is cached, a line each with its size and age, and remove it if asked to."""
    found = cache.entries()
    print(f"{cache.folder() or 'No folder, for this user has no home'}: {len(found)} data directories")
    for entry in found:
        _line(entry.path.name, entry.size, f"last used {_ago(entry.used)}")
    if clear:
        cache.clear()
    try:
        _show_images(clear=clear)
    except PostgresUnavailable as error:
        print(f"No images: {error}")
    if clear:
        print("All removed that nobody uses.")


def _show_images(*, clear: bool) -> None:
    client = connect_to_engine()
    try:
        from . import container_seed  # noqa: PLC0415  docker takes 150 ms

        found = container_seed.seeds(client)
        print(f"{container_seed.REPOSITORY} in Docker: {len(found)} images")
        for record in found:
            base = record["Labels"].get(container_seed.BASE_LABEL)
            _line(f"{_name(record)} of {base}", record["Size"], f"made {_ago(record['Created'])}")
            if clear:
                container_seed.remove(client, record["Id"])
    finally:
        client.close()


def _name(record: dict[str, Any]) -> str:
    return str((record.get("RepoTags") or ["(replaced by a newer one)"])[0])


def _line(name: str, size: int, age: str) -> None:
    print(f"  {name}  {size / 1e6:.0f} MB, {age}")


def _ago(instant: float) -> str:
    hours = max(0.0, time.time() - instant) / 3600
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} days ago"  # noqa: PLR2004 (two days)
