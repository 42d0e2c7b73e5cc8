"""A WHIP session that is being opened: what is made with its peer, and follows once that has answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mediaserver.session.eventlog import Entry, EventLog
from signaling.eventlogs import EventLogs
from signaling.registry import LiveSession, ReturningPeer, WebRtcPeer
from signaling.session_webhooks import Receiver, SessionWebhook, SessionWebhooks

IS_STEREO, WEBHOOK_URL, WEBHOOK_SECRET = "is_stereo", "webhook_url", "webhook_secret"
"""What is written down of a session beside its configuration, for another process that goes on with it."""


class Opening:
    """One session.

    Args:
        make_peer: makes its server's end, given its id, `taps` and `log`.
        logs: where others read what it tells.
        webhooks: who posts it.
        receiver: where to; None: to the node's own.
        is_stereo: whether the two channels of a track are two people.
        entries: what was told of it elsewhere.
        first: the number of its first event here.
    """

    def __init__(
        self,
        make_peer: Callable[..., WebRtcPeer],
        logs: EventLogs,
        webhooks: SessionWebhooks,
        receiver: Receiver | None,
        *,
        is_stereo: bool,
        entries: Sequence[Entry],
        first: int,
    ) -> None:
        self._make_peer = make_peer
        self._logs = logs
        self._webhooks = webhooks
        self._receiver = receiver
        self._is_stereo = is_stereo
        self._entries = entries
        self._first = first
        self._log: EventLog | None = None
        self._posted: list[SessionWebhook] = []

    def make_peer(self, session_id: str) -> WebRtcPeer:
        """As `MakePeer` of `signaling.answering`."""
        self._log = self._logs.open(session_id)
        if self._entries:
            self._log.restore(self._entries, newest=self._entries[-1].seq)
        self._posted = list(filter(None, [self._webhooks.tap(session_id, self._receiver, sequence=self._first)]))
        return self._make_peer(session_id, taps=self._posted, log=self._log)

    def registered(self, live: LiveSession) -> None:
        """It has its URL: the client is told of its way back before anything else."""
        if isinstance(live.peer, ReturningPeer):
            live.peer.resumes_at(url_of(live))
        if self._is_stereo:
            live.asked[IS_STEREO] = "true"
        if self._receiver is not None:
            live.asked[WEBHOOK_URL] = self._receiver.url
            if self._receiver.secret is not None:
                live.asked[WEBHOOK_SECRET] = self._receiver.secret

    def publish(self, live: LiveSession) -> None:
        """Its offer is answered: others may read along."""
        assert self._log is not None
        self._logs.publish(live, self._log)
        live.on_gone += [webhook.end for webhook in self._posted]  # also where it is cut, and never says `closed`


def url_of(live: LiveSession) -> str:
    """The path of a session; a secret."""
    return f"/whip/{live.secret}"
