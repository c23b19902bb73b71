"""What upgrades in different places share: what is known about a place, and how a server is dumped and restored."""

from collections.abc import Callable
from dataclasses import dataclass

MARK = "upgraded-from"
"""The file that an upgrade leaves in the new data."""

# Both scripts use the server that libpq's variables name; $1 is the directory of the dumps. Those are named by OID, for
# a database's name may hold anything.
DUMP = """
set -eu
cd "$1"
pg_dumpall --globals-only --file=roles.sql
databases="datname NOT IN ('template0', 'template1')"
for oid in $(psql -XAt -d template1 -c "SELECT oid FROM pg_database WHERE $databases ORDER BY datname"); do
    name=$(psql -XAt -d template1 -c "SELECT datname FROM pg_database WHERE oid = $oid")
    PGDATABASE=$name pg_dump --format=custom --file="$oid.dump"
done
"""
# The new server has its superuser already, and the password that it is configured with. A database may have made
# transactions read-only, which must not stop what is restored.
RESTORE = """
set -eu
cd "$1"
mine="CREATE ROLE $(psql -XAt -d template1 -c 'SELECT quote_ident(current_user)');"
grep -vxF "$mine" roles.sql > new-roles.sql
cat >> new-roles.sql <<'END'
\\getenv password PGPASSWORD
ALTER ROLE CURRENT_USER PASSWORD :'password';
END
psql -Xq -d template1 -v ON_ERROR_STOP=1 -f new-roles.sql
export PGOPTIONS='-c default_transaction_read_only=off'
for dump in *.dump; do
    pg_restore --exit-on-error --clean --if-exists --create -d template1 "$dump"
done
"""


@dataclass(frozen=True)
class Place:
    """A place with data of one or more versions."""

    name: str
    major: int
    """The version that is used now."""
    old: list[int]
    """The older versions of which there are data."""
    has_new: bool
    is_upgraded: bool
    """Whether the new data were made from old ones."""
    move_away: str
    """The command that moves the new data away."""
    make: Callable[[int], None]
    """Makes the new data from those of this version."""
    drop: Callable[[int], None]
    """Drops the data of this version."""
