"""Keys and tokens of one node over one database."""

from __future__ import annotations

from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.auth.keys import Keys
from signaling.auth.plans import Plans
from signaling.auth.tokens import Tokens
from signaling.cluster.memory import MemoryState
from signaling.cluster.state import State


class Accounts:
    """What tells who somebody is. The database is opened where it is there; nothing is written until a key is made.

    Args:
        settings: of the node.
        state: what processes share, which the caller closes; a memory of this process if None.

    Raises:
        ConfigError: DATABASE_URL_INVALID, DATABASE_DRIVER_MISSING or INVALID_PLAN.
    """

    def __init__(self, settings: Settings, *, state: State | None = None) -> None:
        self.database = Database(settings.jobs_database_url)
        self.keys = Keys(self.database, plans=Plans(settings.plans))
        secret = settings.token_secret
        self.tokens = Tokens(
            keys=self.keys,
            database=self.database,
            state=MemoryState() if state is None else state,
            secret=None if secret is None else secret.get_secret_value(),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.database.close()
