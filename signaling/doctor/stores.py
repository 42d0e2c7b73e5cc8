"""What a node keeps elsewhere: the database, and what it shares with other nodes."""

from __future__ import annotations

import secrets
import time

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mediaserver.settings import Settings
from mediaserver.storage.database import Database, named_failures
from signaling.cluster.opening import open_state
from signaling.cluster.places import GROUP
from signaling.cluster.state import StateAwayError, StateFullError
from signaling.doctor.finding import Check, Finding, failed, fine, skipped, warned

SLOW_S = 0.05
"""A session asks a handful of times before it begins: more than this for each would be noticed."""

NOTE_S = 10.0


def store_checks(settings: Settings) -> list[Check]:
    """The checks of this subject."""
    return [
        Check("database", lambda: check_database(settings)),
        Check("redis", lambda: check_redis(settings)),
    ]


async def check_database(settings: Settings) -> Finding:
    """Whether the database answers.

    Raises:
        VoiceForgeError: why it does not.
    """
    database = Database(settings.jobs_database_url)
    if not database.exists:
        return skipped("There is no database yet: it is made with the first key or recording.")
    # Not `Database.reading`, which brings its tables up to date: other servers may still be of an older version.
    engine = create_async_engine(database.url)
    try:
        with named_failures():
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
    finally:
        await engine.dispose()
        await database.close()
    return fine(f"The database ({database.url.get_backend_name()}) answers.")


async def check_redis(settings: Settings) -> Finding:
    """Whether Redis answers, and does what is asked of it.

    Raises:
        ConfigError: REDIS_URL_INVALID.
    """
    if settings.redis_url is None:
        return skipped("`redis_url` is not set: this node is alone.")
    state = open_state(settings)
    name, value = f"doctor:{secrets.token_hex(8)}", secrets.token_bytes(8)
    began_s = time.monotonic()
    try:
        # Of each kind of what Redis is asked for one: some need rights that others do not.
        async with state.listen(name):
            await state.publish(name, value)
        await state.join(name, "doctor", value, ttl_s=NOTE_S)
        await state.leave(name, "doctor")
        await state.draw(name, per_minute=1)
        is_kept = await state.add(name, value, ttl_s=NOTE_S) and await state.get(name) == value
        await state.delete(name)
        each_s = (time.monotonic() - began_s) / 8
        places = len(await state.members(GROUP))
    except StateFullError:
        return failed("Redis has no memory left.", "Raise `maxmemory`; its policy is to be `noeviction`.")
    except StateAwayError as exc:
        # What the library says names hosts, and no password.
        return failed(
            f"Redis cannot be used: {str(exc.__cause__ or exc).rstrip('.')}.",
            "Check `redis_url`, its password, and its firewall.",
        )
    finally:
        await state.close()
    if not is_kept:
        return failed("Redis does not keep what is written to it.", "Is it a replica, or evicts what is new?")
    found = f"Redis answers in {each_s * 1000:.0f} ms; {places} processes serve."
    if each_s > SLOW_S:
        return warned(found, "Every new session waits for it some times: put it nearer.")
    return fine(found)
