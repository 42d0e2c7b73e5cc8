"""The description of WHIP's routes (`signaling.routes.whip`)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, Field

from mediaserver.ingest.peer_state import PeerState
from mediaserver.session_config import SessionConfig
from signaling.metadata import METADATA_HEADER
from signaling.openapi.operation import (
    JSON,
    NO_SESSION_NOW,
    UNKNOWN,
    Access,
    Answer,
    Body,
    Conversation,
    Operation,
    Refusal,
    RetryAfter,
    Tag,
)
from signaling.resume.returning import ResumeQuery
from signaling.routes.native_described import PEER_MESSAGES
from signaling.routes.native_events import NATIVE_EVENTS
from signaling.session_webhooks import SECRET_HEADER, SECRET_MAX_LETTERS, SECRET_MIN_LETTERS, URL_HEADER

SDP_TYPE = "application/sdp"
SDPFRAG_TYPE = "application/trickle-ice-sdpfrag"

Offer = Annotated[str, Field(description="An SDP offer (RFC 8866) with audio and, for transcripts, a data channel.")]
Answered = Annotated[str, Field(description="The SDP answer.")]
Fragment = Annotated[str, Field(description="Candidates as RFC 8840 writes them.")]
Secret = Annotated[
    str, Field(description="The last part of the session's URL. Whoever knows it may look at the session and end it.")
]
ETag = Annotated[str, Field(description="Of the ICE session, for PATCH.")]
Location = Annotated[str, Field(description="The session's URL, a secret.")]
Link = Annotated[
    str, Field(description="Where its events can be read (`rel=events`), and ICE servers (`rel=ice-server`).")
]

PATH = {"secret": Secret}

NOT_FOUND = Refusal(HTTPStatus.NOT_FOUND, ("SESSION_NOT_FOUND",))
TIMEOUT = Refusal(HTTPStatus.REQUEST_TIMEOUT, ("BODY_TIMEOUT",))
TOO_LARGE = Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, ("BODY_TOO_LARGE",))

UNSUPPORTED = Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, ("UNSUPPORTED_MEDIA_TYPE",))
NOT_USABLE = Refusal(
    HTTPStatus.UNPROCESSABLE_ENTITY,
    (
        "NO_USABLE_AUDIO",
        "UNSUPPORTED_CODEC",
        "TOO_MANY_AUDIO_TRACKS",
        "TRACKS_INDISTINGUISHABLE",
        "RTCP_MUX_REQUIRED",
        "TOO_MANY_MEDIA_SECTIONS",
        "TOO_MANY_SSRCS",
        "PEER_CLOSED",
    ),
)
"""What an offer is told that cannot be served (`mediaserver.ingest.sdp`)."""

NOT_ANSWERED = ("ANSWER_TIMEOUT", "NO_UDP_PORT")
"""Why one that could be is not, this time."""


def _not_now(*codes: str) -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, codes, headers={"Retry-After": RetryAfter})


NO_RESUMPTION_NOW = _not_now(*NO_SESSION_NOW.codes, "SESSION_MOVING")
"""What a route says to a client that comes back while it is not known yet who goes on with its session."""

NOT_ENDED_NOW = _not_now("SESSION_MOVING", "STATE_AWAY")
"""The same, to one that ends it."""

OFFER = Body("The offer, at most 64 KiB.", {SDP_TYPE: Offer})


def _answer(text: str) -> Answer:
    return Answer(text, {SDP_TYPE: Answered}, {"Location": Location, "ETag": ETag, "Link": Link})


PREFLIGHT_HEADERS = {
    "Accept-Post": Annotated[str, Field(description="What may be posted.")],
    "Accept-Patch": Annotated[str, Field(description="What may be patched.")],
}


class WhipQuery(SessionConfig):
    """The query of an offer: what every session may choose, and what its tracks hold."""

    multichannel: bool = Field(
        False,
        description="Whether the two channels of each Opus track are two people, each with a transcript of its own. "
        "Several tracks are several channels in any case.",
    )

    def session(self) -> SessionConfig:
        """What is said of the session."""
        return SessionConfig.model_validate(self.model_dump(exclude_unset=True, exclude={"multichannel"}))


class OfferHeaders(BaseModel):
    """Headers of an offer that are read."""

    metadata: str | None = Field(
        None,
        validation_alias=METADATA_HEADER,
        description="The client's own fields as a JSON object of texts; where the URL names one too, that counts.",
    )
    webhook: str | None = Field(
        None, alias=URL_HEADER, description="Where the session's events are posted, in place of the node's receiver."
    )
    webhook_secret: str | None = Field(
        None,
        alias=SECRET_HEADER,
        min_length=SECRET_MIN_LETTERS,
        max_length=SECRET_MAX_LETTERS,
        description="Signs what is posted there.",
    )


class TrickleHeaders(BaseModel):
    """Headers of a PATCH that are read."""

    if_match: str = Field(alias="If-Match", description="The `ETag` of the 201.")


CREATE = Operation(
    summary="Open a session with an offer",
    tag=Tag.WHIP,
    access=Access.STREAM,
    opens_session=True,
    description="RFC 9725 section 4.2. The query is the session's configuration. Transcripts come over the data "
    "channel `transcripts`, and for others at `Location` + `/events`.",
    query=WhipQuery,
    headers=OfferHeaders,
    body=OFFER,
    answers={HTTPStatus.CREATED: _answer("The answer; the session is at `Location`.")},
    refusals=[
        Refusal(
            HTTPStatus.BAD_REQUEST,
            (
                "INVALID_SDP",
                "INVALID_CONFIG",
                "INVALID_METADATA",
                "INVALID_WEBHOOK",
                "INVALID_URL",
                "ADDRESS_NOT_ALLOWED",
                "MODEL_NOT_LOADED",
                "UNKNOWN_LANGUAGE",
                "TURN_MODEL_NOT_LOADED",
            ),
        ),
        TIMEOUT,
        TOO_LARGE,
        UNSUPPORTED,
        NOT_USABLE,
        Refusal(HTTPStatus.NOT_IMPLEMENTED, ("DENOISER_NOT_INSTALLED",)),
        _not_now(*NO_SESSION_NOW.codes, *NOT_ANSWERED),
    ],
    conversations=[
        Conversation(
            name="whip",
            title="Data channel of a WHIP session",
            description="`ready` comes first, then what is heard, `metadata` and `closed` at the end. Audio comes by "
            "RTP.",
            carrier="webrtc",
            address="transcripts",
            from_client=PEER_MESSAGES,
            from_server=NATIVE_EVENTS,
        )
    ],
)

RESUME = Operation(
    summary="Go on with a session over another peer connection",
    tag=Tag.WHIP,
    access=Access.URL,
    description="For a client whose connection dropped; its session waits for it. The offer is of a new peer "
    "connection, with as many tracks. What was missed is told again over its data channel, then `resumed`. The time "
    "between is silence. `If-Match` of a PATCH is the new `ETag`.",
    path=PATH,
    query=ResumeQuery,
    body=OFFER,
    answers={HTTPStatus.CREATED: _answer("The answer; the session is at `Location`, which may be another one.")},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_SDP", "INVALID_CONFIG", "INVALID_CURSOR")),
        UNKNOWN,
        NOT_FOUND,
        TIMEOUT,
        Refusal(HTTPStatus.CONFLICT, ("CANNOT_RESUME", "CHANNELS_DIFFER")),
        TOO_LARGE,
        UNSUPPORTED,
        NOT_USABLE,
        _not_now(*NO_RESUMPTION_NOW.codes, *NOT_ANSWERED),
    ],
)

NOTHING = Operation(
    summary="Nothing to see",
    tag=Tag.WHIP,
    access=Access.ANY,
    description="The endpoint has no representation (RFC 9725 section 4.1).",
    answers={HTTPStatus.NO_CONTENT: Answer("No content.")},
)

PREFLIGHT = Operation(
    summary="What may be sent here, and the ICE servers",
    tag=Tag.WHIP,
    access=Access.STREAM,
    description="ICE servers are `Link` headers (`rel=ice-server`), for clients that need them before their offer. "
    "Also the preflight of a page of another origin (CORS), which is told of none.",
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.", headers=PREFLIGHT_HEADERS)},
)

SESSION_PREFLIGHT = Operation(
    summary="What may be sent to a session",
    tag=Tag.WHIP,
    access=Access.OPEN,
    description="Also the preflight of a page of another origin (CORS). The same whether or not there is a session.",
    path=PATH,
    answers={HTTPStatus.NO_CONTENT: Answer("In the headers.", headers=PREFLIGHT_HEADERS)},
)

DESCRIBE = Operation(
    summary="The state of a session",
    tag=Tag.WHIP,
    access=Access.URL,
    audited="session.read",
    description="For a person who looks for a fault.",
    path=PATH,
    answers={HTTPStatus.OK: Answer("Its state.", {JSON: PeerState})},
    refusals=[NOT_FOUND],
)

TRICKLE = Operation(
    summary="Trickle candidates into a session",
    tag=Tag.WHIP,
    access=Access.URL,
    description="RFC 9725 section 4.3.1. ICE restarts are refused.",
    path=PATH,
    headers=TrickleHeaders,
    body=Body("A fragment, at most 16 KiB.", {SDPFRAG_TYPE: Fragment}),
    answers={HTTPStatus.NO_CONTENT: Answer("Taken.")},
    refusals=[
        Refusal(HTTPStatus.BAD_REQUEST, ("INVALID_SDPFRAG",)),
        NOT_FOUND,
        TIMEOUT,
        Refusal(HTTPStatus.PRECONDITION_FAILED, ("PRECONDITION_FAILED",)),
        TOO_LARGE,
        UNSUPPORTED,
        Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, ("ICE_RESTART_UNSUPPORTED",)),
        Refusal(HTTPStatus.PRECONDITION_REQUIRED, ("PRECONDITION_REQUIRED",)),
    ],
)

DELETE = Operation(
    summary="End a session",
    tag=Tag.WHIP,
    access=Access.URL,
    description="Answered once its finals are out and it is closed.",
    path=PATH,
    answers={HTTPStatus.OK: Answer("It has ended.")},
    refusals=[NOT_FOUND, NOT_ENDED_NOW],
)
