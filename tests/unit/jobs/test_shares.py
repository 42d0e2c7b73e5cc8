"""No tenant fills what all share."""

from __future__ import annotations

from collections import Counter

import pytest

from mediaserver.errors import CapacityError
from mediaserver.jobs.shares import Shared

SHARED = Shared("things", "FULL", "SHARE_USED_UP", 60, "End one of yours.")
LIMIT = 120


def refusal(more: int, *, own: int, all_tenants: int) -> str | None:
    try:
        SHARED.require(more, own=own, all_tenants=all_tenants, limit=LIMIT)
    except CapacityError as exc:
        return exc.code
    return None


@pytest.mark.parametrize(("greedy", "each"), [(1, 60), (2, 40), (3, 30), (11, 10)])
def test_a_newcomer_finds_room_however_greedy_the_others_are(greedy: int, each: int) -> None:
    has: Counter[int] = Counter()
    for _ in range(LIMIT):
        for tenant in range(greedy):
            if refusal(1, own=has[tenant], all_tenants=has.total()) is None:
                has[tenant] += 1
    assert set(has.values()) <= {each, each + 1}
    assert refusal(1, own=0, all_tenants=has.total()) is None


def test_it_is_said_whether_it_is_full_or_one_has_its_share() -> None:
    assert refusal(61, own=0, all_tenants=0) == "FULL"  # more at once than anybody may have
    assert refusal(60, own=0, all_tenants=0) is None
    assert refusal(1, own=60, all_tenants=60) == "SHARE_USED_UP"
    assert refusal(1, own=1, all_tenants=119) == "SHARE_USED_UP"
    assert refusal(1, own=0, all_tenants=119) == "FULL"
    assert refusal(2, own=5, all_tenants=119) == "FULL"
    with pytest.raises(CapacityError) as caught:
        SHARED.require(1, own=60, all_tenants=70, limit=LIMIT)
    assert caught.value.message == "Of the things 60 are yours; 50 places are left, for others too."
    assert caught.value.hint == "End one of yours. Or try again in 60 s."
