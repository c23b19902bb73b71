"""PostgreSQL servers that come and go: for tests, and for development without Docker."""

from .binaries import Binaries, find_binaries
from .choose import Choice, choose
from .databases import ensure_database
from .embedded import start_ephemeral
from .persistent import running, start_persistent
from .run import run
from .server import PostgresUnavailable, Server, database_url, sqlalchemy_url

__all__ = [
    "Binaries",
    "Choice",
    "PostgresUnavailable",
    "Server",
    "choose",
    "database_url",
    "ensure_database",
    "find_binaries",
    "run",
    "running",
    "sqlalchemy_url",
    "start_ephemeral",
    "start_persistent",
]
