"""Raising the number of speakers, the ratio, and the command line around it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from benchmarks.cli import bench
from benchmarks.job import Job
from benchmarks.peers import contenders
from benchmarks.peers.contenders import OWN, Contender
from benchmarks.peers.measure import Bench
from benchmarks.peers.outcome import ratio, result
from benchmarks.peers.perform import Cost
from benchmarks.peers.spoken import Spoken
from benchmarks.peers.trial import Standing, Trial
from benchmarks.scoring import Errors
from benchmarks.screen import ScreenScore
from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings

COST = Cost(audio_s=80.0, server_cpu_s=40.0, clients_cpu_s=1.0, others_cores=0.0, late_p99_s=0.01, rss_peak_mib=500.0)


def contender(server: str, mode: str = "") -> Contender:
    return Contender(server, mode, cast(Any, None), cast(Any, None))


def trial(server: str, speakers: int, p95_s: float, **more: Any) -> Trial:
    score = ScreenScore(word_s=[p95_s] * 20, first_text_from_word_s=[1.0], shown_words=20, changed_words=5)
    return replace(Trial(server, server, speakers, score, score, Errors(words=20), 20, COST, ("a text",)), **more)


def standing(server: str, mode: str, speakers: int) -> Standing:
    return Standing(contender(server, mode), speakers, (trial(server, speakers, 1.0),))


class Scripted(Bench):
    """Serves up to `limit` speakers in time; refuses above `refuses_above`."""

    def __init__(self, limit: int, refuses_above: int = 1000) -> None:
        super().__init__(cast(Job, None), cast(Spoken, None), Path(), seconds_each=1.0)
        self.tried: list[int] = []
        self._limit, self._refuses_above = limit, refuses_above

    async def trial(self, contender: Contender, count: int) -> Trial:
        self.tried.append(count)
        if count > self._refuses_above:
            raise VoiceForgeError("SERVER_FAILED", "It ended.", "See its log.")
        return trial(contender.server, count, 1.0 if count <= self._limit else 9.0)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 16])
async def test_the_largest_number_within_the_bound_is_found(limit: int) -> None:
    scripted = Scripted(limit)
    found = await scripted.stand(contender("A"), bound_s=3.0, counts=(), start=1, most=16)
    assert found.speakers == limit
    assert len(set(scripted.tried)) == len(scripted.tried)
    assert [item.speakers for item in found.trials] == sorted(scripted.tried)


async def test_numbers_that_are_given_are_tried_upwards_until_the_bound_breaks() -> None:
    scripted = Scripted(2)
    found = await scripted.stand(contender("A"), bound_s=3.0, counts=(8, 1, 4, 2), start=1, most=64)
    assert scripted.tried == [1, 2, 4]
    assert found.speakers == 2


@pytest.mark.parametrize("server", [OWN, "A"])
async def test_a_number_at_which_a_server_fails_does_not_hold_and_the_run_goes_on(server: str) -> None:
    scripted = Scripted(16, refuses_above=2)
    found = await scripted.stand(contender(server), bound_s=3.0, counts=(), start=1, most=16)
    assert scripted.tried == [1, 2, 4, 3]
    assert found.speakers == 2
    assert [item.speakers for item in found.trials] == [1, 2]
    assert found.failures == (f"{server}, 4: It ended. See its log.", f"{server}, 3: It ended. See its log.")


async def test_a_rival_that_never_runs_serves_nobody_and_one_of_our_own_is_an_error() -> None:
    found = await Scripted(16, refuses_above=0).stand(contender("A"), bound_s=3.0, counts=(), start=1, most=16)
    assert (found.speakers, found.trials) == (0, ())
    with pytest.raises(VoiceForgeError, match="It ended"):
        await Scripted(16, refuses_above=0).stand(contender(OWN), bound_s=3.0, counts=(), start=1, most=16)


def test_a_rival_counts_in_its_best_mode() -> None:
    standings = [
        standing(OWN, "", 20),
        standing("A", "slow", 1),
        standing("A", "fast", 3),
        standing("B", "", 0),
    ]
    assert ratio(standings) == "VoiceForge 20; A 3 (6.7 ×); B 0"


def test_what_is_not_clean_and_what_failed_is_told() -> None:
    odd = trial("A", 2, 1.0, cost=replace(COST, others_cores=0.7, late_p99_s=0.4))
    standings = [
        Standing(contender(OWN), 1, (trial(OWN, 1, 1.0),)),
        Standing(contender("A"), 2, (odd,), ("A, 3: It ended.",)),
    ]
    notes = " ".join(result(standings, bound_s=3.0, length_s=40.0, without="AlignAtt was not run.").notes)
    assert "A, 2: other processes kept 0.7 cores busy" in notes
    assert "A, 2: clients were up to 0.40 s late" in notes
    assert "A, 3: It ended." in notes
    assert "AlignAtt was not run." in notes


def test_a_server_that_shows_nothing_serves_nobody() -> None:
    silent = trial("A", 1, 1.0, score=ScreenScore())
    assert silent.p95_s == float("inf")
    assert silent.row[2] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rival", "nobody"], "nobody"),
        (["--speakers", "0"], "--speakers"),
        (["--bound", "0"], "--bound"),
        (["--seconds", "1"], "--seconds"),
        (["--most", "0"], "--most"),
    ],
)
def test_what_was_asked_wrongly_is_told(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(bench, ["peers", *arguments])
    assert outcome.exit_code == 2
    assert message in outcome.output


def test_modes_of_the_rivals(tmp_path: Path) -> None:
    def names(**more: Any) -> list[str]:
        given: dict[str, Any] = {"decoder": None, "cores": 2, "first_only": False, **more}
        pythons = {"whisperlive": Path("a"), "whisperlivekit": Path("b")}
        return [item.mode for item in contenders.rivals(pythons, tmp_path, warm_up=tmp_path, **given)]

    assert names() == ["batch, 2 threads", "batch, 1 thread", "default", "localagreement"]
    assert names(cores=1) == ["batch, 1 threads", "default", "localagreement"]
    assert names(decoder=tmp_path) == [
        "batch, 2 threads",
        "batch, 1 thread",
        "default",
        "localagreement",
        "simulstreaming",
    ]
    assert names(first_only=True) == ["batch, 2 threads", "localagreement"]


def test_our_own_server_gets_the_settings_of_the_run_and_room_for_all() -> None:
    launch = contenders.own(Settings(endpointing_ms=300, model="tiny.en", ice_servers=[])).launch(100)
    assert launch.environment["VOICEFORGE_ENDPOINTING_MS"] == "300"
    assert launch.environment["VOICEFORGE_MODEL"] == "tiny.en"
    assert launch.environment["VOICEFORGE_ICE_SERVERS"] == "[]"
    assert launch.environment["VOICEFORGE_MAX_SESSIONS"] == "100"
    assert "VOICEFORGE_PORT" not in launch.environment
