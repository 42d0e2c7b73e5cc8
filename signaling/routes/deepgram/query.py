"""The query of `/v1/listen`: every parameter of the vendor's API works here or is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mediaserver.ingest.bytestream import AudioFormat, Encoding
from mediaserver.ingest.resampler import MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ
from mediaserver.settings import MAX_HOTWORD_LETTERS, MAX_HOTWORDS
from signaling.routes.deepgram import refusing
from signaling.routes.deepgram.refusing import refusal
from signaling.routes.deepgram.style import Style, parse_replacement

MAX_LISTED, MAX_LETTERS = 100, 256
"""Of replacements, tags and extras, and of each: they go out again with answers."""

MIN_ENDPOINTING_MS, MAX_ENDPOINTING_MS = 100, 10_000
"""What sessions take. Silences below 100 ms lie within words."""

MIN_UTTERANCE_END_MS = 1000
"""The vendor's: words are told about a second apart."""

ENCODINGS: Mapping[str, Encoding] = {
    "linear16": Encoding.LINEAR16,
    "linear32": Encoding.FLOAT32,
    "mulaw": Encoding.MULAW,
    "alaw": Encoding.ALAW,
    "opus": Encoding.OPUS,
    "ogg-opus": Encoding.OGG_OPUS,
    "flac": Encoding.FLAC,
}
"""Names of the vendor; its `linear32` is floating point."""

CONTAINER_STARTS = (b"OggS", b"\x1aE\xdf\xa3")
"""Ogg and WebM: clients name the codec in them, `opus`, where the vendor asks them to name nothing."""

NOT_READ = ("amr-nb", "amr-wb", "speex", "g729")

Entry = Annotated[str, Field(min_length=1, max_length=MAX_LETTERS)]


def _encoding(value: str | None) -> str | None:
    if value is None or value in ENCODINGS:
        return value
    known = f"it is one of {', '.join(ENCODINGS)}, or left out for a container"
    raise refusal(f"{value} is not read by this server; {known}" if value in NOT_READ else known)


def _latest(value: str | None) -> str | None:
    if value not in (None, "latest"):
        raise refusal("there is one version of a model, `latest`")
    return value


def _method(value: str) -> str:
    if value.upper() not in ("POST", "PUT"):
        raise refusal("is POST or PUT")
    return value.upper()


def _hot(value: str) -> str:
    """A keyword without its weight, which may only be 1."""
    word, _, weight = value.partition(":")
    if weight and weight not in ("1", "1.0"):
        raise refusal("words cannot be weighed: leave the weight out, or say `:1`")
    return word


def _extra(value: str) -> str:
    if ":" not in value:
        raise refusal("an extra is `key:value`")
    return value


SWITCHED_BY_LATER = "it cannot be done yet; the text is what the model writes"
NOT_DIVIDED = "speakers are not told apart yet; with `multichannel` each channel is"


class ListenQuery(BaseModel):
    """What both ways to listen have."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # not strict: everything in a URL is a string

    model: str | None = Field(
        None, max_length=MAX_LETTERS, description="The loaded model, or a name that the setting `model_aliases` lets."
    )
    version: Annotated[str | None, AfterValidator(_latest)] = Field(
        None, description="Only `latest`: there is one version of a model."
    )
    tier: str | None = refusing.value("it is a part of the model's name: say `nova-2-general` and the like")
    language: str | None = Field(
        None,
        min_length=2,
        max_length=16,
        description="BCP 47 tag, of which the language counts (`en-US`: `en`); `multi` has it detected, utterance by "
        "utterance. Unset is the node's, else `en`.",
    )
    language_hint: list[Entry] = Field(
        default_factory=list, max_length=MAX_LISTED, description="With `language=multi`: languages to choose from."
    )

    encoding: Annotated[str | None, AfterValidator(_encoding)] = Field(
        None, description=f"{', '.join(ENCODINGS)}; unset is a container (WAV, Ogg, WebM, FLAC, MP3 …)."
    )
    sample_rate: int | None = Field(
        None, ge=MIN_RATE_HZ, le=MAX_RATE_HZ, description="Hz; read with `encoding` only, as containers say theirs."
    )
    channels: int = Field(1, ge=1, le=MAX_CHANNELS, description="Channels of the audio, interleaved.")
    multichannel: bool = Field(False, description="Each channel its own transcript; else they are mixed to one.")

    punctuate: bool = Field(False, description="Punctuation and capitals as the model writes them; else neither.")
    smart_format: bool = Field(
        False, description="As `punctuate`: of numbers, dates and money it has what the model itself writes."
    )
    filler_words: bool = Field(
        False, description='English "uh" and "um" are kept where the model writes them, else left out.'
    )
    numerals: bool = refusing.switch(SWITCHED_BY_LATER)
    measurements: bool = refusing.switch(SWITCHED_BY_LATER)
    dictation: bool = refusing.switch(SWITCHED_BY_LATER)
    profanity_filter: bool = refusing.switch("there is no list of words yet; `replace` takes single ones out")
    redact: list[str] = refusing.values("nothing is redacted yet; `replace` takes single words out")
    replace: list[Entry] = Field(
        default_factory=list, max_length=MAX_LISTED, description="`find:put`: words that are replaced in the text."
    )
    search: list[str] = refusing.values("sound is not searched; search the transcript")
    detect_entities: bool = refusing.switch("names and numbers are not told apart yet")

    keyterm: list[Entry] = Field(
        default_factory=list, description="Words to expect, as they are to be written. About 40 count, the first ones."
    )
    keywords: list[Annotated[Entry, AfterValidator(_hot)]] = Field(
        default_factory=list, description="As `keyterm`; of a weight (`word:2`) only 1 is taken."
    )

    diarize: bool = refusing.switch(NOT_DIVIDED)
    diarize_model: str | None = refusing.value(NOT_DIVIDED)
    diarize_version: str | None = refusing.value(NOT_DIVIDED)

    callback: str | None = Field(None, description="URL that results are posted to; requests are tried again.")
    callback_method: Annotated[str, AfterValidator(_method)] = Field("POST", description="POST or PUT.")
    tag: list[Entry] = Field(default_factory=list, max_length=MAX_LISTED, description="Comes back in the metadata.")
    extra: list[Annotated[Entry, AfterValidator(_extra)]] = Field(
        default_factory=list, max_length=MAX_LISTED, description="`key:value`; comes back in the metadata."
    )
    alternatives: int = Field(1, ge=1, le=1, description="Only 1: there is one transcript.")
    mip_opt_out: bool = Field(False, description="Taken; no audio leaves this server or is kept, whatever is said.")

    @field_validator("*")
    @classmethod
    def _refused_by_name(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name is not None:
            refusing.check(cls.model_fields[info.field_name], value)
        return value

    @model_validator(mode="after")
    def _hints_belong_to_detection(self) -> ListenQuery:
        if self.language_hint and self.language != "multi":
            raise refusal("`language_hint` needs `language=multi`")
        return self

    @model_validator(mode="after")
    def _bounded_vocabulary(self) -> ListenQuery:
        name = "keyterm" if self.keyterm else "keywords"
        if len(self.hotwords) > MAX_HOTWORDS:
            raise refusal(f"`{name}` has more than {MAX_HOTWORDS} words")
        if any(not 0 < len(word) <= MAX_HOTWORD_LETTERS for word in self.hotwords):
            raise refusal(f"`{name}` has a word that is empty or longer than {MAX_HOTWORD_LETTERS} letters")
        return self

    @property
    def detects_language(self) -> bool:
        """Whether the language is to be detected."""
        return self.language == "multi"

    @property
    def candidates(self) -> list[str]:
        """What the language is to be one of; none is whatever the model knows."""
        return self.language_hint

    @property
    def hotwords(self) -> list[str]:
        """Words to expect."""
        return [*self.keyterm, *self.keywords]

    @property
    def has_punctuation(self) -> bool:
        """Whether punctuation and capitals stay."""
        return self.punctuate or self.smart_format

    @property
    def style(self) -> Style:
        """How words are written."""
        return Style(
            has_punctuation=self.has_punctuation,
            keeps_fillers=self.filler_words,
            replacements=tuple(parse_replacement(entry) for entry in self.replace),
        )

    @property
    def extras(self) -> dict[str, str]:
        """The client's own fields."""
        return dict(entry.split(":", 1) for entry in self.extra)


class LiveQuery(ListenQuery):
    """The query of the WebSocket."""

    interim_results: bool = Field(False, description="Whether what is not final yet is told too.")
    endpointing: str | None = Field(
        None,
        pattern=r"^(true|false|\d{1,6})$",
        description=f"Silence in ms at which what was said is final, {MIN_ENDPOINTING_MS} at least (less is taken for "
        "that); unset is the node's `endpointing_ms`, as shorter ones cost words. `false`: nothing is `speech_final`.",
    )
    utterance_end_ms: int | None = Field(
        None,
        ge=MIN_UTTERANCE_END_MS,
        le=MAX_ENDPOINTING_MS,
        description="Gap in ms after the last word at which `UtteranceEnd` is sent; needs `interim_results`.",
    )
    vad_events: bool = Field(False, description="Whether `SpeechStarted` is sent.")
    no_delay: bool = Field(True, description="Taken; finals wait for no formatting, whatever is said.")

    @model_validator(mode="after")
    def _gaps_need_interims(self) -> LiveQuery:
        if self.utterance_end_ms is not None and not self.interim_results:
            raise refusal("`utterance_end_ms` needs `interim_results=true`")
        if self.endpointing_ms is not None and self.endpointing_ms > MAX_ENDPOINTING_MS:
            raise refusal(f"`endpointing` is at most {MAX_ENDPOINTING_MS} ms")
        if self.multichannel and self.encoding is None and self.channels == 1:
            raise refusal("`multichannel` of a container needs `channels`: how many it has")
        return self

    @property
    def endpointing_ms(self) -> int | None:
        """The silence that ends an utterance; None is the node's."""
        if self.endpointing is None or not self.endpointing.isdigit():
            return None
        return max(MIN_ENDPOINTING_MS, int(self.endpointing))

    @property
    def has_endpoints(self) -> bool:
        """Whether a silence is told as `speech_final`."""
        return self.endpointing not in ("false", "0")

    @property
    def audio_format(self) -> AudioFormat:
        """What is said of the audio."""
        if self.encoding is None:
            return AudioFormat(None, None, self.channels, self.multichannel)
        return AudioFormat(ENCODINGS[self.encoding], self.sample_rate, self.channels, self.multichannel)

    def container_format(self, head: bytes) -> AudioFormat | None:
        """The format of audio that begins with a container after all; None where it is as was said."""
        if self.encoding == "opus" and head.startswith(CONTAINER_STARTS):
            return AudioFormat(None, None, self.channels, self.multichannel)
        return None


NOT_UNDERSTOOD = "what is said is written down, not judged"


class RecordedQuery(ListenQuery):
    """The query of a recording's POST."""

    detect_language: list[Entry] = Field(
        default_factory=list,
        max_length=MAX_LISTED,
        description="`true` has the language detected, and told; codes are what it is to be one of.",
    )
    paragraphs: bool = Field(
        False, description="Paragraphs by pauses between sentences; they come with `smart_format` too."
    )
    utterances: bool = Field(False, description="Utterances, in order of time, of all channels.")
    utt_split: float = Field(0.8, gt=0, le=60, description="Pause in seconds that ends an utterance.")
    summarize: str | None = refusing.value(NOT_UNDERSTOOD)
    sentiment: bool = refusing.switch(NOT_UNDERSTOOD)
    topics: bool = refusing.switch(NOT_UNDERSTOOD)
    detect_topics: bool = refusing.switch(NOT_UNDERSTOOD)
    intents: bool = refusing.switch(NOT_UNDERSTOOD)
    custom_topic: list[str] = refusing.values(NOT_UNDERSTOOD)
    custom_topic_mode: str | None = refusing.value(NOT_UNDERSTOOD)
    custom_intent: list[str] = refusing.values(NOT_UNDERSTOOD)
    custom_intent_mode: str | None = refusing.value(NOT_UNDERSTOOD)

    @model_validator(mode="after")
    def _possible(self) -> RecordedQuery:
        if self._wants_detection and self.language is not None:
            raise refusal("`detect_language` and `language` exclude each other")
        if self.encoding == "opus":
            raise refusal("`encoding`: packets in a body have no length; send Opus in Ogg or WebM, and no `encoding`")
        if self.encoding in ("linear16", "linear32") and self.sample_rate is None:
            raise refusal(f"`sample_rate` is missing, and {self.encoding} does not say it")
        return self

    @property
    def _wants_detection(self) -> bool:
        return bool(self.detect_language) and self.detect_language[0].lower() != "false"

    @property
    def detects_language(self) -> bool:
        """Whether the language is to be detected."""
        return self.language == "multi" or self._wants_detection

    @property
    def candidates(self) -> list[str]:
        """What the language is to be one of; none is whatever the model knows."""
        return self.language_hint or [code for code in self.detect_language if code.lower() not in ("true", "false")]

    @property
    def has_paragraphs(self) -> bool:
        """Whether the text is divided."""
        return self.paragraphs or self.smart_format

    @property
    def has_punctuation(self) -> bool:
        """Paragraphs are told by punctuation, so it comes with them."""
        return self.punctuate or self.has_paragraphs
