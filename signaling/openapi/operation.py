"""The description of one route: a value beside its handler, of the types that the handler itself uses.

A content, a header or a part of a path is a type as pydantic takes it: a model, `str`, `Annotated[int, Field(…)]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, WithJsonSchema

from signaling.problems import Problem

AnyHandler = TypeVar("AnyHandler", bound=Callable[..., object])

JSON = "application/json"

RetryAfter = Annotated[int, Field(ge=0, description="Seconds after which another attempt may succeed.")]


class ServerSentEvent(BaseModel):
    """One event of a `text/event-stream`; its `data` is JSON."""

    id: str | None = Field(None, description="What `Last-Event-ID` gives back.")
    event: str | None = Field(None, description="Its kind; `message` if left out.")
    data: str | None = Field(None, description="A JSON object; none where there is only a comment or `retry`.")
    retry: int | None = Field(None, description="Milliseconds after which a client that was cut off comes again.")


BytesOfFile = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]
"""A file in a form, or a body of audio: its bytes as they are."""


class Tag(StrEnum):
    """Which protocol a route belongs to; the value is its heading."""

    NATIVE = "Native"
    WHIP = "WHIP"
    RECORDINGS = "Recordings"
    DEEPGRAM = "Deepgram"
    OPENAI = "OpenAI"
    SERVER = "Server"


class Access(StrEnum):
    """Who may call a route (`signaling.auth.guard`). The first three are scopes of keys."""

    STREAM = "stream"
    JOBS = "jobs"
    ADMIN = "admin"
    ANY = "any"
    """Whoever comes with a key or token that is good for something."""
    METRICS = "metrics"
    """Anybody, or only keys, by the setting `metrics_need_key`."""
    URL = "url"
    """Whoever knows the URL, which nobody guesses."""
    OPEN = "open"
    """Anybody."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries.

    Args:
        description: one sentence.
        content: type by content type.
        is_required: whether a request without one is refused.
    """

    description: str
    content: Mapping[str, object]
    is_required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is no refusal.

    Args:
        description: one sentence.
        content: type by content type; none where there is no body.
        headers: type by name of the header.
    """

    description: str
    content: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """How a protocol writes a refusal.

    Args:
        model: of the body.
        code_at: names that lead to the code in it; none where there is no code to branch on.
        in_small_letters: whether codes are written so.
    """

    model: type[BaseModel]
    code_at: tuple[str, ...] = ()
    in_small_letters: bool = False


NATIVE_ERRORS = ErrorShape(Problem, ("error", "code"))


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusals of one status.

    Args:
        status: of the response.
        codes: which codes come with it, all of them.
        headers: type by name of the header.
    """

    status: HTTPStatus
    codes: Sequence[str]
    headers: Mapping[str, object] = field(default_factory=dict)


FOREIGN = Refusal(HTTPStatus.FORBIDDEN, ("HOST_NOT_ALLOWED", "ORIGIN_NOT_ALLOWED"))
"""What every route says to a page of elsewhere (`signaling.limits.Gate`)."""

UNKNOWN = Refusal(HTTPStatus.UNAUTHORIZED, ("INVALID_API_KEY",), headers={"WWW-Authenticate": str})
UNKNOWN_TO_DEEPGRAM = Refusal(HTTPStatus.UNAUTHORIZED, ("INVALID_AUTH",), headers={"WWW-Authenticate": str})
"""What a route says to who has no key, or one that is good for nothing (`signaling.auth.guard`)."""

NOT_PERMITTED = "INSUFFICIENT_PERMISSIONS"
"""What it says beside `FOREIGN` to who has one that is good for something else."""

TOO_MANY = Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    ("TOO_MANY_SESSIONS", "TOO_MANY_NEW_SESSIONS", "MINUTES_USED_UP"),
    headers={"Retry-After": RetryAfter},
)
"""What such a route says to a key that has used up what it may (`signaling.auth.limiter`)."""

UNRECORDED = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, ("AUDIT_AWAY",), headers={"Retry-After": RetryAfter})
"""What a route of administrators says while the audit log cannot be written (`signaling.seeing.audit`)."""

NO_SESSION_NOW = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    ("MODEL_LOADING", "ENGINE_DOWN", "OVERLOADED", "SERVER_FULL", "SHUTTING_DOWN", "STATE_AWAY", "STATE_FULL"),
    headers={"Retry-After": RetryAfter},
)
"""What a route says that opens sessions (`signaling.limits.Admission`)."""


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of message in a conversation.

    Args:
        name: unique in its conversation.
        summary: one sentence.
        payload: its type.
        content_type: of the message; audio is `application/octet-stream`.
    """

    name: str
    summary: str
    payload: object
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is said over a WebSocket or a data channel that a route opens.

    Args:
        name: unique in the document.
        title: for people.
        description: what the order of messages is.
        carrier: what carries it.
        from_client: what clients may send.
        from_server: what they are told.
        address: the label of a data channel; the route's own path if None.
    """

    name: str
    title: str
    description: str
    carrier: Literal["ws", "webrtc"]
    from_client: Sequence[Message]
    from_server: Sequence[Message]
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route.

    Args:
        summary: a few words; the handler's docstring is for readers of the code.
        tag: which protocol it belongs to.
        access: who may call it.
        opens_session: whether it opens one: it counts for its key, and uses a join token up.
        audited: the action that a request is in the audit log; None: it is not there as such (`seeing.audit_door`).
        description: what a client needs to know beyond the types; CommonMark.
        query: the model that the handler reads the query with.
        lists: how the query writes an array: `a=1,2` or `a=1&a=2`.
        path: type by name of each part that the path leaves open; more than one route's, where they share a handler.
        headers: a model of request headers, by alias.
        body: what the request carries.
        answers: by status.
        refusals: in any order, each status once; `FOREIGN` is added to all.
        errors: how refusals are written.
        conversations: what is said over what it opens.
    """

    summary: str
    tag: Tag
    access: Access
    opens_session: bool = False
    audited: str | None = None
    description: str = ""
    query: type[BaseModel] | None = None
    lists: Literal["commas", "repeated"] = "commas"
    path: Mapping[str, object] = field(default_factory=dict)
    headers: type[BaseModel] | None = None
    body: Body | None = None
    answers: Mapping[HTTPStatus, Answer]
    refusals: Sequence[Refusal] = ()
    errors: ErrorShape = NATIVE_ERRORS
    conversations: Sequence[Conversation] = ()


@dataclass(frozen=True, slots=True)
class Undescribed:
    """Why a route is in no document: it is a file of a page, and no interface."""

    reason: str


def described(operation: Operation | Undescribed) -> Callable[[AnyHandler], AnyHandler]:
    """Put a description beside a handler; every route of it has that description."""

    def mark(handler: AnyHandler) -> AnyHandler:
        handler.__dict__[_ATTRIBUTE] = operation
        return handler

    return mark


def description_of(handler: object) -> Operation | Undescribed | None:
    """The description beside a handler, a bound method or a function; None if it has none."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Operation | Undescribed) else None


_ATTRIBUTE = "_voiceforge_operation"
