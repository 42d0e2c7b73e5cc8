"""From the strings of a URL to a query, and from its language to the model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from multidict import MultiMapping
from pydantic import ValidationError

from mediaserver.errors import ConfigError
from signaling.query import repeated_names
from signaling.routes.deepgram.query import ListenQuery
from signaling.routes.deepgram.refusing import query_error

Query = TypeVar("Query", bound=ListenQuery)


def parse_query(model: type[Query], query: MultiMapping[str]) -> Query:
    """What the strings of a URL say; names of the vendor's lists may be repeated.

    Raises:
        ConfigError: INVALID_PARAMETER, naming every parameter that is unknown, refused or wrong.
    """
    listed_names = {name for name, field in model.model_fields.items() if field.default_factory is list}
    repeated = sorted(repeated_names(query, lists=listed_names))
    if repeated:
        raise ConfigError(
            "INVALID_PARAMETER",
            "Refused: " + "; ".join(f"`{name[:80]}` is given more than once" for name in repeated) + ".",
            "Give each parameter once.",
        )
    given_once: dict[str, Any] = {
        name: query.getall(name) if name in listed_names else query[name] for name in dict.fromkeys(query)
    }
    try:
        return model.model_validate(given_once)
    except ValidationError as exc:
        raise query_error(exc, known=sorted(model.model_fields)) from exc


def languages_of(
    query: ListenQuery, *, known: Sequence[str], node_language: str | None
) -> tuple[str | None, list[str] | None]:
    """The language to hear, or those to choose from.

    Args:
        query: of the client.
        known: what the loaded model knows.
        node_language: the node's own; the vendor's default is `en`.

    Raises:
        ConfigError: UNKNOWN_LANGUAGE.
    """
    if not query.detects_language:
        return _code(query.language, known) if query.language else node_language or "en", None
    if len(known) == 1:
        name = "language" if query.language else "detect_language"
        raise ConfigError(
            "UNKNOWN_LANGUAGE",
            f"`{name}`: the loaded model knows {known[0]!r} alone, so there is nothing to detect.",
            "Leave it out, or start a node with a multilingual model.",
        )
    return None, [_code(code, known) for code in query.candidates] or list(known)


def _code(tag: str, known: Sequence[str]) -> str:
    """The model's code for a BCP 47 tag; one that it does not know as it is."""
    whole = tag.lower().replace("_", "-")
    if whole in ("zh-hk", "zh-yue") and "yue" in known:
        return "yue"
    code = whole.split("-")[0]
    return {"nb": "no", "fil": "tl", "iw": "he"}.get(code, code)
