"""PostgreSQL servers that start on demand, and a pytest plugin that gives every test a fresh database."""

from .binaries import Binaries, find_binaries, find_binaries_of, find_clients
from .databases import ensure_database
from .embedded import start_ephemeral
from .libpq import database_url, sqlalchemy_url, without_libpq_variables
from .persistent import running, start_persistent
from .server import PostgresUnavailable, Server
from .server_selection import Choice, choose

__all__ = [
    "Binaries",
    "Choice",
    "PostgresUnavailable",
    "Server",
    "choose",
    "database_url",
    "ensure_database",
    "find_binaries",
    "find_binaries_of",
    "find_clients",
    "running",
    "sqlalchemy_url",
    "start_ephemeral",
    "start_persistent",
    "without_libpq_variables",
]
