"""Bound the timestamps to what every time zone can show in the years 1 to 9999.

Raw SQL could store infinity, years before Christ and years past 9999, each of which broke every later SELECT
of its row. A table that holds such a value already stops this migration with an error that names the
column's constraint.
"""

from alembic import op

revision = "4c1d0e5b7a92"
down_revision = "87abf947398d"
branch_labels = None
depends_on = None


_TIMESTAMPS = {
    "companies": ("created_at", "updated_at"),
    "users": ("created_at", "updated_at"),
    "procore_connections": (
        "token_issued_at",
        "expires_at",
        "last_refreshed_at",
        "rate_limit_reset_at",
        "revoked_at",
        "created_at",
        "updated_at",
    ),
    "job_queue": ("run_at", "lease_expires_at", "started_at", "finished_at", "created_at"),
    "usage_logs": ("created_at",),
    "user_settings": ("created_at", "updated_at"),
}


def upgrade() -> None:
    for table, columns in _TIMESTAMPS.items():
        for column in columns:
            op.create_check_constraint(
                op.f(f"ck_{table}_{column}_range"),
                table,
                f"{column} >= '0001-01-02 00:00:00+00' AND {column} < '9999-12-31 00:00:00+00'",
            )


def downgrade() -> None:
    for table, columns in _TIMESTAMPS.items():
        for column in columns:
            op.drop_constraint(op.f(f"ck_{table}_{column}_range"), table, type_="check")
