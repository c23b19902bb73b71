"""The differences between two catalogs, as sentences for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from sqlalchemy import Connection, MetaData

from backend.migrations import catalog
from backend.migrations.catalog import Catalog, Facts, Thing
from backend.models.models import Base

# If one of these is missing or extra, its parts are not reported one by one.
_WHOLES = ("table", "foreign table", "view", "materialized view")


@dataclass(frozen=True)
class Difference:
    """A thing that only one side has, or that differs between them."""

    thing: Thing
    what: Literal["missing", "extra", "changed"]
    expected: Facts
    """The facts that it should have; empty if it should not exist."""
    actual: Facts
    """The facts that it has; empty if it does not exist."""

    @property
    def title(self) -> str:
        return f"{self.thing.kind} `{self.thing.name}`"

    @property
    def place(self) -> str:
        """The title, and the table that it belongs to."""
        return self.title if self.is_whole else f"{self.title} of {self.thing.table}"

    @property
    def is_whole(self) -> bool:
        """Whether it is a table, or belongs to no table."""
        return self.thing.table in ("", self.thing.name)

    def describe(self, side: str) -> str:
        """Return it as a sentence without a full stop; `side` names the schema that is compared with the models."""
        if self.what == "missing":
            return f"{self.title} is in the models and not in {side}"
        if self.what == "extra":
            return f"{self.title} is in {side} and not in the models"
        parts = [
            f"{name} {_shown(self.actual.get(name))} in {side}, {_shown(self.expected.get(name))} in the models"
            for name in self.changed
        ]
        return f"{self.title} differs ({'; '.join(parts)})"

    @property
    def changed(self) -> list[str]:
        """The names of the facts that differ."""
        names = sorted(self.expected.keys() | self.actual.keys())
        return [name for name in names if self.expected.get(name) != self.actual.get(name)]


def differences(connection: Connection, metadata: MetaData | None = None) -> list[Difference]:
    """Compare the schema of this connection with the models, without changing the connection's transaction.

    It ignores partitions that no model defines, and the tables in `metadata.info["ignored_tables"]`. It raises the
    errors of `catalog.expected`.
    """
    metadata = Base.metadata if metadata is None else metadata
    return without_ignored(
        compare(catalog.expected(connection, metadata), catalog.read(connection)), metadata
    )


def without_ignored(found: Sequence[Difference], metadata: MetaData) -> list[Difference]:
    """Leave out extra partitions, and extra tables that match a pattern in the models' `ignored_tables`."""
    patterns: Sequence[str] = metadata.info.get("ignored_tables", ())

    def is_ignored(each: Difference) -> bool:
        owner = each.actual.get("owned by", "").rpartition(".")[0]  # of a serial column's sequence
        name = (owner or each.thing.table or each.thing.name).replace('"', "")
        return "partition of" in each.actual or any(fnmatchcase(name, glob) for glob in patterns)

    return [each for each in found if each.what != "extra" or not is_ignored(each)]


def compare(expected: Catalog, actual: Catalog) -> list[Difference]:
    """List what has to change in `actual` to match `expected`, table by table."""
    found = []
    for thing in sorted(expected.keys() | actual.keys(), key=_order):
        wanted, there = expected.get(thing), actual.get(thing)
        if wanted == there or not (_has_table(thing, expected) and _has_table(thing, actual)):
            continue
        what: Literal["missing", "extra", "changed"] = (
            "missing" if there is None else "extra" if wanted is None else "changed"
        )
        found.append(Difference(thing, what, wanted or {}, there or {}))
    return found


def _has_table(thing: Thing, there: Catalog) -> bool:
    if thing.kind in _WHOLES or not thing.table:
        return True
    return any(Thing(owner, kind, thing.table) in there for kind in _WHOLES for owner in (thing.table, ""))


def _order(thing: Thing) -> tuple[bool, str, bool, str, str]:
    return not thing.table, thing.table, thing.kind not in _WHOLES, thing.kind, thing.name


def _shown(value: str | None) -> str:
    return "none" if value is None else f"`{' '.join(value.split())}`"
