"""A worker as a whole program, run by the supervisor."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import sys
from contextlib import suppress

from mediaserver.errors import VoiceForgeError
from signaling.cluster.opening import open_state
from signaling.cluster.served import ServedState
from signaling.parent import Parent, tell_parent
from signaling.seeing.node_metrics import Crew
from signaling.seeing.telemetry import configure_logging
from signaling.serving import Seat, Server, place_of
from signaling.shutdown import SIGNALS, StopSignals
from signaling.workers.order import Order

ALIVE_PERIOD_S = 2.0
"""How often it says that its event loop turns."""

STOP_MARGIN_S = 5.0
"""What a stop may take beyond its deadlines: sockets that are cut, and the end of the interpreter."""

EXIT_FAILED = 1


def run() -> int:
    """Serve until a signal, or the end of the supervisor; returns the exit code."""
    order = Order.from_line(sys.stdin.readline())
    settings = order.settings
    configure_logging(level=settings.log_level, log_format=settings.log_format, about={"worker": order.number})
    # Without the supervisor there is no decoder either, nor what workers share: no use in a long drain.
    parent = Parent(limit_s=settings.shutdown_deadline_s + STOP_MARGIN_S)
    try:
        if not asyncio.run(_serve(order, parent)):
            os._exit(EXIT_FAILED)  # forced: threads that still decode are not waited for
    except VoiceForgeError as exc:
        tell_parent({"failed": exc.as_dict()})
        return EXIT_FAILED
    finally:
        if parent.is_gone:
            shutil.rmtree(order.folder, ignore_errors=True)  # whose it is cannot remove it any more
    return 0


async def _serve(order: Order, parent: Parent) -> bool:
    settings = order.settings
    signals = StopSignals()
    loop = asyncio.get_running_loop()
    for (
        number
    ) in SIGNALS:  # a service's manager may send them to all its processes: the supervisor says what comes next
        loop.add_signal_handler(number, signals.stop.set)
    asked = itertools.count()
    parent.when_asked(lambda: signals.notify() if next(asked) else signals.stop.set())
    parent.when_gone(signals.end_at_once)
    state = open_state(settings) if order.state is None else ServedState(order.state)
    place = place_of(settings, node=order.node, folder=order.folder, number=order.number)
    server = Server(settings, seat=Seat(state, place, Crew(order.number, order.folder)))

    async def inherited() -> list[socket.socket]:
        return [socket.socket(fileno=number) for number in order.ports]

    alive = asyncio.create_task(_say_alive(), name="alive")
    try:
        await server.start(inherited)
        tell_parent({"ready": True, "place": "" if place is None else place.place_id})
        return await server.run(signals, on_loaded=lambda model: tell_parent({"loaded": model}))
    finally:
        alive.cancel()
        await asyncio.gather(alive, return_exceptions=True)
        await state.close()


async def _say_alive() -> None:
    while True:
        with suppress(OSError):
            tell_parent({"alive": True})
        await asyncio.sleep(ALIVE_PERIOD_S)
