"""What differs between two catalogs, in words that a person acts on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from operator import attrgetter
from typing import Literal

from sqlalchemy import Connection, MetaData

from backend.migrations import catalog
from backend.migrations.catalog import Catalog, Facts, Thing
from backend.models.models import Base

# The parts of one that is missing or extra are not reported one by one.
_WHOLES = ("table", "foreign table", "view", "materialized view")


@dataclass(frozen=True)
class Difference:
    """A thing that one side lacks, or that is not the same on both."""

    thing: Thing
    what: Literal["missing", "extra", "changed"]
    expected: Facts
    """What its facts should be; empty if it should not exist."""
    actual: Facts
    """What its facts are; empty if it does not exist."""

    @property
    def title(self) -> str:
        return f"{self.thing.kind} `{self.thing.name}`"

    @property
    def is_whole(self) -> bool:
        """Whether it is a table, or belongs to none."""
        return self.thing.table in ("", self.thing.name)

    def tell(self, side: str, should: str = "the models") -> str:
        """Say it in a sentence without its full stop; `side` is what is compared with what `should` say."""
        if self.what == "missing":
            return f"{self.title} is in {should} and not in {side}"
        if self.what == "extra":
            return f"{self.title} is in {side} and not in {should}"
        parts = [
            f"{name} {_shown(self.actual.get(name))} in {side}, {_shown(self.expected.get(name))} in {should}"
            for name in self.changed
        ]
        return f"{self.title} differs ({'; '.join(parts)})"

    @property
    def changed(self) -> list[str]:
        """The names of the facts that differ."""
        names = sorted(self.expected.keys() | self.actual.keys())
        return [name for name in names if self.expected.get(name) != self.actual.get(name)]


def differences(connection: Connection, metadata: MetaData | None = None) -> list[Difference]:
    """Compare the schema of this connection with the models; the connection's transaction is left as it was.

    Not compared are partitions that no model states, and what `metadata.info["ignored_tables"]` lists. Raises what
    `catalog.expected` raises.
    """
    metadata = Base.metadata if metadata is None else metadata
    return without_ignored(
        compare(catalog.expected(connection, metadata), catalog.read(connection)), metadata
    )


def without_ignored(found: Sequence[Difference], metadata: MetaData) -> list[Difference]:
    """Leave out what is in the database alone and is a partition, or matches what the models list as ignored."""
    patterns: Sequence[str] = metadata.info.get("ignored_tables", ())

    def is_ignored(each: Difference) -> bool:
        name = (each.thing.table or each.thing.name).replace('"', "")
        return "partition of" in each.actual or any(fnmatchcase(name, glob) for glob in patterns)

    return [each for each in found if each.what != "extra" or not is_ignored(each)]


def compare(expected: Catalog, actual: Catalog) -> list[Difference]:
    """List what has to change in `actual` for it to be as `expected`, table by table."""
    found = []
    for thing in sorted(expected.keys() | actual.keys(), key=_order):
        wanted, there = expected.get(thing), actual.get(thing)
        owner = (wanted or there or {}).get("owned by", "").rpartition(".")[0] or thing.table
        if wanted == there or not (_has_table(thing, owner, expected) and _has_table(thing, owner, actual)):
            continue
        what: Literal["missing", "extra", "changed"] = (
            "missing" if there is None else "extra" if wanted is None else "changed"
        )
        found.append(Difference(thing, what, wanted or {}, there or {}))
    return found


def by_table(found: Sequence[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    """Group differences by their table; what belongs to none comes last, under the empty string."""
    ordered = sorted(found, key=lambda difference: _order(difference.thing))
    for table, group in groupby(ordered, key=attrgetter("thing.table")):
        yield table, list(group)


def _has_table(thing: Thing, table: str, there: Catalog) -> bool:
    if thing.kind in _WHOLES or not table:
        return True
    return any(Thing(owner, kind, table) in there for kind in _WHOLES for owner in (table, ""))


def _order(thing: Thing) -> tuple[bool, str, bool, str, str]:
    return not thing.table, thing.table, thing.kind not in _WHOLES, thing.kind, thing.name


def _shown(value: str | None) -> str:
    return "none" if value is None else f"`{' '.join(value.split())}`"
