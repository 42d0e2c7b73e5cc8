"""Clients that come back: to the session that waits for them here, or to one that another process had."""
