"""What is said over the WebSocket of `/v1/listen`, both ways."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from mediaserver.settings import MAX_HOTWORDS, HotWord

TIME_DIGITS = 3
"""Decimals of seconds and of probabilities, live and of recordings."""

ChannelIndex = Annotated[
    list[int], Field(min_length=2, max_length=2, description="The channel, from 0, and how many there are.")
]


class WordBody(BaseModel):
    """A word; times are seconds of the stream."""

    word: str = Field(description="Without punctuation, in lower case.")
    start: float
    end: float
    confidence: float = Field(description="How likely the word is right, 0 to 1.")
    punctuated_word: str | None = Field(None, description="With punctuation, where that was asked for.")
    language: str | None = Field(None, description="With `language=multi`.")


class Alternative(BaseModel):
    """A transcript. There is one."""

    transcript: str
    confidence: float
    languages: list[str] | None = Field(None, description="With `language=multi`.")
    words: list[WordBody]


class ResultsChannel(BaseModel):
    """What was heard in a channel."""

    alternatives: list[Alternative]


class ModelInfo(BaseModel):
    """What decodes."""

    name: str = Field(description="The model that the node really has loaded.")
    version: str = Field(description="Of this server.")
    arch: str = "whisper"


class ResultsMetadata(BaseModel):
    """Which request and which model a result is of."""

    request_id: str
    model_info: ModelInfo
    model_uuid: str
    extra: dict[str, str] | None = Field(None, description="The client's own fields.")


class Results(BaseModel):
    """What is heard in [start, start + duration]. What is final is told once, and the next result begins there."""

    type: Literal["Results"] = "Results"
    channel_index: ChannelIndex
    duration: float
    start: float
    is_final: bool
    speech_final: bool = Field(description="Whether it ends with a silence as long as `endpointing`, or by `Finalize`.")
    from_finalize: bool = Field(description="Whether it answers a `Finalize`.")
    channel: ResultsChannel
    metadata: ResultsMetadata


class SpeechStarted(BaseModel):
    """Somebody began to speak; with `vad_events`."""

    type: Literal["SpeechStarted"] = "SpeechStarted"
    channel: ChannelIndex
    timestamp: float


class UtteranceEnd(BaseModel):
    """Nobody has said a word for `utterance_end_ms`; once for each last word."""

    type: Literal["UtteranceEnd"] = "UtteranceEnd"
    channel: ChannelIndex
    last_word_end: float


class StreamMetadata(BaseModel):
    """The last message."""

    type: Literal["Metadata"] = "Metadata"
    transaction_key: str = "deprecated"
    request_id: str
    sha256: str = Field(description="Of the bytes of audio received.")
    created: str = Field(description="When the stream began, ISO 8601.")
    duration: float = Field(description="Seconds of audio.")
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfo]
    tags: list[str] | None = None
    extra: dict[str, str] | None = None


class Fault(BaseModel):
    """Something that went wrong; the stream goes on unless it closes."""

    type: Literal["Error"] = "Error"
    variant: str = Field(description="A code; `SchemaError` for a message that could not be read.")
    description: str
    message: str | None = Field(default=None, description="The message that could not be read, or its beginning.")


class ConfigureSuccess(BaseModel):
    """A `Configure` holds from here on."""

    type: Literal["ConfigureSuccess"] = "ConfigureSuccess"
    request_id: str
    keyterms: list[str] | None = None


class ConfigureFailure(BaseModel):
    """A `Configure` that changed nothing."""

    type: Literal["ConfigureFailure"] = "ConfigureFailure"
    request_id: str
    code: str
    description: str


Keyterms = Annotated[list[str], Field(fail_fast=True)]
"""What is wrong with one of them is enough: with each of ten thousand it would take a tenth of a second."""


class ClientMessage(BaseModel):
    """What a client may say; further fields are left alone, as newer clients may send some."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class KeepAlive(ClientMessage):
    """The client lives, though it sends no audio."""

    type: Literal["KeepAlive"]


class Finalize(ClientMessage):
    """What was received until now is to be final."""

    type: Literal["Finalize"]
    channel: int | None = Field(None, ge=0, description="One channel; all of them if left out.")


class CloseStream(ClientMessage):
    """The audio is over."""

    type: Literal["CloseStream"]


class Configure(ClientMessage):
    """A change while the stream runs."""

    type: Literal["Configure"]
    keyterms: Keyterms | None = Field(
        None, description=f"Replaces the words to expect; at most {MAX_HOTWORDS}. None are expected after `[]`."
    )
    features: dict[str, bool] | None = Field(
        None, description="`punctuate`, `smart_format`, `filler_words`; others can only be switched off."
    )


SaidByClient = Annotated[KeepAlive | Finalize | CloseStream | Configure, Field(discriminator="type")]
CLIENT_MESSAGE: TypeAdapter[SaidByClient] = TypeAdapter(SaidByClient)
KEYTERMS: TypeAdapter[list[HotWord]] = TypeAdapter(
    Annotated[list[HotWord], Field(max_length=MAX_HOTWORDS, fail_fast=True)]
)
