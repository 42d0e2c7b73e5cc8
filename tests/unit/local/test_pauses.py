"""Pauses double up to their bound, a share of each is chance, and they begin anew."""

from __future__ import annotations

import pytest

from mediaserver.local.pauses import Pauses


@pytest.mark.parametrize(("chance", "share"), [(0.0, 1.0), (1.0, 0.5)])
def test_they_double_up_to_a_bound_and_begin_anew(chance: float, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: chance)
    pauses = Pauses(first_s=0.1, longest_s=0.3)
    assert [pauses.next_s() for _ in range(4)] == pytest.approx([share * pause_s for pause_s in (0.1, 0.2, 0.3, 0.3)])
    pauses.begin_anew()
    assert pauses.next_s() == pytest.approx(share * 0.1)
