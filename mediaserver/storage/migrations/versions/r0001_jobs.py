"""Jobs, their results, webhooks still to arrive, and uploads in pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("batch_id", sa.String(64)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("stage", sa.String(16)),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("lease_until", sa.Double),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("announced_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
        sa.Column("expires_at", sa.Double),
        sa.Column("keep_s", sa.Double, nullable=False),
        sa.Column("url", sa.Text),
        sa.Column("file_name", sa.Text),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("client_metadata", sa.JSON, nullable=False),
        sa.Column("webhook_url", sa.Text),
        sa.Column("webhook_secret", sa.Text),
        sa.Column("error", sa.JSON),
        sa.Column("summary", sa.JSON),
        sa.PrimaryKeyConstraint("number", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_next", "jobs", ["state", "priority", "number"])
    op.create_index("ix_jobs_expires_at", "jobs", ["expires_at"])
    op.create_index("ix_jobs_batch_id", "jobs", ["batch_id"])
    op.create_table(
        "results",
        sa.Column("job_number", _NUMBER, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("job_number", name="pk_results"),
        sa.ForeignKeyConstraint(["job_number"], ["jobs.number"], name="fk_results_job_number_jobs", ondelete="CASCADE"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("job_number", _NUMBER, nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("taken_until", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.ForeignKeyConstraint(
            ["job_number"], ["jobs.number"], name="fk_deliveries_job_number_jobs", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_deliveries_taken_until", "deliveries", ["taken_until"])
    op.create_index("ix_deliveries_job_number", "deliveries", ["job_number"])
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("file_name", sa.Text),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])


def downgrade() -> None:
    """To nothing."""
    for table in ("uploads", "deliveries", "results", "jobs"):
        op.drop_table(table)
