"""Keys, join tokens that were used, and whose each recording is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """From recordings of one user."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("networks", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_table(
        "spent_tokens",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spent_tokens"),
    )
    op.create_index("ix_spent_tokens_expires_at", "spent_tokens", ["expires_at"])
    for table in ("jobs", "uploads"):
        op.add_column(table, sa.Column("tenant", sa.String(64), nullable=False, server_default="local"))
    op.create_index("ix_jobs_tenant_number", "jobs", ["tenant", "number"])


def downgrade() -> None:
    """To recordings that are anybody's."""
    op.drop_index("ix_jobs_tenant_number", "jobs")
    for table in ("uploads", "jobs"):
        op.drop_column(table, "tenant")
    op.drop_table("spent_tokens")
    op.drop_table("api_keys")
