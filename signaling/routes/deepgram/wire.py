"""Events of sessions to messages of the vendor's live protocol, and a client's messages to calls (sans-IO)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import BaseModel, ValidationError

from mediaserver.errors import VoiceForgeError
from mediaserver.events import Event, Failed, Final, Interim, Metadata, SpeechStarted, SpeechStopped, UtteranceEnd
from mediaserver.events import Warned as Warning_
from mediaserver.session.channels import Channels
from mediaserver.session.dialect import Telling
from signaling.routes.deepgram import messages
from signaling.routes.deepgram.messages import TIME_DIGITS, ModelInfo, Results
from signaling.routes.deepgram.span import Piece, Span
from signaling.routes.deepgram.style import Style, text_of, written

TEXT_MAX_LETTERS = 16 * 1024
"""Of a client's message: a hundred words to expect, twice over. Whatever is in it, it is judged within 10 ms or so."""

SHOWN_LETTERS = 200
"""Of a message that could not be read."""

NOT_TOLD = frozenset({"AUDIO_AHEAD"})
"""Warnings that the protocol has no message for: it holds a client that is ahead back without a word."""

SWITCHES = ("punctuate", "smart_format", "filler_words")
"""Features that may change while a stream runs."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of a stream from its beginning.

    Args:
        request_id: a UUID, also in the response's header.
        created: when it began.
        model: what decodes.
        model_uuid: the same for a model wherever it is loaded.
        style: how words are written.
        channels: how many transcripts there are.
        language: code of what is spoken; None where it is detected.
        has_endpoints: whether a silence is told as `speech_final`.
        has_vad_events: whether `SpeechStarted` is sent.
        has_utterance_ends: whether `UtteranceEnd` is sent.
        tags: of the client.
        extra: fields of the client's own.
    """

    request_id: str
    created: datetime
    model: ModelInfo
    model_uuid: str
    style: Style
    channels: int = 1
    language: str | None = None
    has_endpoints: bool = True
    has_vad_events: bool = False
    has_utterance_ends: bool = False
    tags: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()


class Wire:
    """One stream.

    Args:
        request: of it.
        tell: takes results that are told outside of an event's turn: those of finalizes.
        answer: takes what a message of the client is answered by.
        digest: the hash of the audio received, in hex.
    """

    def __init__(
        self,
        request: Request,
        *,
        tell: Callable[[Telling], None],
        answer: Callable[[Telling], None],
        digest: Callable[[], str],
    ) -> None:
        self._request = request
        self._tell = tell
        self._answer = answer
        self._digest = digest
        self._spans = [Span() for _ in range(request.channels)]
        self._style = request.style
        self._features = {"punctuate": request.style.has_punctuation, "filler_words": request.style.keeps_fillers}
        self._metadata = messages.ResultsMetadata(
            request_id=request.request_id,
            model_info=request.model,
            model_uuid=request.model_uuid,
            extra=dict(request.extra) or None,
        )

    def tell(self, event: Event, channel: int) -> Sequence[Telling]:
        """What an event of a channel comes to; perhaps nothing."""
        span = self._spans[channel]
        match event:
            case Interim():
                piece = span.interim(event)
                return [] if piece is None else [self._told(piece, channel)]
            case Final():
                return [self._told(piece, channel) for piece in span.final(event)]
            case SpeechStopped():
                span.stopped(event.at)
            case SpeechStarted() if self._request.has_vad_events:
                at = round(event.at, TIME_DIGITS)
                return [_telling(messages.SpeechStarted(channel=self._index(channel), timestamp=at))]
            case UtteranceEnd() if self._request.has_utterance_ends:
                at = round(event.last_word_end, TIME_DIGITS)
                return [_telling(messages.UtteranceEnd(channel=self._index(channel), last_word_end=at))]
            case Metadata():
                return self._ending(event.duration)
            case Warning_() | Failed() if event.error["code"] not in NOT_TOLD:
                return [_telling(_fault(event.error))]
        return []

    def finalized(self, channel: int) -> None:
        """A finalize has been carried out in a channel."""
        piece = self._spans[channel].finalized()
        if piece is not None:
            self._tell(self._told(piece, channel))

    def hear(self, text: str, channels: Channels) -> bool:
        """Act on a client's message; what is wrong with it is told. False: it has said all that it will."""
        if len(text) > TEXT_MAX_LETTERS:
            self._misread(text, f"The message has {len(text)} letters; it may have {TEXT_MAX_LETTERS}.")
            return True
        try:
            said = messages.CLIENT_MESSAGE.validate_json(text)
        except ValidationError as exc:
            what = exc.errors(include_input=False, include_url=False)[0]["msg"]
            self._misread(text, f"The message is not one of KeepAlive, Finalize, CloseStream, Configure: {what}.")
            return True
        match said:
            case messages.Finalize():
                self._finalize(said.channel, channels)
            case messages.Configure():
                self._answer(_telling(self._configure(said, channels)))
            case messages.CloseStream():
                return False
        return True

    def _misread(self, text: str, why: str) -> None:
        fault = messages.Fault(variant="SchemaError", description=why, message=text[:SHOWN_LETTERS])
        self._answer(_telling(fault))

    def _finalize(self, channel: int | None, channels: Channels) -> None:
        if channel is not None and channel >= channels.count:
            error = VoiceForgeError("NO_SUCH_CHANNEL", f"There is no channel {channel}.", "They are counted from 0.")
            self._answer(_telling(_fault(error.as_dict())))
            return
        numbers = range(channels.count) if channel is None else [channel]
        for number in numbers:
            self._spans[number].finalize(channels.stream_time_s)
        for number in numbers:
            channels.finalize_channel(number)

    def _configure(self, said: messages.Configure, channels: Channels) -> BaseModel:
        unknown = [name for name, on in (said.features or {}).items() if on and name not in SWITCHES]
        if unknown:
            return self._refused(
                "CONFIGURE_FEATURE_NOT_SUPPORTED", f"{', '.join(unknown)[:SHOWN_LETTERS]} cannot be on."
            )
        if said.keyterms is not None:
            try:
                channels.configure({"hotwords": messages.KEYTERMS.validate_python(said.keyterms)})
            except ValidationError as exc:
                return self._refused("CONFIGURE_KEYTERM_LIMIT_EXCEEDED", exc.errors()[0]["msg"] + ".")
            except VoiceForgeError as exc:
                return self._refused("CONFIGURE_INTERNAL_ERROR", exc.message)
        self._features.update(said.features or {})
        self._style = replace(
            self._style,
            has_punctuation=self._features["punctuate"] or self._features.get("smart_format", False),
            keeps_fillers=self._features["filler_words"],
        )
        return messages.ConfigureSuccess(request_id=self._request.request_id, keyterms=said.keyterms)

    def _refused(self, code: str, description: str) -> BaseModel:
        return messages.ConfigureFailure(request_id=self._request.request_id, code=code, description=description)

    def _ending(self, duration_s: float) -> list[Telling]:
        request = self._request
        last = [
            self._told(piece, channel) for channel, span in enumerate(self._spans) for piece in span.rest(duration_s)
        ]
        return [
            *last,
            _telling(
                messages.StreamMetadata(
                    request_id=request.request_id,
                    sha256=self._digest(),
                    created=iso(request.created),
                    duration=round(duration_s, TIME_DIGITS),
                    channels=request.channels,
                    models=[request.model_uuid],
                    model_info={request.model_uuid: request.model},
                    tags=list(request.tags) or None,
                    extra=dict(request.extra) or None,
                )
            ),
        ]

    def _told(self, piece: Piece, channel: int) -> Telling:
        request = self._request
        language = piece.language or request.language
        words = written(piece.transcript, piece.words, self._style, language=language)
        detected = piece.language if request.language is None else None
        alternative = messages.Alternative(
            transcript=text_of(words, self._style),
            confidence=round(piece.confidence, TIME_DIGITS),
            languages=[detected] if detected and words else None,
            words=[
                messages.WordBody(
                    word=word.bare or word.full,
                    start=round(word.start, TIME_DIGITS),
                    end=round(word.end, TIME_DIGITS),
                    confidence=round(word.confidence, TIME_DIGITS),
                    punctuated_word=word.full if self._style.has_punctuation else None,
                    language=detected,
                )
                for word in words
            ],
        )
        start, end = round(piece.start, TIME_DIGITS), round(piece.end, TIME_DIGITS)
        results = Results(
            channel_index=self._index(channel),
            start=start,
            duration=round(end - start, TIME_DIGITS),
            is_final=piece.is_final,
            speech_final=piece.speech_final and request.has_endpoints,
            from_finalize=piece.from_finalize,
            channel=messages.ResultsChannel(alternatives=[alternative]),
            metadata=self._metadata,
        )
        return _telling(results, droppable=not piece.is_final)

    def _index(self, channel: int) -> list[int]:
        return [channel, self._request.channels]


def iso(when: datetime) -> str:
    """A time as the vendor writes it: UTC, to the millisecond."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def _telling(body: BaseModel, *, droppable: bool = False) -> Telling:
    return Telling(body.model_dump_json(exclude_none=True), droppable, is_precious=not droppable)


def _fault(error: dict[str, object]) -> messages.Fault:
    return messages.Fault(variant=str(error["code"]), description=f"{error['message']} {error['hint']}")
