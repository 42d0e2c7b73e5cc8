"""The query of a URL as a model: one place for what every protocol of ours refuses in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from mediaserver.errors import ConfigError
from mediaserver.session_config import config_error

Model = TypeVar("Model", bound=BaseModel)


def repeated_names(query: MultiMapping[str], *, lists: Collection[str] = ()) -> list[str]:
    """Names that are given more than once, in the order of the URL.

    Args:
        query: of the URL.
        lists: names that may be.
    """
    return [name for name in dict.fromkeys(query) if name not in lists and len(query.getall(name)) > 1]


def read_query(model: type[Model], query: MultiMapping[str]) -> Model:
    """What the strings of a URL say: booleans are `true` or `false`, numbers decimal, lists separated by commas.

    Raises:
        ConfigError: INVALID_CONFIG, naming every field that is unknown, wrong or given twice.
    """
    repeated = sorted(repeated_names(query))
    if repeated:
        raise ConfigError(
            "INVALID_CONFIG",
            "Configuration refused: " + "; ".join(f"`{name[:80]}`: is given more than once" for name in repeated) + ".",
            "Give each field once.",
        )
    try:
        return model.model_validate_strings(dict(query))
    except ValidationError as exc:
        raise config_error(exc, known=sorted(model.model_fields)) from exc
