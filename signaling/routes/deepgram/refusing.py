"""Parameters that are known and refused by name, with a sentence that is told to clients and stands in the reference.

Saying that something is not wanted (`diarize=false`) is what happens anyway, and is taken.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from mediaserver.errors import ConfigError

REASON = "x-refused"
"""Where the reason stands in a field's schema."""

OFF = (False, None, "", "false")


def refusal(reason: str) -> PydanticCustomError:
    """Why a value is refused; the parameter's name is put before it."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason})


def switch(reason: str) -> Any:
    """A field for a switch that cannot be switched on."""
    return Field(False, description=f"Refused: {reason}.", json_schema_extra={REASON: reason})


def value(reason: str) -> Any:
    """A field for a value that cannot be given."""
    return Field(None, description=f"Refused: {reason}.", json_schema_extra={REASON: reason})


def values(reason: str) -> Any:
    """A field for values that cannot be given."""
    return Field(default_factory=list, description=f"Refused: {reason}.", json_schema_extra={REASON: reason})


def check(field: FieldInfo, given: object) -> None:
    """Refuse what was given for a field of this module; other fields pass.

    Raises:
        PydanticCustomError: with the reason.
    """
    reason = field.json_schema_extra.get(REASON) if isinstance(field.json_schema_extra, dict) else None
    if reason is not None and any(item not in OFF for item in (given if isinstance(given, list) else [given])):
        raise refusal(str(reason))


def query_error(exc: ValidationError, *, known: list[str]) -> ConfigError:
    """A query that is refused, as one error that names every parameter and what is wrong with it."""
    problems = []
    for item in exc.errors():
        name = f"`{str(item['loc'][0])[:80]}`" if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            problems.append(f"{name} is not a known parameter")
        else:
            problems.append(f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}" if name else item["msg"])
    return ConfigError(
        "INVALID_PARAMETER", "Refused: " + "; ".join(problems) + ".", "Known parameters: " + ", ".join(known) + "."
    )
