"""What every door opens sessions with: the models that are loaded, and the node's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mediaserver.audio.turn import TurnPool
from mediaserver.audio.vad import VadPool
from mediaserver.ingest.peer import Peer, new_closings
from mediaserver.metrics import Metrics
from mediaserver.session import Session, Sink
from mediaserver.session.channels import Channels, MakeSession, Outlet
from mediaserver.session.dialect import Dialect
from mediaserver.session.effective import Effective
from mediaserver.session.eventlog import EventLog
from mediaserver.session.resumption import START, GoingOn, Position
from mediaserver.session.tap import Tap, Tee
from mediaserver.session_config import SessionConfig
from mediaserver.settings import Settings
from signaling.auth.principal import current_principal
from signaling.limits import ServedEngine
from signaling.seeing.session_watch import SessionTap, SessionWatch
from signaling.session_webhooks import SessionWebhooks
from signaling.usage.meter import Meter


@dataclass(slots=True)
class Models:
    """What is loaded while the server already listens; None until then, `turns` also where nobody asked for it."""

    engine: ServedEngine | None = None
    vad: VadPool | None = None
    turns: TurnPool | None = None


class SessionFactory:
    """Makes sessions that share what is loaded. Whether one may come in is asked before (`signaling.limits`).

    Args:
        settings: of this node.
        models: filled in once they are loaded.
        metrics: shared by all sessions.
        webhooks: who is told of sessions, beside their clients.
        meter: counts them.
        watch: tells the audit log and the traces of them.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        models: Models,
        metrics: Metrics,
        webhooks: SessionWebhooks | None = None,
        meter: Meter | None = None,
        watch: SessionWatch | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self._models = models
        self._webhooks = webhooks
        self._meter = meter
        self._watch = watch
        self._closings = new_closings()

    @property
    def engine(self) -> ServedEngine | None:
        """The engine, None until one is loaded."""
        return self._models.engine

    @property
    def vad(self) -> VadPool | None:
        """The VAD, None until one is loaded."""
        return self._models.vad

    def check(self, config: SessionConfig) -> None:
        """Refuse a configuration before anything is opened.

        Raises:
            ConfigError: it names a model, a language or an end-of-turn model that is not there.
        """
        engine, _ = self._loaded()
        Effective.of(_fixed(config), self.settings, engine)

    def channels(
        self,
        session_id: str,
        config: SessionConfig,
        outlet: Outlet,
        *,
        count: int = 1,
        going_on: GoingOn | None = None,
    ) -> Channels:
        """The sessions of a connection.

        Args:
            session_id: for logs and events; not a secret.
            config: what the client asked for.
            outlet: where events go.
            count: how many channels.
            going_on: where they go on, of a connection that another process had.

        Raises:
            ConfigError: the configuration names what is not there.
            VoiceForgeError: a noise suppressor that is not installed.
        """
        tee = Tee(outlet, [*self._taps(session_id, going_on), *self._counting(session_id), *self._watching(session_id)])
        channels = Channels(self._maker(session_id, config), outlet=tee, count=count, going_on=going_on)
        tee.begin(channels)
        return channels

    def peer(
        self,
        session_id: str,
        config: SessionConfig,
        dialect: Dialect | None = None,
        taps: Sequence[Tap] | None = None,
        *,
        is_stereo: bool = False,
        log: EventLog | None = None,
        door: str = "",
        going_on: GoingOn | None = None,
    ) -> Peer:
        """The server's end of a peer connection.

        Args:
            session_id: for logs and events; not a secret.
            config: what the client asked for.
            dialect: what is said over its data channel; the native protocol if None.
            taps: who hears its events beside the client; the node's webhook if None.
            is_stereo: whether the two channels of a track are two people.
            log: what it is told, for others and for the client when it comes back, which it may then.
            door: its protocol, for the metrics of coming back.
            going_on: where it goes on, of a session that another process had.

        Raises:
            ConfigError: the configuration names what is not there.
        """
        self.check(config)  # an unknown model or language is refused before ICE begins
        watching = self._watching(session_id)
        return Peer(
            session_id=session_id,
            settings=self.settings,
            metrics=self.metrics,
            make_session=self._maker(session_id, config),
            dialect=dialect,
            taps=[
                *(self._taps(session_id, going_on) if taps is None else taps),
                *self._counting(session_id),
                *watching,
            ],
            log=log,
            door=door,
            window_s=self.settings.resume_window_s,
            is_stereo=is_stereo,
            going_on=going_on,
            closings=self._closings,
            on_stage=watching[0].reached if watching else None,
        )

    def _taps(self, session_id: str, going_on: GoingOn | None) -> list[Tap]:
        sequence = 0 if going_on is None else going_on.seq
        tap = None if self._webhooks is None else self._webhooks.tap(session_id, sequence=sequence)
        return [] if tap is None else [tap]

    def _counting(self, session_id: str) -> list[Tap]:
        engine, _ = self._loaded()
        tap = None if self._meter is None else self._meter.tap(session_id, current_principal(), model=engine.model_name)
        return [] if tap is None else [tap]

    def _watching(self, session_id: str) -> list[SessionTap]:
        engine, _ = self._loaded()
        tap = None if self._watch is None else self._watch.tap(session_id, model=engine.model_name)
        return [] if tap is None else [tap]

    def _maker(self, session_id: str, config: SessionConfig) -> MakeSession:
        engine, vad = self._loaded()
        config = _fixed(config)

        def make_session(sink: Sink, start: Position = START) -> Session:
            return Session(
                session_id=session_id,
                config=config,
                settings=self.settings,
                decoder=engine,
                vad=vad,
                metrics=self.metrics,
                sink=sink,
                turns=self._models.turns,
                start=start,
            )

        return make_session

    def _loaded(self) -> tuple[ServedEngine, VadPool]:
        engine, vad = self._models.engine, self._models.vad
        if engine is None or vad is None:
            raise RuntimeError("a session was admitted before the models were loaded")
        return engine, vad


def _fixed(config: SessionConfig) -> SessionConfig:
    """A client's configuration with what its join token decides.

    Raises:
        ConfigError: FIXED_BY_TOKEN.
    """
    pinned = current_principal().pinned
    return config if pinned is None else config.fixed(pinned)
