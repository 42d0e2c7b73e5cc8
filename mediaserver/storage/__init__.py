"""The database of a node: its connections, its migrations, and what all its tables have in common."""
