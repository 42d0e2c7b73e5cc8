"""How the server stops, in this order:

1. Admit nobody: /readyz says 503, and so does every POST of an offer, with `Retry-After`, unless another server takes
   it. With `drain_s` sessions then go on until they end by themselves, for so long at most, and the port stays open.
2. Close all sessions at once with the reason `shutdown`: finals are flushed, `closed` is said. Where another server can
   go on with them they are handed over instead, and their clients told to connect again.
3. Close the engine and the VAD: nobody needs them any more.
4. Stop HTTP. Last, so that a load balancer can ask /readyz while sessions are being closed.

Steps 2 to 4 share `shutdown_deadline_s`; whatever is not done by then is cut and logged. A second signal forces: the
order is left where it stands.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from signaling.limits import Admission
from signaling.registry import CUT_GRACE_S, Registry

log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)

FLUSH_SHARE = 0.8
"""Share of the deadline that finals may take; the rest is for peers that are cut, the engine and HTTP."""

MIN_STEP_S = 0.5
"""What a later step gets even when the sessions have used up the deadline."""

FORCED_STEP_S = 0.5
"""What the step that is under way gets to let go when a second signal forces."""

READY_GRACE_S = 5.0
"""With `drain_s`: how long a server without sessions stays, so that load balancers have seen that it leaves."""

LOOK_S = 0.1
"""How often a drain looks whether the last session has ended."""

Step = tuple[str, Callable[[], Awaitable[object]]]
"""A name for the log and what it does."""

EndSessions = Callable[[float], Awaitable[None]]


class StopSignals:
    """SIGTERM and SIGINT as events: the first asks, the second forces."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.hurry = asyncio.Event()
        """There is no time to drain."""

    def install(self) -> None:
        """Take the signals over from the running loop's default."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.notify)

    def remove(self) -> None:
        """Give the signals back."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    def notify(self) -> None:
        """What a signal does."""
        if self.stop.is_set():
            self.force.set()
            self.hurry.set()
        self.stop.set()

    def end_at_once(self) -> None:
        """Ask to stop without draining."""
        self.hurry.set()
        self.stop.set()


async def drain(registry: Registry, *, drain_s: float, hurry: asyncio.Event) -> None:
    """Wait for sessions to end by themselves.

    Args:
        registry: where they live; nothing more is admitted.
        drain_s: at most; 0: not at all.
        hurry: set by a second signal, for example.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    if drain_s > 0:
        log.info("draining", live=len(registry), at_most_s=drain_s)
    while not hurry.is_set():
        waited_s = loop.time() - began_s
        if waited_s >= (drain_s if len(registry) else min(drain_s, READY_GRACE_S)):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await hurry.wait()


async def shut_down(
    *,
    admission: Admission,
    registry: Registry,
    then: Sequence[Step],
    deadline_s: float,
    force: asyncio.Event,
    end_sessions: EndSessions | None = None,
) -> bool:
    """Stop in the order above.

    Args:
        admission: closed first.
        registry: whose sessions are closed next.
        then: the further steps in order: engine, VAD, HTTP. A step that fails does not stop those after it.
        deadline_s: for everything together.
        force: set by a second signal.
        end_sessions: within so many seconds; closes them if None.

    Returns:
        False if it was forced and steps were left out.
    """
    admission.stop()
    if end_sessions is None:
        end_sessions = partial(_close_all, registry)
    order = asyncio.create_task(_in_order(registry, end_sessions, then, deadline_s), name="shutdown")
    forced = asyncio.create_task(force.wait(), name="shutdown-forced")
    await asyncio.wait({order, forced}, return_when=asyncio.FIRST_COMPLETED)
    done = order.done()
    for task in (order, forced):
        task.cancel()
    # Bounded: what is being forced may be just what does not listen to its cancellation.
    await asyncio.wait({order, forced}, timeout=FORCED_STEP_S)
    if not done:
        log.warning("shutdown forced", live=len(registry))
    return done


async def _close_all(registry: Registry, deadline_s: float) -> None:
    await registry.close_all("shutdown", deadline_s=deadline_s)


async def _in_order(registry: Registry, end_sessions: EndSessions, then: Sequence[Step], deadline_s: float) -> None:
    loop = asyncio.get_running_loop()
    ends_at_s = loop.time() + deadline_s
    log.info("shutting down", live=len(registry), deadline_s=deadline_s)
    flush_s = deadline_s * FLUSH_SHARE
    await _step(("sessions", lambda: end_sessions(flush_s)), flush_s + CUT_GRACE_S)
    for step in then:
        await _step(step, max(MIN_STEP_S, ends_at_s - loop.time()))
    log.info("stopped")


async def _step(step: Step, limit_s: float) -> None:
    name, act = step
    try:
        async with asyncio.timeout(limit_s):
            await act()
    except TimeoutError:
        log.warning("shutdown step cut", step=name, limit_s=round(limit_s, 1))
    except Exception:
        log.exception("shutdown step failed", step=name)
