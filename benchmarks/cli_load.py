"""`voiceforge bench load` and `soak`: what many real peers cost, and for how long."""

from __future__ import annotations

from typing import Any

import click

from benchmarks import load as load_
from benchmarks import reels
from benchmarks import soak as soak_
from benchmarks.command import Measure, common


@click.command()
@click.option("--peers", "counts", type=click.IntRange(load_.WARM_UP + 1), multiple=True, help="How many; repeatable.")
@click.option(
    "--silence",
    "silences",
    type=click.Choice((reels.ROOM, reels.MUTED, reels.DTX)),
    multiple=True,
    default=(reels.ROOM, reels.DTX),
    show_default=True,
    help="What those send who say nothing; repeatable: all but the first with the largest number only.",
)
@click.option("--seconds", "seconds_each", type=click.FloatRange(2), help="Length of each step in seconds.")
@click.option(
    "--speakers", type=click.IntRange(0), default=2, show_default=True, help="How many of the most speak at a time."
)
@click.option(
    "--driver-processes", "processes", type=click.IntRange(1), default=1, show_default=True, help="That play the peers."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Of the server.")
@common
def load(**own: Any) -> Measure:
    """CPU and memory of connected peers, and the time until they are in.

    Peers are real to the server (ICE, DTLS, SRTP, data channel); what they send was encoded before. 20, 50 and 100 are
    connected and silent, then some of them speak, then they come all at once. Ctrl-C and SIGTERM tell the steps that
    are over. Takes 5 minutes (--short: 1.5).
    """
    return lambda job: load_.measure(job, **own)


@click.command()
@click.option("--minutes", type=click.FloatRange(0.25), help="How long.  [default: 30; --short: 2]")
@click.option(
    "--load",
    type=click.FloatRange(0.05, 1.0),
    default=soak_.LOAD,
    show_default=True,
    help="Share of the machine that the server is to be kept busy with.",
)
@click.option("--speakers", type=click.IntRange(1), help="How many speak at once.  [default: found, for the load]")
@click.option("--peers", type=click.IntRange(1), default=soak_.PEERS, show_default=True, help="Sessions at a time.")
@click.option(
    "--stays",
    "stays_s",
    type=click.FloatRange(5),
    default=soak_.STAYS_S,
    show_default=True,
    help="Mean seconds of one.",
)
@click.option(
    "--dropped",
    type=click.FloatRange(0, 1),
    default=soak_.DROPPED,
    show_default=True,
    help="Share of sessions whose connection is lost without a word.",
)
@click.option(
    "--returning",
    type=click.FloatRange(0, 1),
    default=soak_.RETURNING,
    show_default=True,
    help="Share of those that come back after 1 to 5 s, and resume.",
)
@click.option(
    "--driver-processes", "processes", type=click.IntRange(1), default=1, show_default=True, help="That play the peers."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Of the server.")
@common
def soak(**own: Any) -> Measure:
    """Half an hour at 80 % load: memory flat, no final lost.

    Sessions come, speak, go or are dropped, and some of these come back; memory, files, loop lag and every final are
    watched. Ctrl-C and SIGTERM tell what there is; each look is written to soak.jsonl under --out as it comes. Takes
    --minutes and two more to begin and end.
    """
    return lambda job: soak_.measure(job, **own)
