"""What a check found, and how checks are run: all at once, each bounded in time, none able to end the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mediaserver.errors import VoiceForgeError

QUICK_S = 10.0
"""For what asks this machine, or another one a question or two."""


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for an operator.

    Args:
        status: a warning is something that works for some clients only, or not for long.
        message: what was found, one sentence.
        hint: what to do about it; empty where nothing is to be done.
    """

    status: Status
    message: str
    hint: str = ""


def fine(message: str) -> Finding:
    """All is well."""
    return Finding(Status.OK, message)


def warned(message: str, hint: str) -> Finding:
    """It works, but."""
    return Finding(Status.WARNING, message, hint)


def failed(message: str, hint: str) -> Finding:
    """It does not work."""
    return Finding(Status.FAILED, message, hint)


def skipped(message: str) -> Finding:
    """There is nothing to look at."""
    return Finding(Status.SKIPPED, message)


def failed_by(error: VoiceForgeError) -> Finding:
    """What an error of ours says, as a finding."""
    return failed(error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Args:
        name: a few words, the same in every version: programs read them.
        look: does it. A VoiceForgeError that it raises is its finding.
        limit_s: after so many seconds it has failed.
    """

    name: str
    look: Callable[[], Awaitable[Finding]]
    limit_s: float = QUICK_S


@dataclass(frozen=True, slots=True)
class Report:
    """A check and its finding.

    Args:
        seconds: that it took.
    """

    name: str
    finding: Finding
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "name": self.name,
            "status": str(self.finding.status),
            "message": self.finding.message,
            "hint": self.finding.hint,
            "seconds": round(self.seconds, 3),
        }


async def examine(checks: Sequence[Check], *, on_done: Callable[[Report], None]) -> list[Report]:
    """Run all checks at once.

    Args:
        checks: what to look at.
        on_done: told each report as it comes.

    Returns:
        The reports in the order of `checks`.
    """

    async def one(check: Check) -> Report:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        report = Report(check.name, await _bounded(check), loop.time() - began_s)
        on_done(report)
        return report

    return list(await asyncio.gather(*(one(check) for check in checks)))


async def _bounded(check: Check) -> Finding:
    try:
        async with asyncio.timeout(check.limit_s):
            return await check.look()
    except TimeoutError:
        return failed(f"It did not end within {check.limit_s:g} s.", "Look at what it looks at, by hand.")
    except VoiceForgeError as exc:
        return failed_by(exc)
    except Exception as exc:  # a check that breaks is a finding too, and no reason to hide the others
        return failed(f"The check broke: {type(exc).__name__}: {exc}.", "Please report this.")
