"""What another process needs to go on with a session: a small value in the state that processes share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mediaserver.audio.clock import FRAME_SAMPLES, samples_in
from mediaserver.session.channels import Channels
from mediaserver.session.eventlog import Entry, EventLog
from mediaserver.session.resumption import Position
from signaling.auth.principal import KeyLimits, Principal, Scope, TokenKind
from signaling.cluster.state import VALUE_MAX_BYTES

TAIL_LETTERS = 64 * 1024
"""Of the newest events, for a client that has not heard them: far more than is told while one is away."""

UNWRITTEN_EVENTS, UNWRITTEN_UTTERANCES = 10_000, 1000
"""What a process may at most have told since it wrote a record down that is not its last: what is told elsewhere has
numbers behind these. Far more than comes between two writes, and than comes for as long as a record is good where none
could be written: 250 events a second, and an utterance each 40 ms."""

CLAIMED = b"claimed by "

FORMER_MAX = 4
"""URLs that a session had at other processes and that lead to it still; of more, the oldest are forgotten. A client
that was not told of that many moves has not been there for minutes."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands in place of a record that somebody goes on from.

    Args:
        place_id: who.
        name: what the session's record is called there; empty before there is one.
    """

    place_id: str
    name: str = ""

    @classmethod
    def of(cls, value: bytes | None) -> Self | None:
        """What a value says; None where it is none."""
        if value is None or not value.startswith(CLAIMED):
            return None
        place_id, _, name = value.removeprefix(CLAIMED).decode(errors="replace").partition(" ")
        return cls(place_id, name)

    def written(self) -> bytes:
        """As a value of the state."""
        return CLAIMED + f"{self.place_id} {self.name}".rstrip().encode()


class Owner(BaseModel):
    """Whose a session is, as `Principal`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenant: str
    key_id: str | None
    scopes: list[Scope]
    limits: KeyLimits
    is_local: bool
    pinned: dict[str, Any] | None
    token: TokenKind | None

    @classmethod
    def of(cls, principal: Principal) -> Self:
        """Of a principal."""
        return cls(
            tenant=principal.tenant,
            key_id=principal.key_id,
            scopes=sorted(principal.scopes),
            limits=principal.limits,
            is_local=principal.is_local,
            pinned=None if principal.pinned is None else dict(principal.pinned),
            token=principal.token,
        )

    def principal(self) -> Principal:
        """As a principal again; whether its key is still good is another question."""
        return Principal(
            self.tenant,
            self.key_id,
            frozenset(self.scopes),
            self.limits,
            is_local=self.is_local,
            pinned=self.pinned,
            token=self.token,
        )


class Asked(BaseModel):
    """What the client chose when it opened the session, and since."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: dict[str, Any]
    door: dict[str, str] = Field(repr=False)
    """What its door wants to know again."""


class Resumption(BaseModel):
    """A session at a moment. It has no wall time in it: clocks of machines differ, and are set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2
    session_id: str
    door: str
    place_id: str
    owner: Owner
    asked: Asked
    age_s: float
    """How long it had lasted."""
    ttl_s: float
    """For how long this was written: with how long it will still stand that says how old it is."""
    former: list[str] = []
    """Names of the records of the URLs that it had before; they lead to it too."""
    received_samples: int
    """Of the channel that had received most."""
    positions: list[tuple[int, int, int, int, int]]
    """Of each channel: the fields of `Position`."""
    seq: int
    is_last: bool
    """Whether nothing was told after it was written: the session was handed over. Otherwise its process is gone."""
    events: list[tuple[int, str]]

    @classmethod
    def of(
        cls,
        channels: Channels,
        *,
        session_id: str,
        door: str,
        place_id: str,
        owner: Owner,
        asked: Asked,
        log: EventLog | None,
        age_s: float,
        ttl_s: float,
        former: Sequence[str] = (),
    ) -> Self:
        """Of a session that lives here."""
        return cls(
            session_id=session_id,
            door=door,
            place_id=place_id,
            owner=owner,
            asked=asked,
            age_s=age_s,
            ttl_s=ttl_s,
            former=list(former),
            received_samples=max(channels.received_samples(channel) for channel in range(channels.count)),
            positions=[
                (item.sample, item.utterances, item.speech_samples, item.concealed_samples, item.left_out)
                for item in channels.positions
            ],
            seq=channels.seq + int(channels.is_sealed),  # the goodbye is still to be said
            is_last=channels.is_sealed,
            events=[] if log is None else [(entry.seq, entry.text) for entry in log.tail(letters=TAIL_LETTERS)],
        )

    def written(self) -> bytes:
        """As a value of the state: the oldest events go where it would be too large."""
        record = self
        while len(value := record.model_dump_json().encode()) > VALUE_MAX_BYTES and record.events:
            record = record.model_copy(update={"events": record.events[len(record.events) // 2 + 1 :]})
        return value

    @property
    def next_seq(self) -> int:
        """A number that no event has had, and all behind it neither."""
        return self.seq if self.is_last else self.seq + UNWRITTEN_EVENTS

    def settled(self) -> tuple[Position, ...]:
        """Where each channel goes on where the client sends again what it has sent since."""
        return tuple(Position(*item) for item in self.positions)

    def live(self, away_s: float) -> tuple[Position, ...]:
        """Where all channels go on where what was sent since is lost: in step with wall time, whole frames.

        Utterances that may have been told since are not heard again: others do not get their numbers.

        Args:
            away_s: how long ago that was.
        """
        sample = _frames_up(self.received_samples + samples_in(s=away_s))
        left_out = 0 if self.is_last else UNWRITTEN_UTTERANCES
        return tuple(
            replace(
                position,
                sample=max(sample, position.sample),
                utterances=position.utterances + left_out,
                left_out=position.left_out + left_out,
            )
            for position in self.settled()
        )

    def entries(self) -> list[Entry]:
        """What was told last."""
        return [Entry(seq, text) for seq, text in self.events]


def name_of(secret: str) -> str:
    """What a session's record is called: nothing that would let anybody in."""
    return f"resume:{hashlib.sha256(secret.encode()).hexdigest()}"


def _frames_up(sample: int) -> int:
    return -(-sample // FRAME_SAMPLES) * FRAME_SAMPLES
