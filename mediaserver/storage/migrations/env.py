"""What Alembic runs: the migrations on the connection that it is given (`mediaserver/storage/database.py`)."""

from __future__ import annotations

from alembic import context

from mediaserver.storage.base import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter most of a table in place
)
context.run_migrations()
