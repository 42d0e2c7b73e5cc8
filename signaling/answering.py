"""How an offer becomes a session, whichever protocol carries it: WHIP and OpenAI's calls share this."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import structlog
from structlog.contextvars import bound_contextvars

from mediaserver.errors import CapacityError
from mediaserver.session_config import MAX_CHANNELS
from signaling.limits import ACCEPT_TIMEOUT_S, Admission, shutting_down
from signaling.registry import LiveSession, Registry, ReturningPeer, WebRtcPeer, new_etag, new_session_id
from signaling.resume.elsewhere import Found

log = structlog.get_logger(__name__)

FAILED_DEADLINE_S = 1.0
"""How long a peer may take to let go when its offer was refused: it has heard nothing, so nothing is flushed."""

SETUPS_AT_ONCE = 2
"""Offers that are answered at a time; others wait their turn, no longer than `ACCEPT_TIMEOUT_S`, and the rooms bound
how many. An answer is 6 ms of work in steps of up to 4 ms and waits for nothing outside: fifty that took their steps
side by side held the event loop for 190 ms at once."""

SETUP_RETRY_AFTER_S = 5
"""When an offer that was not answered in time may be tried again."""

Registered = Callable[[LiveSession], None]
"""Told of a session that has got its place, before its offer is answered."""

MakePeer = Callable[[str], WebRtcPeer]
"""Makes the peer of a new session from its log id; raises ConfigError if what its client wants cannot be met."""


def channels_of(offer_sdp: str, *, is_stereo: bool) -> int:
    """How many channels an offer may bring, before it is understood: its audio sections that are not rejected.

    Args:
        offer_sdp: anything; what is no offer is refused by who understands it.
        is_stereo: whether each has two.
    """
    sections = max(1, len(_AUDIO_SECTION.findall(offer_sdp)))
    return min(sections * (2 if is_stereo else 1), MAX_CHANNELS)  # what has more is refused as such


_AUDIO_SECTION = re.compile(r"^m=audio (?!0 )", re.MULTILINE)


class Answering:
    """Offers to sessions.

    Args:
        registry: where sessions live.
        admission: whether one more may come in.
    """

    def __init__(self, *, registry: Registry, admission: Admission) -> None:
        self._registry = registry
        self._admission = admission
        self._turn = asyncio.Semaphore(SETUPS_AT_ONCE)

    async def open(
        self,
        offer_sdp: str,
        make_peer: MakePeer,
        *,
        door: str,
        registered: Registered | None = None,
        going_on: tuple[Found, int] | None = None,
        is_stereo: bool = False,
    ) -> tuple[LiveSession, WebRtcPeer, str]:
        """Admit a session, make its peer and have it answer.

        Args:
            offer_sdp: the client's offer.
            make_peer: makes the server's end.
            door: which protocol it came in by.
            registered: told of it once it has its URL.
            going_on: a session that another process had, and the last event that its client knows; None: a new one.

            is_stereo: whether the two channels of a track are two people.

        Returns:
            The session as it is registered, its peer, and the answer's SDP.

        Raises:
            VoiceForgeError: the refusals of `Admission.check`, what `make_peer` and `WebRtcPeer.accept` raise, or
                ANSWER_TIMEOUT. Nothing is left of the session then.
        """
        session_id = new_session_id() if going_on is None else going_on[0].record.session_id
        age_s = None if going_on is None else going_on[0].going_on(()).age_s
        channels = channels_of(offer_sdp, is_stereo=is_stereo)
        # Every task that the peer starts inherits the binding, so all its lines carry the id.
        with bound_contextvars(session=session_id):
            if going_on is None:
                self._admission.check()  # no await between this and `add`: two offers cannot take one room
            peer = make_peer(session_id)
            live = self._registry.add(session_id, peer, door=door, age_s=age_s, channels=channels)
            if registered is not None:
                registered(live)
            answer = await self._answer(live, peer, offer_sdp, **({} if going_on is None else {"after": going_on[1]}))
            log.info("session opened", door=door, live=len(self._registry))
        return live, peer, answer

    async def resume(self, offer_sdp: str, live: LiveSession, peer: ReturningPeer, *, after: int) -> str:
        """Have a peer answer the offer of its client, which is back; whatever goes wrong, the session goes on waiting.

        Args:
            offer_sdp: of a new peer connection.
            live: the session.
            peer: its server's end.
            after: the last event that the client knows.

        Raises:
            VoiceForgeError: what `ReturningPeer.resume` raises, or ANSWER_TIMEOUT.
        """
        with bound_contextvars(session=live.session_id):
            try:
                async with asyncio.timeout(ACCEPT_TIMEOUT_S), self._turn:
                    answer = await peer.resume(offer_sdp, after=after)
            except TimeoutError as exc:
                raise _too_slow() from exc
            live.etag = new_etag()
            log.info("session resumed", door=live.door)
        return answer

    async def _answer(self, live: LiveSession, peer: WebRtcPeer, offer_sdp: str, **known: int) -> str:
        """Have the peer answer; whatever goes wrong, a cancelled request included, leaves no peer behind."""
        try:
            async with asyncio.timeout(ACCEPT_TIMEOUT_S), self._turn:
                if live.closing is not None:
                    raise shutting_down()  # while it waited for its turn
                answer = await peer.accept(offer_sdp, **known)
        except BaseException as exc:
            stopped = live.closing is not None
            await self._registry.close(live, "setup_failed", deadline_s=FAILED_DEADLINE_S)
            if stopped and isinstance(exc, Exception):
                raise shutting_down() from exc  # the peer failed because it was being closed
            if isinstance(exc, TimeoutError):
                raise _too_slow() from exc
            raise
        if live.closing is not None:
            raise shutting_down()
        return answer


def _too_slow() -> CapacityError:
    return CapacityError(
        "ANSWER_TIMEOUT",
        f"The offer was not answered within {ACCEPT_TIMEOUT_S:g} s.",
        "Try again; if it stays, check the server's `ice_servers`.",
        retry_after_s=SETUP_RETRY_AFTER_S,
    )
