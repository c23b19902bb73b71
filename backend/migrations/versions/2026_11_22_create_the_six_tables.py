"""Create the six tables, and the trigger that keeps their timestamps.

The text of the function is copied here and not imported: a migration must not change when the code does.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "87abf947398d"
down_revision = None
branch_labels = None
depends_on = None


_KEEP_TIMESTAMPS = """\
CREATE OR REPLACE FUNCTION keep_timestamps() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.created_at IS DISTINCT FROM OLD.created_at THEN
        RAISE EXCEPTION 'created_at of table "%" cannot be changed', TG_TABLE_NAME
            USING ERRCODE = 'check_violation',
                  SCHEMA = TG_TABLE_SCHEMA,
                  TABLE = TG_TABLE_NAME,
                  COLUMN = 'created_at',
                  CONSTRAINT = format('ck_%s_created_at_unchanged', TG_TABLE_NAME);
    END IF;
    NEW.updated_at := OLD.updated_at;
    IF NEW *<> OLD THEN
        NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    END IF;
    RETURN NEW;
END
$$
"""

_KEPT = ("companies", "users", "procore_connections", "user_settings")


def upgrade() -> None:
    _create_companies()
    _create_users()
    _create_procore_connections()
    _create_job_queue()
    _create_usage_logs()
    _create_user_settings()
    op.execute(_KEEP_TIMESTAMPS)
    for table in _KEPT:
        op.execute(
            f"CREATE TRIGGER keep_timestamps BEFORE UPDATE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION keep_timestamps()"
        )


def downgrade() -> None:
    for table in ("user_settings", "usage_logs", "job_queue", "procore_connections", "users", "companies"):
        op.drop_table(table)
    op.execute("DROP FUNCTION keep_timestamps()")


def _create_companies() -> None:
    op.create_table(
        "companies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("char_length(name) BETWEEN 1 AND 200", name=op.f("ck_companies_name_length")),
        sa.CheckConstraint("name = btrim(name)", name=op.f("ck_companies_name_trimmed")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_companies")),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("company_id", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), server_default="member", nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "position('@' IN email) BETWEEN 2 AND char_length(email) - 1", name=op.f("ck_users_email_form")
        ),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member')", name=op.f("ck_users_role")),
        sa.CheckConstraint("char_length(email) BETWEEN 3 AND 320", name=op.f("ck_users_email_length")),
        sa.CheckConstraint("email = btrim(email)", name=op.f("ck_users_email_trimmed")),
        sa.ForeignKeyConstraint(
            ["company_id"], ["companies.id"], name=op.f("fk_users_company_id_companies"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("company_id", "id", name=op.f("uq_users_company_id_id")),
    )
    op.create_index("uq_users_email_lower", "users", [sa.literal_column("lower(email)")], unique=True)


def _create_procore_connections() -> None:
    op.create_table(
        "procore_connections",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("company_id", sa.BigInteger(), nullable=False),
        sa.Column("connected_by_id", sa.BigInteger(), nullable=True),
        sa.Column("environment", sa.Text(), nullable=False),
        sa.Column("grant_type", sa.Text(), nullable=False),
        sa.Column("procore_company_id", sa.BigInteger(), nullable=False),
        sa.Column("procore_user_id", sa.BigInteger(), nullable=True),
        sa.Column("access_token", sa.Text(), nullable=True),
        sa.Column("refresh_token", sa.Text(), nullable=True),
        sa.Column("token_issued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("last_refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error_code", sa.Text(), nullable=True),
        sa.Column("rate_limit_remaining", sa.Integer(), nullable=True),
        sa.Column("rate_limit_reset_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "environment IN ('production', 'sandbox')", name=op.f("ck_procore_connections_environment")
        ),
        sa.CheckConstraint(
            "grant_type IN ('authorization_code', 'client_credentials')",
            name=op.f("ck_procore_connections_grant_type"),
        ),
        sa.CheckConstraint(
            "status <> 'active' OR access_token IS NOT NULL",
            name=op.f("ck_procore_connections_active_has_token"),
        ),
        sa.CheckConstraint(
            "status <> 'revoked' OR (access_token IS NULL AND refresh_token IS NULL)",
            name=op.f("ck_procore_connections_revoked_has_no_token"),
        ),
        sa.CheckConstraint(
            "status IN ('active', 'reauth_required', 'revoked')", name=op.f("ck_procore_connections_status")
        ),
        sa.CheckConstraint(
            "procore_company_id > 0 AND procore_user_id > 0",
            name=op.f("ck_procore_connections_procore_ids_positive"),
        ),
        sa.CheckConstraint(
            "rate_limit_remaining >= 0", name=op.f("ck_procore_connections_rate_limit_remaining_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["company_id", "connected_by_id"],
            ["users.company_id", "users.id"],
            name=op.f("fk_procore_connections_company_id_connected_by_id_users"),
            ondelete="SET NULL (connected_by_id)",
        ),
        sa.ForeignKeyConstraint(
            ["company_id"],
            ["companies.id"],
            name=op.f("fk_procore_connections_company_id_companies"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_procore_connections")),
    )
    op.create_index(
        "uq_procore_connections_company_id_environment_live",
        "procore_connections",
        ["company_id", "environment"],
        unique=True,
        postgresql_where=sa.text("status <> 'revoked'"),
    )
    op.create_index(
        "uq_procore_connections_environment_procore_company_id_live",
        "procore_connections",
        ["environment", "procore_company_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'revoked'"),
    )


def _create_job_queue() -> None:
    op.create_table(
        "job_queue",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("company_id", sa.BigInteger(), nullable=False),
        sa.Column("created_by_id", sa.BigInteger(), nullable=True),
        sa.Column("job_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="queued", nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "payload",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("dedupe_key", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default=sa.text("5"), nullable=False),
        sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("locked_by", sa.Text(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name=op.f("ck_job_queue_terminal_has_finished_at"),
        ),
        sa.CheckConstraint("jsonb_typeof(payload) = 'object'", name=op.f("ck_job_queue_payload_is_object")),
        sa.CheckConstraint(
            "status <> 'running' OR (locked_by IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("ck_job_queue_running_has_lease"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_job_queue_status"),
        ),
        sa.CheckConstraint(
            "attempts >= 0 AND attempts <= max_attempts", name=op.f("ck_job_queue_attempts_within_max")
        ),
        sa.CheckConstraint(
            "char_length(dedupe_key) BETWEEN 1 AND 200", name=op.f("ck_job_queue_dedupe_key_length")
        ),
        sa.CheckConstraint(
            "char_length(idempotency_key) BETWEEN 1 AND 200", name=op.f("ck_job_queue_idempotency_key_length")
        ),
        sa.CheckConstraint(
            "char_length(job_type) BETWEEN 1 AND 100", name=op.f("ck_job_queue_job_type_length")
        ),
        sa.CheckConstraint("max_attempts >= 1", name=op.f("ck_job_queue_max_attempts_positive")),
        sa.ForeignKeyConstraint(
            ["company_id", "created_by_id"],
            ["users.company_id", "users.id"],
            name=op.f("fk_job_queue_company_id_created_by_id_users"),
            ondelete="SET NULL (created_by_id)",
        ),
        sa.ForeignKeyConstraint(
            ["company_id"],
            ["companies.id"],
            name=op.f("fk_job_queue_company_id_companies"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_queue")),
        sa.UniqueConstraint(
            "company_id", "idempotency_key", name=op.f("uq_job_queue_company_id_idempotency_key")
        ),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_job_queue_leases",
        "job_queue",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_job_queue_ready",
        "job_queue",
        ["priority", "run_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "uq_job_queue_company_id_dedupe_key_live",
        "job_queue",
        ["company_id", "dedupe_key"],
        unique=True,
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )


def _create_usage_logs() -> None:
    op.create_table(
        "usage_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("company_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "details",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("jsonb_typeof(details) = 'object'", name=op.f("ck_usage_logs_details_is_object")),
        sa.CheckConstraint("char_length(action) BETWEEN 1 AND 100", name=op.f("ck_usage_logs_action_length")),
        sa.CheckConstraint(
            "char_length(idempotency_key) BETWEEN 1 AND 200",
            name=op.f("ck_usage_logs_idempotency_key_length"),
        ),
        sa.CheckConstraint("quantity >= 0", name=op.f("ck_usage_logs_quantity_not_negative")),
        sa.ForeignKeyConstraint(
            ["company_id", "user_id"],
            ["users.company_id", "users.id"],
            name=op.f("fk_usage_logs_company_id_user_id_users"),
            ondelete="SET NULL (user_id)",
        ),
        sa.ForeignKeyConstraint(
            ["company_id"],
            ["companies.id"],
            name=op.f("fk_usage_logs_company_id_companies"),
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_logs")),
        sa.UniqueConstraint(
            "company_id", "idempotency_key", name=op.f("uq_usage_logs_company_id_idempotency_key")
        ),
    )
    op.create_index(
        "ix_usage_logs_company_id_created_at_id",
        "usage_logs",
        ["company_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "ix_usage_logs_created_at", "usage_logs", ["created_at"], unique=False, postgresql_using="brin"
    )


def _create_user_settings() -> None:
    op.create_table(
        "user_settings",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timezone", sa.Text(), server_default="UTC", nullable=False),
        sa.Column("email_notifications", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "preferences",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "jsonb_typeof(preferences) = 'object'", name=op.f("ck_user_settings_preferences_is_object")
        ),
        sa.CheckConstraint(
            "char_length(timezone) BETWEEN 1 AND 64", name=op.f("ck_user_settings_timezone_length")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_user_settings_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_user_settings")),
    )
