"""What comes over a client's peer connections, one after another, as the audio of one session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mediaserver.audio.clock import Samples, seconds
from mediaserver.errors import VoiceForgeError
from mediaserver.ingest.gap import Gap
from mediaserver.ingest.peer_errors import channels_differ, media_paused
from mediaserver.session.channels import Channels, MakeSession, Outlet
from mediaserver.session.resumption import GoingOn
from mediaserver.settings import Settings


class Hearing:
    """The channels of one client, and the silence between its connections. Times are of the event loop's clock.

    Until `open` nothing is heard, and nobody is told of it.

    Args:
        settings: of the node.
        longest_gap_s: most silence for one gap.
    """

    def __init__(self, settings: Settings, *, longest_gap_s: float) -> None:
        self._settings = settings
        self._gap = Gap(longest_s=longest_gap_s)
        self.channels: Channels | None = None
        """What hears; None before there is anything to hear."""

    def open(
        self, make_session: MakeSession, *, outlet: Outlet, tracks: Sequence[str], going_on: GoingOn | None
    ) -> Channels:
        """Begin to hear.

        Args:
            make_session: makes the session of a channel.
            outlet: where events go.
            tracks: the names of the channels that are offered.
            going_on: where the session goes on, which another process had.

        Raises:
            MediaError: CHANNELS_DIFFER.
            VoiceForgeError: what `make_session` raises.
        """
        if going_on is not None:
            self._require_as_many(tracks, len(going_on.positions))
        self.channels = Channels(make_session, outlet=outlet, count=len(tracks), going_on=going_on)
        return self.channels

    def require_as_before(self, tracks: Sequence[str]) -> None:
        """Refuse a connection that offers another number of channels.

        Raises:
            MediaError: CHANNELS_DIFFER.
        """
        if self.channels is not None:
            self._require_as_many(tracks, self.channels.count)

    # --- between connections

    def silent_since(self, last_s: float | None) -> None:
        """There is no connection; the last packet came then, where there was one. What was said by then is final."""
        if self.channels is not None:
            self.channels.finalize()
        self._gap.begin(last_s)

    def goes_on_since(self, known_s: float) -> None:
        """Another process had the session; it is known from then on how far it had come."""
        self._gap.begin(known_s)

    async def catch_up(self) -> None:
        """Have most of the silence heard, before a connection is there."""
        if self.channels is not None:
            await self._gap.fill(self.channels)

    # --- over a connection

    def samples(self, channel: int, samples: Samples, concealed: int) -> None:
        """Take the next samples of a channel, so many of which were made up."""
        if self.channels is None:
            return
        if self._gap.is_open:
            self._gap.end(self.channels, asyncio.get_running_loop().time() - seconds(len(samples)))
        self.channels.push_to(channel, samples, concealed=concealed)

    def still(self, channels: range) -> None:
        """Nothing comes of these channels just now: what was said there is over."""
        if self.channels is not None:
            for channel in channels:
                self.channels.finalize_channel(channel)

    def paused(self) -> None:
        """Nothing has come of any for a while."""
        if self.channels is not None:
            self.channels.warn(media_paused(self._settings))

    def failed(self, error: VoiceForgeError) -> None:
        """The client is to know of a fault."""
        if self.channels is not None:
            self.channels.fail(error)

    @staticmethod
    def _require_as_many(tracks: Sequence[str], count: int) -> None:
        if len(tracks) != count:
            raise channels_differ(len(tracks), count)
