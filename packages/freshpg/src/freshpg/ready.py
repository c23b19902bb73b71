"""Whether a server that was just started takes connections."""

from __future__ import annotations

import psycopg

from .server import PostgresUnavailable, server_version


def no_connection(seconds: float, refusal: str | None) -> str:
    """Say that a server took no connection in time, and why it did not take the last one."""
    return f"it took no connection within {seconds:.0f} s" + (f" ({refusal})" if refusal else "")


class NotReady(Exception):  # noqa: N818 (it says what is so)
    """A server takes no connection yet; the message is libpq's."""


def version_if_ready(url: str) -> str:
    """Try to connect, once; return the server's version. Raises NotReady.

    Raises PostgresUnavailable where the server is up and refuses for a reason that waiting does not change.
    """
    try:
        return server_version(url, timeout=2)
    except psycopg.OperationalError as error:
        text = str(error)
        # Somebody else's server may have taken the port just before ours, and knows another password.
        passing = ("starting up", "shutting down", "not yet accepting", "password authentication failed")
        if "FATAL" in text and not any(words in text for words in passing):
            raise PostgresUnavailable(
                f"The new server refuses the connection: {text.splitlines()[0]}"
            ) from None
        raise NotReady(
            text.strip().splitlines()[-1].strip() if text.strip() else type(error).__name__
        ) from None
