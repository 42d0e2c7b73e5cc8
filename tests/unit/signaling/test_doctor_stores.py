"""What `voiceforge doctor` says of the database and of Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.settings import Settings
from mediaserver.storage.database import Database
from signaling.doctor.finding import Status
from signaling.doctor.stores import check_database, check_redis
from tests.redis_servers import free_port, redis_server

TOKEN_SECRET = "t" * 32


def with_redis(url: str) -> Settings:
    return Settings(redis_url=url, token_secret=TOKEN_SECRET)  # type: ignore[arg-type]


async def test_a_database_that_is_there_answers_and_one_that_is_not_is_said_to_be_made(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert (await check_database(settings)).status is Status.SKIPPED
    database = Database(settings.jobs_database_url)
    await database.open()
    await database.close()
    assert (await check_database(settings)).message == "The database (sqlite) answers."


async def test_a_database_that_does_not_answer_is_a_failure_without_its_password() -> None:
    settings = Settings(database_url=f"postgresql://me:s3cret@127.0.0.1:{free_port()}/jobs")
    with pytest.raises(VoiceForgeError) as failure:
        await check_database(settings)
    assert failure.value.code == "DATABASE_DOWN"
    assert "s3cret" not in str(failure.value)


async def test_without_redis_there_is_nothing_to_look_at() -> None:
    assert (await check_redis(Settings())).status is Status.SKIPPED


@pytest.mark.needs("redis-server", "redis-cli")
async def test_a_redis_that_works_says_how_many_serve() -> None:
    with redis_server(password="s3cret") as server:
        found = await check_redis(with_redis(server.url))
        assert found.status is Status.OK, found
        assert "0 processes serve" in found.message
        server.tell("config", "set", "maxmemory", "1")
        assert (await check_redis(with_redis(server.url))).message == "Redis has no memory left."
        wrong = await check_redis(with_redis(server.url.replace("s3cret", "wr0ng")))
    assert wrong.status is Status.FAILED
    assert "wr0ng" not in f"{wrong.message} {wrong.hint}"


async def test_a_redis_that_is_not_there_is_a_failure() -> None:
    found = await check_redis(with_redis(f"redis://:s3cret@127.0.0.1:{free_port()}"))
    assert found.status is Status.FAILED
    assert "s3cret" not in found.message
    with pytest.raises(ConfigError) as refused:
        await check_redis(with_redis("redis://:s3cret@host:port"))
    assert refused.value.code == "REDIS_URL_INVALID"


def test_redis_wants_a_secret_that_all_nodes_share() -> None:
    with pytest.raises(ValueError, match="token_secret"):
        Settings(redis_url="redis://host")  # type: ignore[arg-type]
