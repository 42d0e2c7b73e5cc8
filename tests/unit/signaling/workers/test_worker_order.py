"""What a worker is told, and its share of a node."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from mediaserver.settings import Settings
from signaling.workers.order import Order, settings_of_worker, workers_of

SECRET = "a-secret-of-thirty-two-letters-or-more"


def test_an_order_arrives_as_it_was_given_secrets_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(token_secret=SecretStr(SECRET), data_dir=tmp_path, max_sessions=7, hotwords=["Merneptah"])
    order = Order(settings, 2, "node", tmp_path, tmp_path / "state", (5, 6))
    line = order.to_line()
    monkeypatch.setenv("VOICEFORGE_MAX_SESSIONS", "99")  # the environment of a worker decides nothing any more
    again = Order.from_line(line)
    assert again == order
    assert again.settings.token_secret is not None
    assert again.settings.token_secret.get_secret_value() == SECRET
    assert "\n" not in line
    assert SECRET not in repr(order)


@pytest.mark.parametrize(("whole", "count", "shares"), [(64, 2, [32, 32]), (7, 3, [3, 2, 2]), (1, 2, [1, 1])])
def test_workers_share_what_a_node_may(whole: int, count: int, shares: list[int]) -> None:
    settings = Settings(max_sessions=whole, jobs_concurrency=3, workers=count)
    mine = [settings_of_worker(settings, number, count, {}) for number in range(1, count + 1)]
    assert [one.max_sessions for one in mine] == shares
    assert [one.jobs_concurrency for one in mine] == [3] + [0] * (count - 1)
    assert {one.workers for one in mine} == {1}


def test_what_all_are_given_counts() -> None:
    given = {"engine_socket": Path("/run/engine"), "port": 8081}
    mine = settings_of_worker(Settings(engine_process=True), 1, 2, given)
    assert (mine.engine_socket, mine.engine_process, mine.port) == (Path("/run/engine"), False, 8081)


def test_none_is_one_a_core() -> None:
    assert workers_of(Settings(workers=0)) >= 1
    assert workers_of(Settings(workers=5)) == 5


@pytest.mark.parametrize(
    "address",
    ["10.0.0.5:8081", "https://10.0.0.5:8081", "http://10.0.0.5", "http://a:0", "http://a:80/x", "http://u@a:1"],
)
def test_an_address_of_a_node_is_the_base_of_urls(address: str) -> None:
    with pytest.raises(ValidationError, match="node_address"):
        Settings(node_address=address, token_secret=SecretStr(SECRET))


def test_nodes_that_reach_each_other_share_a_secret() -> None:
    with pytest.raises(ValidationError, match="token_secret"):
        Settings(node_address="http://10.0.0.5:8081")
    assert Settings(node_address="http://[2001:db8::5]:8081", token_secret=SecretStr(SECRET)).node_address
