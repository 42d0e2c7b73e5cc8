"""Every knob, typed, with its unit and its default.

Order of precedence: command-line flags, environment (`VOICEFORGE_*`), `voiceforge.toml`, default. The descriptions
here are the reference: `voiceforge serve --help` and `docs/settings.md` are made from them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

SETTINGS_FILE = Path("voiceforge.toml")


class Denoise(StrEnum):
    """Noise suppressors; what each costs and does to word errors is in benchmarks/RESULTS.md."""

    OFF = "off"
    SPEEX = "speex"
    SPECTRAL_GATE = "spectral_gate"


class DenoiseBranch(StrEnum):
    """Who hears the denoised signal."""

    VAD = "vad"
    BOTH = "both"


class TurnDetection(StrEnum):
    """What decides that somebody has finished; what each cuts and costs is in benchmarks/RESULTS.md."""

    SILENCE = "silence"
    SEMANTIC = "semantic"


class KeylessAccess(StrEnum):
    """Who is served without a key."""

    AUTO = "auto"
    LOOPBACK = "loopback"
    EVERYONE = "everyone"


class StateAway(StrEnum):
    """What becomes of new sessions while the state that several processes share cannot be reached."""

    REFUSE = "refuse"
    SERVE = "serve"


class WebhookBatch(StrEnum):
    """How many events of a live session go into a webhook."""

    EVENT = "event"
    SESSION = "session"


WebhookEvent = Literal[
    "ready",
    "speech_started",
    "speech_stopped",
    "final",
    "revision",
    "utterance_end",
    "metadata",
    "warning",
    "error",
    "closed",
]
"""What a webhook may tell of a live session: all but interims, which are old before they arrive."""


class Group(StrEnum):
    """Headings of the reference."""

    SERVER = "server"
    WEBRTC = "webrtc"
    AUDIO = "audio"
    DECODER = "decoder"
    SESSION = "session"
    RECORDINGS = "recordings"


def _knob(group: Group, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"group": group.value}, **limits)


Milliseconds = int
"""A duration; each setting names its own limits."""

MAX_PROMPT_LETTERS = 800
"""Whisper takes 223 tokens, about 900 letters of English."""

MAX_HOTWORDS = 100
MAX_HOTWORD_LETTERS = 60
"""Beyond what Whisper takes of them: a bound on what a client may make a node keep and cut."""

HotWord = Annotated[str, Field(min_length=1, max_length=MAX_HOTWORD_LETTERS)]


STRONG_LETTERS = r"[A-Za-z0-9_.~+/=-]{16,256}"
"""Whoever gets credentials can try secrets out against them, off line: a short one is found. These letters stand in
coturn's configuration as they are."""


BASE_OF_URLS = r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[1-9][0-9]{0,4}"


class Settings(BaseSettings):
    """The settings of one node."""

    model_config = SettingsConfigDict(
        env_prefix="VOICEFORGE_",
        toml_file=SETTINGS_FILE,
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    # server
    host: str = _knob(Group.SERVER, "127.0.0.1", "Address to listen on. Anything but loopback is open to the network.")
    port: int = _knob(Group.SERVER, 8080, "TCP port to listen on; 0 takes a free one.", ge=0, le=65535)
    cors_origins: list[str] = _knob(
        Group.SERVER,
        [],
        "Origins (scheme://host:port) whose pages may call this server; the page it serves itself always may.",
    )
    keyless_access: KeylessAccess = _knob(
        Group.SERVER,
        KeylessAccess.AUTO,
        "Who is served without a key: `auto` this machine until the first key is made, then nobody; `loopback` this "
        "machine always; `everyone` whoever reaches the port.",
    )
    trusted_proxies: list[str] = _knob(
        Group.SERVER,
        [],
        "Networks of proxies, as JSON, whose X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239), say where "
        "a request comes from and whether by HTTPS.",
    )
    metrics_need_key: bool = _knob(Group.SERVER, False, "Show /metrics only to who has a key.")
    token_secret: SecretStr | None = _knob(
        Group.SERVER,
        None,
        "What join tokens and grants are signed with, the same for all servers that take each other's; unset, each "
        "makes up its own when it starts.",
        min_length=32,
    )
    plans: dict[str, dict[str, float]] = _knob(
        Group.SERVER,
        {},
        "Limits of keys by the name of a plan, as JSON or as tables `[plans.pro]`: `sessions`, `sessions_per_minute`, "
        "`minutes_per_month`, `session_s`. What a key says of itself counts before its plan.",
    )
    price_per_minute: dict[str, float] = _knob(
        Group.SERVER,
        {},
        "What a minute of audio costs, by model, as JSON; `*` is any other. `MODEL/FEATURE` is the price of a feature: "
        "in place of the model's for `streaming`, `recording` or `translation`, beside it for `denoise` or "
        "`turn_detection`. /api/v1/usage reckons with it.",
    )
    usage_keyless: bool = _knob(
        Group.SERVER,
        False,
        "Count what is used without a key too, for the tenant `local`; otherwise it is not written down at all.",
    )
    usage_keep_days: int = _knob(
        Group.SERVER,
        90,
        "Days for which it is known which session used what; after that only totals of days are kept.",
        ge=1,
        le=3650,
    )
    hsts_max_age_s: int = _knob(
        Group.SERVER,
        0,
        "Seconds for which browsers are told to come by HTTPS only (`Strict-Transport-Security`), where they came by "
        "it; 0 says nothing.",
        ge=0,
        le=63_072_000,
    )
    tls_certificate: Path | None = _knob(
        Group.SERVER, None, "PEM file of the certificate and those between it and its root: HTTPS, TLS 1.2 or later."
    )
    tls_key: Path | None = _knob(Group.SERVER, None, "PEM file of its private key.")
    outbound_allow_private: bool = _knob(
        Group.SERVER,
        False,
        "Fetch recordings from and send webhooks to private networks and this machine too, not only public addresses.",
    )
    max_sessions: int = _knob(Group.SERVER, 64, "Most sessions at once; further ones get 503 with Retry-After.", ge=1)
    workers: int = _knob(
        Group.SERVER,
        1,
        "Processes that sessions are spread over, with one decoder for all; 0 is one a core. 1 is a single process.",
        ge=0,
        le=64,
    )
    node_address: str | None = _knob(
        Group.SERVER,
        None,
        "Where other servers with the same `redis_url` pass requests on to this one, on a port of its own: "
        "http://10.0.0.5:8081, within a private network. With several workers each has the next port.",
    )
    redis_url: SecretStr | None = _knob(
        Group.SERVER,
        None,
        "Redis through which several nodes know of each other, count sessions together and take up each other's: "
        "`redis://host:6379/0`, `rediss://…` with TLS, `unix:///path.sock`, "
        "`redis+sentinel://host:26379,host2:26379/mymaster/0` or `redis+cluster://host:7000,host2:7000`, with a "
        "password as `redis://:password@host`. Needs `token_secret`. Unset: this node is alone.",
    )
    redis_prefix: str = _knob(
        Group.SERVER,
        "voiceforge:",
        "What all names in Redis begin with, the same for all nodes that serve together.",
        pattern=r"^[A-Za-z0-9._:-]{0,64}$",
    )
    state_away: StateAway = _knob(
        Group.SERVER,
        StateAway.REFUSE,
        "What becomes of new sessions while Redis cannot be reached: `refuse` (503 STATE_AWAY), or `serve`, with each "
        "process's own count of what a key may. Running sessions go on either way.",
    )
    drain_s: float = _knob(
        Group.SERVER,
        0.0,
        "Seconds for which running sessions go on once a stop was asked for, and no new ones are taken; "
        "`shutdown_deadline_s` begins after them.",
        ge=0,
        le=86_400,
    )
    shutdown_deadline_s: float = _knob(
        Group.SERVER, 10.0, "Seconds that a stop may take: finals are flushed until then, what is left is cut.", gt=0
    )
    log_level: Literal["debug", "info", "warning", "error"] = _knob(
        Group.SERVER, "info", "Least severe line that is logged."
    )
    log_format: Literal["auto", "json", "console"] = _knob(
        Group.SERVER, "auto", "`json` one object a line, `console` for people, `auto` console on a terminal."
    )

    audit_log: str | None = _knob(
        Group.SERVER,
        None,
        "File to which is appended who did what to which data, as JSON lines; or `stdout` or `stderr`. Unset, nothing "
        "is.",
        min_length=1,
    )
    audit_required: bool = _knob(
        Group.SERVER, True, "Refuse what administrators ask for while the audit log cannot be written."
    )

    disk_reserve_mib: int = _knob(
        Group.SERVER,
        512,
        "Free space in MiB below which /readyz falls, where `data_dir` lies; 0: it does not count.",
        ge=0,
    )
    otlp_endpoint: str | None = _knob(
        Group.SERVER,
        None,
        "Where traces of sessions are sent, by OTLP over HTTP: `http://collector:4318`. Unset, there are none. What "
        "the OTEL_* variables say beside it (service name, attributes, timeout, certificate …) holds.",
    )
    otlp_headers: SecretStr | None = _knob(
        Group.SERVER, None, "Headers that are sent with traces: `name=value,name=value`."
    )
    trace_sample_ratio: float | None = _knob(
        Group.SERVER,
        None,
        "Share of sessions that are traced, where a caller's `traceparent` does not say; unset, OTEL_TRACES_SAMPLER "
        "says, or all are.",
        ge=0,
        le=1,
    )

    # webrtc
    announced_address: str | None = _knob(
        Group.WEBRTC, None, "Public IP address put into candidates in place of the host's own, where a NAT maps it 1:1."
    )
    udp_port_min: int = _knob(Group.WEBRTC, 0, "First UDP port for media; 0 lets the system choose.", ge=0, le=65535)
    udp_port_max: int = _knob(Group.WEBRTC, 0, "Last UDP port for media; 0 lets the system choose.", ge=0, le=65535)
    ice_servers: list[dict[str, Any]] = _knob(
        Group.WEBRTC,
        [],
        'STUN and TURN servers handed to clients, as JSON: [{"urls": ["turn:…"], "username": "…", "credential": "…"}].',
    )
    turn_urls: list[str] = _knob(
        Group.WEBRTC,
        [],
        "TURN servers (`turn:host:3478`, `turns:host:5349?transport=tcp`) that share `turn_secret`: clients get them "
        "with credentials of their own session.",
    )
    turn_secret: SecretStr | None = _knob(
        Group.WEBRTC,
        None,
        "What this server and its TURN servers make and check credentials with (coturn's `static-auth-secret`); "
        "`voiceforge turn secret` makes one.",
    )
    turn_ttl_s: int = _knob(
        Group.WEBRTC,
        600,
        "Seconds within which a client must use its TURN credentials; the relaying that it then has outlives them. "
        "Long enough for a page that was opened before its user speaks, short enough that a leaked one is soon worth "
        "nothing.",
        ge=60,
        le=86_400,
    )
    connect_timeout_s: float = _knob(Group.WEBRTC, 15.0, "Seconds within which a peer must connect.", gt=0)
    first_media_timeout_s: float = _knob(
        Group.WEBRTC, 30.0, "Seconds within which a connected peer must send audio.", gt=0
    )
    media_pause_warning_s: float = _knob(
        Group.WEBRTC,
        15.0,
        "Seconds without packets after which a client is warned (a muted microphone, a call on hold).",
        gt=0,
    )
    media_pause_timeout_s: float = _knob(
        Group.WEBRTC, 600.0, "Seconds without packets after which a session is closed.", gt=0
    )
    ping_timeout_s: float = _knob(
        Group.WEBRTC,
        15.0,
        "Seconds after which a peer that answers no connectivity check or ping counts as gone.",
        gt=0,
    )
    jitter_target_ms: Milliseconds = _knob(
        Group.WEBRTC, 40, "Delay in ms that the jitter buffer starts with.", ge=0, le=200
    )
    jitter_max_ms: Milliseconds = _knob(
        Group.WEBRTC, 200, "Largest delay in ms that the jitter buffer adapts to.", ge=0, le=1000
    )

    # audio
    denoise: Denoise = _knob(
        Group.AUDIO,
        Denoise.OFF,
        "Noise suppressor: `off`, `speex` (cheap, streaming) or `spectral_gate` (noisereduce).",
    )
    denoise_branch: DenoiseBranch = _knob(
        Group.AUDIO,
        DenoiseBranch.VAD,
        "Who hears the denoised signal: the `vad` alone, or `both` it and the decoder, which hears better without.",
    )
    vad_threshold: float = _knob(
        Group.AUDIO, 0.5, "Speech probability from which a frame counts as speech.", gt=0, lt=1
    )
    endpointing_ms: Milliseconds = _knob(Group.AUDIO, 500, "Silence in ms that ends an utterance.", ge=100, le=10_000)
    pre_roll_ms: Milliseconds = _knob(Group.AUDIO, 300, "Audio in ms kept before speech was noticed.", ge=0, le=2000)
    min_speech_ms: Milliseconds = _knob(
        Group.AUDIO, 250, "Shortest speech in ms that is decoded at all.", ge=0, le=2000
    )
    max_utterance_s: float = _knob(
        Group.AUDIO, 20.0, "Longest utterance in seconds; longer speech is cut between words.", ge=5, le=28
    )

    turn_detection: TurnDetection = _knob(
        Group.AUDIO,
        TurnDetection.SILENCE,
        "What ends an utterance: `silence` alone, or also what a model makes of each pause (`semantic`): shorter waits "
        "after finished sentences, longer ones within.",
    )
    turn_model: bool = _knob(
        Group.AUDIO,
        False,
        "Load the end-of-turn model (9 MB) at start, so that sessions may choose `semantic`; "
        "done anyway where that is the node's own setting.",
    )
    turn_complete_ms: Milliseconds = _knob(
        Group.AUDIO, 300, "With `semantic`: silence in ms that ends a finished turn.", ge=200, le=10_000
    )
    turn_incomplete_ms: Milliseconds = _knob(
        Group.AUDIO, 1500, "With `semantic`: silence in ms that ends an unfinished turn.", ge=200, le=10_000
    )
    utterance_end_ms: Milliseconds | None = _knob(
        Group.AUDIO,
        None,
        "Gap in ms after the last word at which `utterance_end` is sent; unset, it is sent with the final.",
        ge=100,
        le=10_000,
    )

    settle_max_ms: Milliseconds = _knob(
        Group.AUDIO,
        5000,
        "With `settled_finals`: longest time in ms for which a final is held until it has settled.",
        ge=500,
        le=30_000,
    )

    # decoder
    model: str = _knob(
        Group.DECODER, "tiny.en", "A catalogued model (`voiceforge models`) or a faster-whisper directory."
    )
    model_dir: Path = _knob(Group.DECODER, user_cache_path("voiceforge") / "models", "Where fetched models are kept.")
    model_fetch: bool = _knob(Group.DECODER, True, "Fetch a missing model at start; otherwise say how to.")
    language: str | None = _knob(
        Group.DECODER, None, "Language code (`en`, `de` …) of all sessions; unset is detected."
    )
    languages: list[str] = _knob(
        Group.DECODER, [], "Codes that detection chooses from, as JSON; none is all that the model knows."
    )
    prompt: str | None = _knob(
        Group.DECODER,
        None,
        "Text before what is heard, in the spelling to go on with, for sessions that give none of their own.",
        max_length=MAX_PROMPT_LETTERS,
    )
    hotwords: list[HotWord] = _knob(
        Group.DECODER,
        [],
        "Words to expect (names, terms), as JSON and as they are to be written, for sessions that give none of their "
        "own.",
        max_length=MAX_HOTWORDS,
    )
    model_aliases: list[str] = _knob(
        Group.DECODER,
        [
            "nova",
            "nova-*",
            "enhanced*",
            "base",
            "base-*",
            "flux-*",
            "whisper-*",
            "gpt-4o-*",
            "gpt-realtime-*",
            "gpt-transcribe*",
            "gpt-live-transcribe*",
        ],
        "Names, as JSON and with `*`, that clients of other vendors' protocols may give for the loaded model; answers "
        "say which model it really was.",
    )
    device: Literal["auto", "cpu", "cuda"] = _knob(
        Group.DECODER, "auto", "Where Whisper runs; `auto` takes CUDA where there is one."
    )
    compute_type: str = _knob(
        Group.DECODER, "default", "CTranslate2 compute type; `default` is int8 on CPU and float16 on CUDA."
    )
    cpu_threads: int = _knob(Group.DECODER, 0, "Cores that decoding may use; 0 is all of them.", ge=0)
    slots: int = _knob(
        Group.DECODER, 0, "Batches decoded at once, which share the cores; 0 chooses. CPU only.", ge=0, le=256
    )
    calibrate: bool = _knob(
        Group.DECODER,
        True,
        "Try out, once a machine and model, how batches share the cores best; it takes 1 to 3 s. CPU only.",
    )
    engine_process: bool = _knob(
        Group.DECODER, False, "Run the decoder in a process of its own, started again when it dies."
    )
    engine_socket: Path | None = _knob(
        Group.DECODER,
        None,
        "Socket of a decoder that already runs (`voiceforge engine`); several servers may share it.",
    )
    max_batch: int = _knob(Group.DECODER, 8, "Most windows decoded in one batch (CUDA wants more).", ge=1, le=256)
    interim_period_ms: Milliseconds = _knob(
        Group.DECODER, 600, "Least time in ms between two interims of a session; it grows by itself under load.", ge=100
    )

    # recordings
    max_recordings: int = _knob(
        Group.RECORDINGS,
        4,
        "Most recordings transcribed at once, 50 MB each; further ones wait, and uploads that somebody waits for get "
        "503 once twice as many are here.",
        ge=1,
    )

    # session
    session_max_s: float = _knob(Group.SESSION, 7200.0, "Longest session in seconds.", gt=0)
    resume_window_s: float = _knob(
        Group.SESSION,
        30.0,
        "Seconds for which a session waits for a client whose connection dropped (docs/resume.md); 0 does not wait.",
        ge=0,
        le=600,
    )
    socket_idle_timeout_s: float = _knob(
        Group.SESSION,
        60.0,
        "Seconds without audio or a message after which a session over a WebSocket ends.",
        gt=0,
        le=3600,
    )
    min_confidence: float = _knob(
        Group.SESSION,
        0.5,
        "Confidence below which a word is marked `low_confidence`; 0 marks none. Words are marked, never left out. "
        "Where the model's confidence is calibrated, 0.5 marks those that are more likely wrong than right.",
        ge=0,
        le=1,
    )

    webhook_url: str | None = _knob(
        Group.SESSION,
        None,
        "Where the events of live sessions are posted, unless a client names another place for its own.",
    )
    webhook_secret: SecretStr | None = _knob(
        Group.SESSION, None, "Signs what is posted to `webhook_url` (HMAC-SHA256).", min_length=16
    )
    webhook_batch: WebhookBatch = _knob(
        Group.SESSION, WebhookBatch.EVENT, "`event`: each is posted by itself; `session`: all of them at its end."
    )
    webhook_events: list[WebhookEvent] = _knob(
        Group.SESSION,
        ["final", "revision", "utterance_end", "metadata", "closed"],
        "Which events of live sessions are posted, as JSON.",
    )
    event_log_kib: int = _knob(
        Group.SESSION,
        512,
        "Text in KiB that is kept of a session's events for those who read them again or later; finals of about half "
        "an hour of speech. What tells of the course of speech is dropped first, then the oldest finals.",
        ge=16,
        le=65_536,
    )
    events_linger_s: float = _knob(
        Group.SESSION, 60.0, "Seconds for which a session's events can be read after its end.", ge=0, le=3600
    )

    # recordings
    data_dir: Path = _knob(
        Group.RECORDINGS,
        user_data_path("voiceforge"),
        "Where uploaded recordings are kept until they are transcribed, and the SQLite database of jobs. "
        "Workers on other machines need the same folder.",
    )
    database_url: str | None = _knob(
        Group.RECORDINGS,
        None,
        "Database of jobs: sqlite:////path/to/jobs.db or postgresql://user:password@host/name; unset is `jobs.db` in "
        "`data_dir`.",
    )
    jobs_broker_url: str | None = _knob(
        Group.RECORDINGS,
        None,
        "Redis (redis://host:6379/0) through which `voiceforge worker` gets jobs; unset, this server runs them itself.",
    )
    jobs_concurrency: int = _knob(
        Group.RECORDINGS,
        2,
        "Most recordings transcribed at once; 0 leaves them to other servers with the same database.",
        ge=0,
        le=64,
    )
    job_keep_s: int = _knob(
        Group.RECORDINGS,
        604_800,
        "Seconds for which ended jobs and their results are kept, where a job does not say.",
        ge=60,
    )
    upload_max_bytes: int = _knob(
        Group.RECORDINGS, 2_147_483_648, "Largest recording in bytes, uploaded or fetched.", ge=1000
    )

    @property
    def jobs_database_url(self) -> str:
        """`database_url`, or SQLite's in `data_dir`."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'jobs.db'}"

    @property
    def wants_turn_model(self) -> bool:
        """Whether this node loads the end-of-turn model."""
        return self.turn_model or self.turn_detection is TurnDetection.SEMANTIC

    @field_validator("announced_address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None:
            ip_address(value)
        return value

    @field_validator("turn_secret")
    @classmethod
    def _secret_is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and re.fullmatch(STRONG_LETTERS, value.get_secret_value()) is None:
            raise ValueError("16 to 256 letters of A–Z, a–z, 0–9 and _.~+/=- are wanted; `voiceforge turn secret`")
        return value

    @model_validator(mode="after")
    def _turn_servers_have_a_secret(self) -> Settings:
        if self.turn_urls and self.turn_secret is None:
            raise ValueError("`turn_urls` needs `turn_secret`: without it clients get no credentials")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ip_network(network, strict=False)
        return value

    @field_validator("node_address")
    @classmethod
    def _is_base_of_urls(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(BASE_OF_URLS, value) is None:
            raise ValueError("http://, an address and a port are wanted, and nothing behind them: http://10.0.0.5:8081")
        if value is not None and (urlsplit(value).hostname or "").strip("0.:") == "":
            raise ValueError("one address is wanted, by which others reach this server: all of them are no way to it")
        return value

    @model_validator(mode="after")
    def _redis_needs_a_secret(self) -> Settings:
        if self.redis_url is not None and self.token_secret is None:
            raise ValueError("`redis_url` needs `token_secret`, the same for all nodes: they take each other's tokens")
        return self

    @model_validator(mode="after")
    def _nodes_share_a_secret(self) -> Settings:
        if self.node_address is not None and self.token_secret is None:
            raise ValueError("`node_address` needs `token_secret`, the same for all: servers know each other by it")
        return self

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Settings:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` belong together: give both, or none")
        return self

    @model_validator(mode="after")
    def _ports_are_a_range(self) -> Settings:
        if bool(self.udp_port_min) != bool(self.udp_port_max) or self.udp_port_min > self.udp_port_max:
            raise ValueError("`udp_port_min` and `udp_port_max` are a range: both 0, or in order")
        return self

    @model_validator(mode="after")
    def _one_engine(self) -> Settings:
        if self.engine_process and self.engine_socket is not None:
            raise ValueError("`engine_process` and `engine_socket` exclude each other: start a decoder, or name one")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags (given to the constructor) win over environment, that over the file, that over defaults."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
