"""Alembic's migrations of the recordings' database, run when it is opened."""
