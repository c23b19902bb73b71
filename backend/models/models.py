"""All six tables. They are in one module because people read a schema as one piece.

Migrations create the tables; a test compares them with the models.

Every constraint is named by the convention below, and errors are recognised by that name. Defaults are in the
database, so that they also apply to rows that other clients write. `guard_models` at the end guards the timestamps.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from backend.models.types import (
    CreatedAt,
    JsonObject,
    PrimaryKey,
    TextEnum,
    UpdatedAt,
    is_object,
    length_between,
    literals,
    one_of,
)
from backend.utc import UtcDateTime, guard_models


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
        # Names and patterns of tables that belong to other software: see docs/migrations.md.
        info={"ignored_tables": ()},
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy declares its type
        datetime: UtcDateTime(),
        int: BigInteger(),
        str: Text(),
        JsonObject: JSONB(),
    }
    # Values that the database sets (defaults, updated_at) are read back by RETURNING, on updates too.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - SQLAlchemy declares its type


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


class Environment(StrEnum):
    """Procore's two environments; each has its own hosts, credentials and company ids."""

    PRODUCTION = "production"
    SANDBOX = "sandbox"


class GrantType(StrEnum):
    """How a connection gets its tokens (OAuth 2); client credentials have no refresh token."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"


class ConnectionStatus(StrEnum):
    ACTIVE = "active"
    REAUTH_REQUIRED = "reauth_required"
    REVOKED = "revoked"


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_LIVE = literals(JobStatus.QUEUED, JobStatus.RUNNING)
_TERMINAL = literals(JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Company(Base):
    """A tenant: every row of the other tables belongs to one company."""

    __tablename__ = "companies"
    __table_args__ = (
        length_between("name", 1, 200),
        CheckConstraint("name = btrim(name)", name="name_trimmed"),
    )

    id: Mapped[PrimaryKey]
    name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        # Composite foreign keys of other tables reference this, so that a row cannot name another company's user.
        UniqueConstraint("company_id", "id"),
        one_of("role", Role),
        length_between("email", 3, 320),
        CheckConstraint("email = btrim(email)", name="email_trimmed"),
        CheckConstraint("position('@' IN email) BETWEEN 2 AND char_length(email) - 1", name="email_form"),
    )

    id: Mapped[PrimaryKey]
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="RESTRICT"))
    email: Mapped[str]
    password_hash: Mapped[str | None]
    role: Mapped[Role] = mapped_column(TextEnum(Role), server_default=Role.MEMBER.value)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


# One account per email, regardless of case and company.
Index("uq_users_email_lower", func.lower(User.email), unique=True)


class ProcoreConnection(Base):
    """A company's link to a company in Procore, with its tokens and the last known state of its rate limit."""

    __tablename__ = "procore_connections"
    __table_args__ = (
        ForeignKeyConstraint(
            ["company_id", "connected_by_id"],
            ["users.company_id", "users.id"],
            ondelete="SET NULL (connected_by_id)",
        ),
        one_of("environment", Environment),
        one_of("grant_type", GrantType),
        one_of("status", ConnectionStatus),
        CheckConstraint("status <> 'active' OR access_token IS NOT NULL", name="active_has_token"),
        CheckConstraint(
            "status <> 'revoked' OR (access_token IS NULL AND refresh_token IS NULL)",
            name="revoked_has_no_token",
        ),
        CheckConstraint("procore_company_id > 0 AND procore_user_id > 0", name="procore_ids_positive"),
        CheckConstraint("rate_limit_remaining >= 0", name="rate_limit_remaining_not_negative"),
        # There may be any number of revoked connections, as history, but only one that is not revoked.
        Index(
            "uq_procore_connections_company_id_environment_live",
            "company_id",
            "environment",
            unique=True,
            postgresql_where=text("status <> 'revoked'"),
        ),
        Index(
            "uq_procore_connections_environment_procore_company_id_live",
            "environment",
            "procore_company_id",
            unique=True,
            postgresql_where=text("status <> 'revoked'"),
        ),
    )

    id: Mapped[PrimaryKey]
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="CASCADE"))
    connected_by_id: Mapped[int | None]
    environment: Mapped[Environment] = mapped_column(TextEnum(Environment))
    grant_type: Mapped[GrantType] = mapped_column(TextEnum(GrantType))
    procore_company_id: Mapped[int]
    procore_user_id: Mapped[int | None]
    # Ciphertext: nothing writes these columns yet, because there is no service that encrypts.
    access_token: Mapped[str | None]
    refresh_token: Mapped[str | None]
    token_issued_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    status: Mapped[ConnectionStatus] = mapped_column(TextEnum(ConnectionStatus))
    last_refreshed_at: Mapped[datetime | None]
    last_error_code: Mapped[str | None]
    rate_limit_remaining: Mapped[int | None] = mapped_column(Integer)
    rate_limit_reset_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class JobQueue(Base):
    """Jobs: a worker claims one under a lease, and a job is retried up to `max_attempts` times.

    There is no `updated_at`: the trigger would run at every heartbeat, and the lease shows when a job was last alive.
    """

    __tablename__ = "job_queue"
    __table_args__ = (
        ForeignKeyConstraint(
            ["company_id", "created_by_id"],
            ["users.company_id", "users.id"],
            ondelete="SET NULL (created_by_id)",
        ),
        UniqueConstraint("company_id", "idempotency_key"),
        one_of("status", JobStatus),
        length_between("job_type", 1, 100),
        length_between("dedupe_key", 1, 200),
        length_between("idempotency_key", 1, 200),
        is_object("payload"),
        CheckConstraint("attempts >= 0 AND attempts <= max_attempts", name="attempts_within_max"),
        CheckConstraint("max_attempts >= 1", name="max_attempts_positive"),
        CheckConstraint(
            "status <> 'running' OR (locked_by IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint(
            f"(status IN ({_TERMINAL})) = (finished_at IS NOT NULL)", name="terminal_has_finished_at"
        ),
        Index("ix_job_queue_ready", "priority", "run_at", "id", postgresql_where=text("status = 'queued'")),
        Index("ix_job_queue_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
        # Unique within a company, so that one tenant's key cannot block another tenant's job.
        Index(
            "uq_job_queue_company_id_dedupe_key_live",
            "company_id",
            "dedupe_key",
            unique=True,
            postgresql_where=text(f"status IN ({_LIVE})"),
        ),
        # Each row is updated several times; free space on its page lets PostgreSQL skip the indexes (HOT updates).
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: Mapped[PrimaryKey]
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="CASCADE"))
    created_by_id: Mapped[int | None]
    job_type: Mapped[str]
    status: Mapped[JobStatus] = mapped_column(TextEnum(JobStatus), server_default=JobStatus.QUEUED.value)
    # The lowest number runs first.
    priority: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    payload: Mapped[JsonObject] = mapped_column(server_default=text("'{}'::jsonb"))
    dedupe_key: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    max_attempts: Mapped[int] = mapped_column(Integer, server_default=text("5"))
    run_at: Mapped[datetime] = mapped_column(server_default=func.now())
    locked_by: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class UsageLog(Base):
    """Usage per company and user. Rows are inserted and never changed."""

    __tablename__ = "usage_logs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["company_id", "user_id"], ["users.company_id", "users.id"], ondelete="SET NULL (user_id)"
        ),
        UniqueConstraint("company_id", "idempotency_key"),
        length_between("action", 1, 100),
        length_between("idempotency_key", 1, 200),
        is_object("details"),
        CheckConstraint("quantity >= 0", name="quantity_not_negative"),
        # Rows arrive in order of time, so a BRIN index, which is tiny, finds them.
        Index("ix_usage_logs_created_at", "created_at", postgresql_using="brin"),
    )

    id: Mapped[PrimaryKey]
    company_id: Mapped[int] = mapped_column(ForeignKey("companies.id", ondelete="RESTRICT"))
    user_id: Mapped[int | None]
    action: Mapped[str]
    quantity: Mapped[int] = mapped_column(server_default=text("1"))
    details: Mapped[JsonObject] = mapped_column(server_default=text("'{}'::jsonb"))
    idempotency_key: Mapped[str | None]
    created_at: Mapped[CreatedAt]


# For reading a company's newest entries first, page by page.
Index(
    "ix_usage_logs_company_id_created_at_id",
    UsageLog.company_id,
    UsageLog.created_at.desc(),
    UsageLog.id.desc(),
)


class UserSettings(Base):
    __tablename__ = "user_settings"
    __table_args__ = (length_between("timezone", 1, 64), is_object("preferences"))

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    # An IANA key, such as Europe/Berlin, for displaying times to this user; times are stored in UTC.
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    email_notifications: Mapped[bool] = mapped_column(server_default=true())
    preferences: Mapped[JsonObject] = mapped_column(server_default=text("'{}'::jsonb"))
    version: Mapped[int] = mapped_column(server_default=text("1"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]

    # Each UPDATE compares the version that was read and increments it; if no row matches, SQLAlchemy raises
    # StaleDataError.
    __mapper_args__ = {"eager_defaults": True, "version_id_col": version}  # noqa: RUF012 - SQLAlchemy declares its type


guard_models(Base)
