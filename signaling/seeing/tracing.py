"""Traces of sessions, by OpenTelemetry: from the request that opens one to its last final. One trace a session.

    session                     from the request to the end; why it ended
    ├─ signaling                the HTTP request, until it is answered
    ├─ ice                      answered → connected                       (WebRTC)
    ├─ first_packet             connected → first packet                   (WebRTC)
    ├─ first_text               the first speech → the first text of it
    ├─ utterance …              speech began → its final was told
    └─ resume …                 its client came back

A caller's `traceparent` (W3C Trace Context) is continued; whether it is to be traced decides who has a key, or needs
none on this machine. Browsers with tokens and strangers do not: they could have all of theirs traced. Never in a span:
texts, keys, URLs, addresses, names of tenants. Spans are made of what watchers of sessions are told; nothing of it is
in a packet's way.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus

from aiohttp import web
from structlog.contextvars import bind_contextvars, bound_contextvars

from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Final, Interim, Revision, SpeechStarted, UtteranceBegan, UtteranceSettled
from signaling.auth.principal import Principal, principal_of
from signaling.openapi.operation import Operation, description_of
from signaling.problems import Handler, route_of
from signaling.seeing.requests import REQUEST, current_request
from signaling.seeing.session_watch import Watched, Watcher
from signaling.seeing.spans import Span, Spans, Value

TRACEPARENT = "traceparent"

OPEN_UTTERANCES_MAX = 32
"""Utterances of one session whose span is not sent yet: those that are being spoken, and the last ones, which may still
be revised. The oldest is sent first; a revision that comes later is an event of the session."""


class SessionTrace:
    """The spans of one session, or of a request for one.

    Args:
        root: the whole of it.
        signaling: the request; None where it is not traced by itself.
        now_ns: the time of day in nanoseconds since 1970.
    """

    def __init__(self, root: Span, signaling: Span | None, now_ns: Callable[[], int]) -> None:
        self.root = root
        self._now_ns = now_ns
        self._signaling = signaling
        self._ending: Callable[[], None] | None = None
        self._stage: Span | None = None
        self._first_speech_ns: int | None = None
        self._has_text = False
        self._utterances: OrderedDict[tuple[int, int], _Utterance] = OrderedDict()  # bound: OPEN_UTTERANCES_MAX
        self._spoken_ns: dict[int, int] = {}  # when speech was last seen to begin, by channel
        self.session_id = ""
        """Of the session that came of the request; empty while none has."""
        self._has_ended = False

    @property
    def trace_id(self) -> str:
        """As 32 hexadecimal digits."""
        return self.root.trace_id

    def answered(self, status: int | None, code: str | None) -> None:
        """The request has its answer, or (None) will have none."""
        if self._signaling is None:
            return
        if status is not None:
            self._signaling.set({"http.response.status_code": status})
        self._signaling.end(self._now_ns(), error=code)
        self._signaling = None
        if self._ending is not None:
            self._ending()

    def reached(self, stage: str) -> None:
        """A peer is so far: what ends here, and what begins."""
        now_ns = self._now_ns()
        if self._stage is not None:
            self._stage.end(now_ns)
            self._stage = None
        following = {"answered": "ice", "connected": "first_packet"}.get(stage)
        if following is not None:
            self._stage = self.root.child(following, now_ns, {})

    def hear(self, event: Event, channel: int) -> None:
        """What is told of speech."""
        match event:
            case SpeechStarted():
                self._spoken_ns[channel] = self._now_ns()
                self._first_speech_ns = self._first_speech_ns or self._spoken_ns[channel]
            case UtteranceBegan(utterance_id=number):
                self._begin(channel, number)
            case Interim(utterance_id=number):
                self._first_text()
                if (utterance := self._utterances.get((channel, number))) is not None:
                    utterance.interims += 1
            case Final():
                self._first_text()
                self._final(event, channel)
            case Revision(utterance_id=number):
                self._revised(channel, number)
            case UtteranceSettled():
                self._settled(event, channel)
            case _:
                pass

    def resumed(self, details: Mapping[str, Value]) -> None:
        """Its client is back."""
        now_ns = self._now_ns()
        self.root.child("resume", now_ns, details).end(now_ns)

    def ended(self, reason: str, attributes: Mapping[str, Value], *, error: str | None = None) -> None:
        """It is over, and so is all within it; where its request is still to be answered, once that is. Only the first
        reason counts.
        """
        if self._has_ended or (self._ending is not None and self._signaling is not None):
            return
        if self._signaling is not None:
            self._ending = partial(self.ended, reason, attributes, error=error)
            return
        self._has_ended = True
        now_ns = self._now_ns()
        if self._stage is not None:
            self._stage.end(now_ns, error=reason)
            self._stage = None
        for utterance in self._utterances.values():
            utterance.end(now_ns)
        self._utterances.clear()
        self.root.set({"voiceforge.end_reason": reason, **attributes})
        self.root.end(now_ns, error=error)

    def _first_text(self) -> None:
        if not self._has_text:
            self._has_text = True
            now_ns = self._now_ns()
            self.root.child("first_text", self._first_speech_ns or now_ns, {}).end(now_ns)

    def _begin(self, channel: int, number: int) -> None:
        while len(self._utterances) >= OPEN_UTTERANCES_MAX:
            self._utterances.popitem(last=False)[1].end(self._now_ns())
        start_ns = self._spoken_ns.pop(channel, None) or self._now_ns()  # none where long speech was cut
        span = self.root.child(
            "utterance", start_ns, {"voiceforge.utterance_id": number, "voiceforge.channel": channel}
        )
        self._utterances[channel, number] = _Utterance(span)

    def _final(self, event: Final, channel: int) -> None:
        if (utterance := self._utterances.get((channel, event.utterance_id))) is None:
            return
        utterance.told_ns = self._now_ns()
        utterance.span.set({"voiceforge.duration_s": round(event.duration, 3), "voiceforge.words": len(event.words)})
        if event.language is not None:
            utterance.span.set({"voiceforge.language": event.language})

    def _revised(self, channel: int, number: int) -> None:
        utterance = self._utterances.get((channel, number))
        if utterance is not None:
            utterance.revisions += 1
        else:
            self.root.event("revision", self._now_ns(), {"voiceforge.utterance_id": number})

    def _settled(self, event: UtteranceSettled, channel: int) -> None:
        if (utterance := self._utterances.get((channel, event.utterance_id))) is None:
            return
        utterance.settled_ns = self._now_ns()
        utterance.error = None if event.error is None else str(event.error.get("code"))
        if event.queued_s is not None and event.decode_s is not None:
            utterance.span.set(
                {"voiceforge.queue_wait_s": round(event.queued_s, 4), "voiceforge.decode_s": round(event.decode_s, 4)}
            )


class _Utterance:
    """An utterance that may still change."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.interims = self.revisions = 0
        self.told_ns: int | None = None
        self.settled_ns: int | None = None
        self.error: str | None = None

    def end(self, now_ns: int) -> None:
        """Send it: it ended when its final was told, or when it was clear that there is none."""
        self.span.set({"voiceforge.interims": self.interims, "voiceforge.revisions": self.revisions})
        self.span.end(self.told_ns or self.settled_ns or now_ns, error=self.error)


def _is_followed(principal: Principal) -> bool:
    return principal.is_local or (principal.key_id is not None and principal.token is None)


_TRACE = web.RequestKey("trace", SessionTrace)
_CODE = web.RequestKey("trace_code", str)
_CURRENT: ContextVar[SessionTrace | None] = ContextVar("trace", default=None)


class Tracing(Watcher):
    """Traces the sessions of one process.

    Args:
        spans: where they go.
        now_ns: the time of day in nanoseconds since 1970.
    """

    def __init__(self, spans: Spans, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._spans = spans
        self._now_ns = now_ns
        self._traces: dict[str, SessionTrace] = {}  # bound: live sessions, and those that are being opened

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Within the guard, so that strangers make no traces: begins that of a request for a session, whose lines in
        the log have its id.
        """
        operation = description_of(request.match_info.handler)
        if not isinstance(operation, Operation) or not operation.opens_session:
            return await handler(request)
        info = request[REQUEST]
        now_ns = info.began_ns
        about = {"http.request.method": request.method, "http.route": route_of(request)}
        root = self._spans.begin(
            "session",
            now_ns,
            {"voiceforge.request_id": info.request_id},
            traceparent=request.headers.get(TRACEPARENT),
            is_followed=_is_followed(principal_of(request)),
        )
        trace = SessionTrace(root, root.child("signaling", now_ns, about), self._now_ns)
        request[_TRACE] = trace
        token = _CURRENT.set(trace)
        code = None
        try:
            with bound_contextvars(trace_id=trace.trace_id):
                return await handler(request)
        except VoiceForgeError as exc:
            code = request[_CODE] = exc.code
            raise
        except (asyncio.CancelledError, ConnectionError):
            trace.answered(None, "client_gone")
            raise
        except Exception as exc:
            code = type(exc).__name__
            raise
        finally:
            _CURRENT.reset(token)
            if code is not None or not trace.session_id:  # a session may have been made, and have found no room
                self._traces.pop(trace.session_id, None)
                trace.ended("refused" if code else "no_session", {}, error=code)

    async def on_response(self, request: web.Request, response: web.StreamResponse) -> None:
        """The answer leaves, or the upgrade does."""
        trace = request.get(_TRACE)
        if trace is not None:
            code = request.get(_CODE) if response.status >= HTTPStatus.BAD_REQUEST else None
            trace.answered(response.status, code)

    def made(self, session: Watched) -> None:
        """As `Watcher.made`."""
        trace = _CURRENT.get()
        if trace is None and (request := current_request()) is not None:
            # A session that another process had, and whose client has come here: a trace of its own.
            about = {"voiceforge.request_id": request.request_id}
            root = self._spans.begin("session", request.began_ns, about, traceparent=None)
            trace = SessionTrace(root, None, self._now_ns)
            bind_contextvars(trace_id=trace.trace_id)
            weakref.finalize(session, self._given_up, session.session_id, trace).atexit = False
        if trace is not None:
            trace.session_id = session.session_id
            self._traces[session.session_id] = trace

    def _given_up(self, session_id: str, trace: SessionTrace) -> None:
        """A session is gone whose request does not end its trace; it has ended, unless it never had its place here."""
        if self._traces.get(session_id) is trace:
            del self._traces[session_id]
        trace.ended("no_session", {})

    def opened(self, session: Watched) -> None:
        """As `Watcher.opened`."""
        trace = self._traces.get(session.session_id)
        if trace is None or session.channels is None:
            return
        config = session.channels.config
        attributes: dict[str, Value] = {
            "voiceforge.session_id": session.session_id,
            "voiceforge.door": session.door,
            "voiceforge.model": session.model,
            "voiceforge.language": config.language or "detected",
            "voiceforge.channels": session.channels.count,
        }
        if session.codec:
            attributes["voiceforge.codec"] = session.codec
        if session.principal is not None and session.principal.key_id is not None:
            attributes["voiceforge.key_id"] = session.principal.key_id
        trace.root.set(attributes)

    def reached(self, session: Watched, stage: str) -> None:
        """As `Watcher.reached`."""
        if (trace := self._traces.get(session.session_id)) is not None:
            trace.reached(stage)

    def told(self, session: Watched, event: Event, channel: int) -> None:
        """As `Watcher.told`."""
        if (trace := self._traces.get(session.session_id)) is not None:
            trace.hear(event, channel)

    def resumed(self, session: Watched, details: Mapping[str, object]) -> None:
        """As `Watcher.resumed`."""
        if (trace := self._traces.get(session.session_id)) is not None:
            plain = {f"voiceforge.{name}": v for name, v in details.items() if isinstance(v, bool | int | float | str)}
            trace.resumed(plain)

    def ended(self, session: Watched, reason: str) -> None:
        """As `Watcher.ended`."""
        if (trace := self._traces.pop(session.session_id, None)) is not None:
            channels = session.channels
            about: dict[str, Value] = {}
            if channels is not None:
                about = {
                    "voiceforge.audio_s": round(channels.stream_time_s, 3),
                    "voiceforge.speech_s": round(channels.speech_s, 3),
                    "voiceforge.concealed_s": round(channels.concealed_s, 3),
                }
            trace.ended(reason, about, error=reason if reason in ("error", "setup_failed") else None)
