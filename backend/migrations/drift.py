"""What differs between two catalogs, in words that a person acts on and in statements that put it right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from sqlalchemy import Connection, MetaData

from backend.migrations import catalog
from backend.migrations.catalog import Catalog, Facts, Thing
from backend.models.models import Base

# What a table or view cannot be without: told for it, and not once more for each of its parts.
_WHOLES = ("table", "foreign table", "view", "materialized view")


@dataclass(frozen=True)
class Difference:
    """A thing that is as it should be on one side alone, or otherwise on each."""

    thing: Thing
    what: Literal["missing", "extra", "changed"]
    expected: Facts
    """What should be said of it; nothing where it should not be."""
    actual: Facts
    """What is said of it; nothing where it is not there."""

    @property
    def title(self) -> str:
        return f"{self.thing.kind} `{self.thing.name}`"

    @property
    def is_whole(self) -> bool:
        """Whether it is a table, or what belongs to none."""
        return self.thing.table in ("", self.thing.name)

    def tell(self, side: str, should: str = "the models") -> str:
        """Say it in a sentence without its full stop; `side` is what is compared with what `should` say."""
        if self.what == "missing":
            return f"{self.title} is in {should} and not in {side}"
        if self.what == "extra":
            return f"{self.title} is in {side} and in no model"
        parts = [
            f"{name} {_shown(self.actual.get(name))} in {side}, {_shown(self.expected.get(name))} in {should}"
            for name in sorted(self.expected.keys() | self.actual.keys())
            if self.expected.get(name) != self.actual.get(name)
        ]
        return f"{self.title} differs ({'; '.join(parts)})"


def differences(connection: Connection, metadata: MetaData | None = None) -> list[Difference]:
    """Compare the schema of this connection with the models; the connection's transaction is left as it was.

    A schema beside it that this role may drop is in no model either. DBAPIError where the role may not make the schema
    in which the models are made for the comparison (and which is never committed).
    """
    metadata = Base.metadata if metadata is None else metadata
    actual = catalog.read(connection)
    known = {table.schema for table in metadata.tables.values()}
    others = [name for name in catalog.other_schemas(connection) if name not in known]
    return [
        *compare(catalog.expected(connection, metadata), actual),
        *(Difference(Thing("", "schema", name), "extra", {}, {}) for name in others),
    ]


def compare(expected: Catalog, actual: Catalog) -> list[Difference]:
    """Tell what has to change in `actual` for it to be as `expected`, table by table."""
    found = []
    for thing in sorted(expected.keys() | actual.keys(), key=_order):
        wanted, there = expected.get(thing), actual.get(thing)
        if wanted == there or not (_has_its_table(thing, expected) and _has_its_table(thing, actual)):
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


def _has_its_table(thing: Thing, there: Catalog) -> bool:
    if thing.kind in _WHOLES or not thing.table:
        return True
    return any(Thing(owner, kind, thing.table) in there for kind in _WHOLES for owner in (thing.table, ""))


def _order(thing: Thing) -> tuple[bool, str, bool, str, str]:
    return not thing.table, thing.table, thing.kind not in _WHOLES, thing.kind, thing.name


def _shown(value: str | None) -> str:
    return "none" if value is None else f"`{' '.join(value.split())}`"
