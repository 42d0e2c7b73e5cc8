"""What another process needs to go on with a session: a small value in the state that processes share."""

from __future__ import annotations

import hashlib
from dataclasses import replace
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
"""What stands in place of a record that somebody goes on from, followed by the place."""


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
    """A session at a moment. Times are seconds since 1970, on the clocks of machines that are set alike."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    session_id: str
    door: str
    place_id: str
    owner: Owner
    asked: Asked
    began_at: float
    written_at: float
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
        began_at: float,
        written_at: float,
    ) -> Self:
        """Of a session that lives here."""
        return cls(
            session_id=session_id,
            door=door,
            place_id=place_id,
            owner=owner,
            asked=asked,
            began_at=began_at,
            written_at=written_at,
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

    def live(self, now_at: float, *, longest_s: float) -> tuple[Position, ...]:
        """Where all channels go on where what was sent since is lost: in step with wall time, whole frames.

        Utterances that may have been told since are not heard again: others do not get their numbers.

        Args:
            now_at: seconds since 1970.
            longest_s: most that is skipped, whatever clocks say.
        """
        away_s = min(max(0.0, now_at - self.written_at), longest_s)
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
