"""Tenants with what is kept of them, erasures, totals of days, what was used by feature, and plans of keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """From keys that only know themselves."""
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("transcript_keep_s", sa.Double),
        sa.Column("upload_keep_s", sa.Double),
        sa.Column("usage_keep_days", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenants"),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("keeps_totals", sa.Boolean, nullable=False),
        sa.Column("requested_at", sa.Double, nullable=False),
        sa.Column("requested_by", sa.String(80), nullable=False),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("deleted", sa.JSON, nullable=False),
        sa.Column("certificate", sa.JSON),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_requested_at", "erasures", ["requested_at"])
    op.create_index("ix_erasures_tenant", "erasures", ["tenant"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("door", sa.String(32), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("features", sa.String(200), nullable=False),
        sa.Column("sessions", sa.Integer, nullable=False),
        sa.Column("audio_s", sa.Double, nullable=False),
        sa.Column("speech_s", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("day", "tenant", "key_id", "door", "model", "features", name="pk_usage_days"),
    )
    op.create_index("ix_usage_days_tenant_day", "usage_days", ["tenant", "day"])
    op.create_index("ix_usage_days_key_id_day", "usage_days", ["key_id", "day"])
    op.add_column("usage", sa.Column("features", sa.String(200), nullable=False, server_default="streaming"))
    op.execute("UPDATE usage SET features = 'recording' WHERE id LIKE 'rec%' OR id LIKE 'job%'")
    op.create_index("ix_usage_day", "usage", ["day"])
    op.add_column("api_keys", sa.Column("plan", sa.String(64)))
    op.create_index("ix_jobs_state_number", "jobs", ["state", "number"])
    op.create_index("ix_jobs_tenant_state_number", "jobs", ["tenant", "state", "number"])


def downgrade() -> None:
    """To keys that only know themselves; totals of days whose sessions are forgotten are lost."""
    op.drop_index("ix_jobs_tenant_state_number", "jobs")
    op.drop_index("ix_jobs_state_number", "jobs")
    op.drop_column("api_keys", "plan")
    op.drop_index("ix_usage_day", "usage")
    op.drop_column("usage", "features")
    for table in ("usage_days", "erasures", "tenants"):
        op.drop_table(table)
