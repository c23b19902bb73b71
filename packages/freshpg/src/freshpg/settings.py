"""How servers of ours are set, in containers and of binaries alike, so that it can be told what tests did on them."""

from __future__ import annotations

LOG_SETTINGS = ("log_line_prefix=%m [%p] %q[%d] ", "log_timezone=UTC", "log_checkpoints=off")
"""Lines of the log as `log.py` reads them; processes that belong to no database write no database.

Every clone makes two checkpoints, which would bury what the log's end has to tell.
"""

LEAK_SETTINGS = ("track_commit_timestamp=on",)
"""The server knows when a role was made, and so which of many tests made it."""

TEST_SETTINGS = ("max_prepared_transactions=16",)
"""Two-phase commits work, which a test of the tier `committing` may try; PostgreSQL's own default refuses them."""
