"""A server that runs: whether it answers, what it says of itself, whose clock is right, and whether a call works."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from email.utils import parsedate_to_datetime
from fractions import Fraction
from typing import Any

import aiohttp
import numpy as np
from av.audio.frame import AudioFrame

from mediaserver.errors import VoiceForgeError
from mediaserver.ingest.container import OPUS_FRAME_SAMPLES, OPUS_RATE
from mediaserver.settings import Settings
from mediaserver.version import VERSION
from signaling.caller import FRAME_S, Call, CallTrack
from signaling.client_key import VARIABLE, key_headers
from signaling.doctor.finding import Check, Finding, failed, fine, skipped, warned
from signaling.own_server import own_server

HTTP_S = 5.0
"""For one small answer, from the other side of the world."""

CALL_S = 60.0
"""For a call of two seconds, and a server that loads its model for it on a slow disk."""

SPOKEN_S = 1.0
"""What the call says: a second of silence, enough for packets to have arrived."""

SKEW_WARNING_S = 5.0
SKEW_FAILURE_S = 60.0
"""Tokens and credentials live 60 s at least: a clock that is further off makes some of them worthless."""

BODY_MAX_BYTES = 256 * 1024

REFUSALS = frozenset({"INVALID_API_KEY", "INSUFFICIENT_PERMISSIONS"})
"""What a server answers that is one of ours and does not know who asks."""

OWN_SERVER = ("--no-model-fetch", "--no-calibrate", "--jobs-concurrency", "0")
"""A server that is there for one call: it fetches nothing, tries nothing out, and leaves recordings to others."""


def node_checks(settings: Settings, *, url: str | None) -> list[Check]:
    """The checks of this subject.

    Args:
        settings: of the node.
        url: of the server to ask; that of the settings if None, where one listens.
    """
    return [
        Check("server", lambda: check_server(settings, url), 3 * HTTP_S),
        Check("clock", lambda: check_clock(url)),
        Check("call", lambda: check_call(settings, url), CALL_S),
    ]


def url_of(settings: Settings) -> str:
    """Where a server with these settings is reached from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - not bound
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"


async def says_voiceforge(settings: Settings) -> bool:
    """Whether what answers where a server with these settings listens is a VoiceForge server."""
    with suppress(aiohttp.ClientError, TimeoutError, ValueError):
        async with _session(of_this_machine=True) as http:
            told = await _json(http, f"{url_of(settings)}/api/v1/config")
        return told.get("name") == "VoiceForge" or refusal_of(told) is not None
    return False


def refusal_of(told: Mapping[str, Any]) -> str | None:
    """What a VoiceForge server says that does not tell this client of itself; None: it tells, or is another program."""
    error = told.get("error")
    if isinstance(error, dict) and error.get("code") in REFUSALS:
        return str(error.get("message"))
    return None


def _session(*, of_this_machine: bool) -> aiohttp.ClientSession:
    """For plain requests, with the key of the command line. A certificate names no address of this machine."""
    return aiohttp.ClientSession(headers=key_headers(), connector=aiohttp.TCPConnector(ssl=not of_this_machine))


async def check_server(settings: Settings, url: str | None) -> Finding:
    """Whether the server lives, and whether it takes sessions."""
    base = (url or url_of(settings)).rstrip("/")
    async with _session(of_this_machine=url is None) as http:
        try:
            async with http.get(f"{base}/healthz", timeout=_timeout(), allow_redirects=False) as response:
                if response.status != 200:
                    return failed(
                        f"{base}/healthz answers with status {response.status}.",
                        "Is it a VoiceForge server, and what is in front of it?",
                    )
            async with http.get(f"{base}/readyz", timeout=_timeout(), allow_redirects=False) as response:
                ready = response.status == 200
                why = (await _body(response)).get("reasons", [])
            told = await _json(http, f"{base}/api/v1/config")
        except aiohttp.ClientConnectorCertificateError as exc:
            return failed(f"The certificate of {base} is not trusted: {exc.certificate_error}.", "Renew it.")
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            if url is None:
                return skipped(f"No server runs at {base}: start `voiceforge serve`, or give --url.")
            return failed(
                f"{base} does not answer: {str(exc) or 'too late'}.", "Start it, or check the address and proxies."
            )
    refused = refusal_of(told)
    if refused is None and told.get("name") != "VoiceForge":
        return failed(f"What answers at {base} is no VoiceForge server.", "Check the address.")
    if not ready:
        reasons = ", ".join(str(reason) for reason in why) or "it does not say why"
        return failed(f"{base} lives but takes no sessions: {reasons}.", "Wait, or look at its log.")
    if refused is not None:
        text = f"{base} takes sessions, but not with what this command has. {refused}"
        return warned(text, f"Set {VARIABLE} to a key of scope `stream`.")
    text = f"{base} takes sessions (VoiceForge {told.get('version')}, model {told.get('model')})."
    if told.get("version") != VERSION:
        return warned(text, f"This command is of version {VERSION}.")
    return fine(text)


async def check_clock(url: str | None) -> Finding:
    """How far the server's clock is from this machine's."""
    if url is None:
        return skipped("With --url the server's clock is compared with this machine's.")
    async with aiohttp.ClientSession() as http:
        try:
            asked_s = time.time()
            async with http.get(f"{url.rstrip('/')}/healthz", timeout=_timeout(), allow_redirects=False) as response:
                answered_s = time.time()
                said_s = parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (aiohttp.ClientError, TimeoutError):
            return skipped("The server does not answer.")
        except (KeyError, ValueError):
            return skipped("The server's answers have no Date.")
    skew_s = skew(said_s, asked_s, answered_s)
    text = f"The server's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's."
    hint = "Set both by NTP: tokens and TURN credentials expire by the clock."
    if abs(skew_s) >= SKEW_FAILURE_S:
        return failed(text, hint)
    return warned(text, hint) if abs(skew_s) >= SKEW_WARNING_S else fine("The server's clock agrees with ours.")


def skew(said_s: float, asked_s: float, answered_s: float) -> float:
    """How far a clock is ahead that said whole seconds between question and answer; 0 if it may agree."""
    if said_s > answered_s:
        return said_s - answered_s
    return min(0.0, said_s + 1.0 - asked_s)


async def check_call(settings: Settings, url: str | None) -> Finding:
    """Whether a real call gets through, as a browser makes it, to a server that runs or to one for this alone."""
    async with AsyncExitStack() as stack:
        base = url
        # With TLS a call wants the name in the certificate, which --url says.
        if base is None and settings.tls_certificate is None and await says_voiceforge(settings):
            base = url_of(settings) if key_headers() or not await _asks_for_key(settings) else None
        where = "the server"
        if base is None:
            where = "a server started for it"
            try:
                base = await stack.enter_async_context(own_server(OWN_SERVER))
            except VoiceForgeError as exc:
                return failed(exc.message, "Mend what the other lines say first.")
        events: list[str] = []

        def hear(event: Mapping[str, Any]) -> None:
            events.append(str(event.get("type")))

        track = SilentTrack(SPOKEN_S)
        try:
            await Call(url=base, track=track, language=None, on_event=hear).run(asyncio.Event())
        except VoiceForgeError as exc:
            hint = f"Set {VARIABLE} to a key of scope `stream`." if exc.code in REFUSALS else exc.hint
            return failed(f"A call to {where} failed: {exc.message}", hint)
    if "ready" not in events or "closed" not in events:
        return failed(f"A call to {where} connected but heard only {', '.join(events) or 'nothing'}.", "See its log.")
    return fine(f"A call to {where} connected, and its events came.")


async def _asks_for_key(settings: Settings) -> bool:
    with suppress(aiohttp.ClientError, TimeoutError, ValueError):
        async with _session(of_this_machine=True) as http:
            return refusal_of(await _json(http, f"{url_of(settings)}/api/v1/config")) is not None
    return False


class SilentTrack(CallTrack):
    """A track that says nothing, for a while.

    Args:
        duration_s: after which all is said.
    """

    def __init__(self, duration_s: float) -> None:
        super().__init__()
        self._frames = int(duration_s / FRAME_S)
        self._sent = 0

    async def recv(self) -> AudioFrame:
        """The next frame, at its time."""
        await asyncio.sleep(FRAME_S)
        frame = AudioFrame.from_ndarray(np.zeros((1, OPUS_FRAME_SAMPLES), np.int16), format="s16", layout="mono")
        frame.sample_rate = OPUS_RATE
        frame.time_base = Fraction(1, OPUS_RATE)
        frame.pts = self._sent * OPUS_FRAME_SAMPLES
        self._sent += 1
        if self._sent >= self._frames:
            self.finished.set()
        return frame


def _timeout() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=HTTP_S)


async def _json(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.get(url, timeout=_timeout(), allow_redirects=False) as response:
        return await _body(response)


async def _body(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """A JSON object of bounded size; an empty one where it is something else."""
    raw = bytearray()
    async for chunk in response.content.iter_chunked(BODY_MAX_BYTES):
        raw += chunk
        if len(raw) > BODY_MAX_BYTES:
            return {}
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
