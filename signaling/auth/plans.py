"""Plans: limits of keys by a name. They stand in the settings, so that changing one changes all of its keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mediaserver.errors import ConfigError
from signaling.auth.principal import KeyLimits

PLAN_LETTERS = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Plans:
    """The plans of a node.

    Args:
        tables: limits by name, as the settings have them.

    Raises:
        ConfigError: INVALID_PLAN: a name or a limit that is none.
    """

    def __init__(self, tables: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._plans = {name: _limits(name, table) for name, table in (tables or {}).items()}

    def limits(self, plan: str | None, own: Mapping[str, Any]) -> KeyLimits | None:
        """What holds for a key: what it says itself, then what its plan says.

        Args:
            plan: its plan's name, None where it has none.
            own: its own limits.

        Returns:
            None where this node does not know the plan: nobody knows then how much the key may use.
        """
        if plan is None:
            return KeyLimits.model_validate(own)
        of_plan = self._plans.get(plan)
        if of_plan is None:
            return None
        return KeyLimits.model_validate({**of_plan.model_dump(exclude_none=True), **own})

    def require(self, plan: str | None) -> None:
        """Refuse a plan that is not there.

        Raises:
            ConfigError: INVALID_KEY.
        """
        if plan is not None and plan not in self._plans:
            known = ", ".join(sorted(self._plans)) or "none"
            raise ConfigError(
                "INVALID_KEY",
                f"There is no plan {plan[:64]!r}.",
                f"Plans stand in the setting `plans`; there is {known}.",
            )


def _limits(name: str, table: Mapping[str, float]) -> KeyLimits:
    if not PLAN_LETTERS.fullmatch(name):
        raise ConfigError(
            "INVALID_PLAN", f"`plans`: {name[:64]!r} is no name of a plan.", "Use 1 to 64 letters of A–Z, a–z, 0–9, ._-"
        )
    try:
        return KeyLimits.model_validate(dict(table))
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            "INVALID_PLAN",
            f"`plans`: `{name}.{field}`: {problem['msg']}.",
            f"A plan has {', '.join(KeyLimits.model_fields)}.",
        ) from exc
