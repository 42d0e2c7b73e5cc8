"""What an operator does at the command line is in the audit log as what an administrator does over HTTP is."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings

T = TypeVar("T")

COMMAND_LINE = "command_line"


async def audited(
    settings: Settings, action: str, work: Callable[[], Awaitable[T]], *, about: Mapping[str, object] | None = None
) -> T:
    """Do something, written down before and after.

    Args:
        settings: `audit_log` says where.
        action: as of `Audit.record`.
        work: does it.
        about: to what, by names without secrets.

    Raises:
        AuditAwayError: it could not be written down, and was not done.
        VoiceForgeError: what `work` raises.
    """
    # Here, for it brings the database, which --help need not wait for.
    from signaling.seeing.audit import STDERR, STDOUT, Audit, Outcome  # noqa: PLC0415

    if settings.audit_log == STDOUT:  # what a command prints is for whoever called it
        settings = settings.model_copy(update={"audit_log": STDERR})
    audit = Audit(settings, actor=COMMAND_LINE)
    who = {"user": _user()}
    try:
        await audit.surely(action, object=about, outcome=Outcome.ASKED, details=who)
        try:
            done = await work()
        except VoiceForgeError as exc:
            audit.record(action, object=about, outcome=Outcome.REFUSED, code=exc.code, details=who)
            raise
        except BaseException:
            audit.record(action, object=about, outcome=Outcome.FAILED, details=who)
            raise
        await audit.surely(action, object=about, details=who)
        return done
    finally:
        await audit.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"
