"""`voiceforge bench …` and `python -m benchmarks …`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from platformdirs import user_cache_path

from benchmarks import accuracy as accuracy_
from benchmarks import calibration as calibration_
from benchmarks import capacity as capacity_
from benchmarks import invention, languages, memory, noise, overload, silent, sockets, turns
from benchmarks import latency as latency_
from benchmarks import policy as policy_
from benchmarks import recordings as recordings_
from benchmarks.cli_load import load, soak
from benchmarks.command import Measure, common
from benchmarks.peers import contenders
from benchmarks.peers import measure as peers_
from benchmarks.variants import VARIANTS


@click.group()
def bench() -> None:
    """Measure accuracy, latency, capacity and cost on this machine.

    Each command prints a table and writes NAME.json, NAME.md and NAME.png under --out. Speech comes from --data, a
    folder with a manifest.jsonl (else $VOICEFORGE_DATA); without one, a little synthetic speech is used, which shows
    that things run and is no measure of accuracy. Leave the machine alone while one runs. A command ends with status 1
    if a promise was broken: lost audio, stable text that changed, invented words.
    """


@bench.command()
@click.option("--category", "categories", multiple=True, help="Only this category of the corpus; repeatable.")
@click.option("--collection", "collections", multiple=True, help="Only this published set, as its folder is called.")
@click.option("--language", "languages", multiple=True, help="Only this language code; repeatable.")
@click.option("--limit", type=click.IntRange(1), help="Most recordings per category.")
@click.option("--at-once", type=click.IntRange(1), default=2, show_default=True, help="Sessions at a time.")
@click.option("--paced", is_flag=True, help="Play in real time with interims, as live audio comes.")
@common
def accuracy(**own: Any) -> Measure:
    """Word errors of streaming finals against offline.

    Every recording is transcribed by a session of its own and, as a yardstick, by faster-whisper over the whole file
    (beam 5, the same weights). WER by category, the difference and its 95 % interval. Takes about 0.15 s per second of
    audio on two cores with tiny.en (--short: about a minute); --paced takes the audio's length ÷ --at-once.
    """
    return lambda job: accuracy_.measure(job, **own)


@bench.command()
@click.option(
    "--speakers",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 2),
    show_default=True,
    help="How many speak at once; repeatable.",
)
@click.option("--seconds", "seconds_each", type=click.FloatRange(5), help="Audio of each speaker in seconds.")
@common
def latency(**own: Any) -> Measure:
    """First text, word and final latency, flicker, WER and CPU.

    Speakers read distinct utterances with 0.6–1.2 s of room noise between them, in real time. Word latency: from a
    word's end in the audio to the moment from which it stays on screen unchanged. Final latency: from the end of speech
    to its final. Flicker: share of displayed words that later change. Takes about 70 s per number of speakers
    (--short: 40 s).
    """
    return lambda job: latency_.measure(job, **own)


@bench.command()
@click.option("--start", type=click.IntRange(1), default=2, show_default=True, help="First number of speakers.")
@click.option("--most", type=click.IntRange(1), default=256, show_default=True, help="Largest number to try.")
@click.option("--seconds", "seconds_each", type=click.FloatRange(5), help="Audio of each speaker in seconds.")
@click.option(
    "--bound",
    "bound_s",
    type=click.FloatRange(0.1),
    default=capacity_.BOUND_S,
    show_default=True,
    help="Word latency in seconds that 95 % of the words must keep.",
)
@common
def capacity(**own: Any) -> Measure:
    """The most speakers at once with p95 word latency under 1.5 s.

    The number is doubled until the bound breaks, then narrowed down. Takes 4 to 8 runs of about 45 s (--short: 25 s).
    """
    return lambda job: capacity_.measure(job, **own)


@bench.command("invention")
@click.option("--seconds", "seconds_each", type=click.FloatRange(2), help="Length of each noise in seconds.")
@click.option("--without-vad", is_flag=True, help="Decode everything, as for a client that turns the VAD off.")
@common
def invention_(**own: Any) -> Measure:
    """Words written where nobody speaks; must be none.

    Silence, white and pink noise, hum, comfort noise, clicks, keys, doors, coughs and telephone tones are made here;
    the corpus adds street, rain, music and the like, ten minutes of each, at levels that step and swell. Babble is told
    apart: it consists of voices. Takes about 3 minutes on two cores (--short: a minute of each, 30 s).
    """
    return lambda job: invention.measure(job, **own)


@bench.command("noise")
@click.option("--limit", type=click.IntRange(1), help="Most recordings.")
@click.option("--snr", "ratios_db", type=float, multiple=True, help="Signal-to-noise ratio in dB; repeatable.")
@common
def noise_(**own: Any) -> Measure:
    """Word errors in noise, with and without denoising.

    Read speech is mixed with white noise, babble and the corpus's noises at some signal-to-noise ratios and transcribed
    with each noise suppressor, heard by the VAD alone or by the decoder too. Takes about 4 minutes on two cores with
    tiny.en (--short: a minute).
    """
    return lambda job: noise.measure(job, **own)


@bench.command()
@click.option("--category", "categories", multiple=True, help="Only this category of the corpus; repeatable.")
@click.option("--collection", "collections", multiple=True, help="Only this published set, as its folder is called.")
@click.option("--language", "languages", multiple=True, help="Only this language code; repeatable.")
@click.option("--limit", type=click.IntRange(1), help="Most recordings per category.")
@click.option("--at-once", type=click.IntRange(1), default=2, show_default=True, help="Sessions at a time.")
@click.option("--fit", "fit_curves", is_flag=True, help="Print the curves that these recordings give.")
@common
def calibration(**own: Any) -> Measure:
    """How far confidence can be believed, and where words lie.

    Each word of interims, finals and what remains of them is right or wrong by its recording's reference; expected
    calibration error, Brier score and AUC of the raw probabilities, of a curve fitted on other speakers, and of the
    shipped one. Word boundaries are held against faster-whisper's over the whole file; words out of order or outside
    the audio must be none. Takes about 0.5 s per second of audio on two cores with tiny.en (--short: 2 minutes).
    """
    return lambda job: calibration_.measure(job, **own)


@bench.command("memory")
@click.option(
    "--sessions", type=click.IntRange(1), default=memory.SESSIONS, show_default=True, help="How many at once."
)
@click.option(
    "--minute", "minutes", type=click.IntRange(1), multiple=True, help="Minute of stream to look at; repeatable."
)
@click.option("--without-model", is_flag=True, help="Leave out the minutes that the model decodes.")
@common
def memory_(**own: Any) -> Measure:
    """Memory of a session after an hour, which must be flat.

    Sessions hear an hour of speech with pauses, many times faster than real time, with a decoder that answers at once;
    some minutes more are decoded by the model. Takes about 4 minutes (--short: ten minutes of stream, one minute).
    """
    return lambda job: memory.measure(job, **own)


@bench.command("overload")
@click.option("--speakers", "counts", type=click.IntRange(1), multiple=True, help="How many speak at once; repeatable.")
@click.option("--seconds", "seconds_each", type=click.FloatRange(5), help="Audio of each speaker in seconds.")
@common
def overload_(**own: Any) -> Measure:
    """What gives way beyond capacity; finals and audio must not.

    1, 2, 4, 6, 8, 12 and 16 speakers at once, in real time, while somebody new asks to be let in: how often interims
    come, how late words and finals are, who is refused, and whether Retry-After was true. Takes about 4 minutes
    (--short: 2, 8 and 16 speakers, 80 s).
    """
    return lambda job: overload.measure(job, **own)


@bench.command()
@click.option("--speakers", type=click.IntRange(1), default=8, show_default=True, help="How many speak at once.")
@click.option("--seconds", "seconds_each", type=click.FloatRange(5), help="Audio of each speaker in seconds.")
@click.option(
    "--variant",
    "names",
    type=click.Choice(list(VARIANTS)),
    multiple=True,
    help="Only this variant, by its name; repeatable.  [default: all]",
)
@common
def policy(**own: Any) -> Measure:
    """WER, word latency and cost of other ways to decode.

    Real sessions and the real model in virtual time: a decode takes what a model of its cost says, so that a busy
    machine changes nothing, and variants of the policy are compared on the same audio. Takes, for a variant, about
    0.3 s per second of audio on one core: 25 minutes for all with eight speakers of 40 s (--short: four variants,
    two speakers, a minute). Add --set cpu_threads=N for the cores of the modelled machine.
    """
    return lambda job: policy_.measure(job, **own)


@bench.command()
@click.option("--minutes", type=click.FloatRange(0.5), help="Length of the recording.  [default: 60; --short: 5]")
@click.option(
    "--pipeline",
    "names",
    type=click.Choice(recordings_.CONTENDERS),
    multiple=True,
    help="Only this pipeline, by its name; repeatable.  [default: all]",
)
@common
def recordings(**own: Any) -> Measure:
    """How fast and how well a long recording is transcribed.

    The corpus's long recordings, one after another in one file, go through the pipeline of uploads and jobs, and
    through faster-whisper's batched pipeline and its one pass, with the same weights, threads and beam. Takes 20
    minutes on two cores with tiny.en (--short: 2).
    """
    return lambda job: recordings_.measure(job, **own)


@bench.command("turns")
@click.option("--limit", type=click.IntRange(1), help="Most recordings per category.")
@common
def turns_(**own: Any) -> Measure:
    """Cuts within what somebody says, and the wait after it.

    Silences of 200 to 1500 ms and the end-of-turn model (`turn_detection`), played over what the VAD hears in read
    speech, conversations, telephone prompts and other languages. Nothing is decoded and nothing paced. Takes 0.4 s per
    recording (--short: 30 s).
    """
    return lambda job: turns.measure(job, **own)


@bench.command("languages")
@click.option("--category", "categories", multiple=True, help="Only this category of the corpus; repeatable.")
@click.option("--limit", type=click.IntRange(1), help="Most recordings of each language.")
@click.option("--switches", type=click.IntRange(1), help="Sessions whose speaker changes language.")
@common
def languages_(**own: Any) -> Measure:
    """Which language is heard, how soon, and what a change of it costs.

    Needs a multilingual model (--model base). Sessions that are told no language transcribe recordings in many, and
    joined ones whose speaker changes language; whole files, told their language, are the yardstick. Takes 10 minutes
    with base on two cores (--short: 3).
    """
    return lambda job: languages.measure(job, **own)


@bench.command("silent")
@click.option(
    "--streams",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 10, 50, 100),
    show_default=True,
    help="How many are connected at once; repeatable.",
)
@click.option("--seconds", "seconds_each", type=click.FloatRange(2), help="Length of each run in seconds.")
@common
def silent_(**own: Any) -> Measure:
    """CPU of connected streams in which nobody speaks.

    Comfort noise goes through session and VAD; the driver's own cost is measured alone and subtracted. Takes 45 s per
    number of streams (--short: 20 s).
    """
    return lambda job: silent.measure(job, **own)


@bench.command("sockets")
@click.option(
    "--idle", type=click.IntRange(1), default=sockets.IDLE, show_default=True, help="How many connections say nothing."
)
@click.option(
    "--speakers", "streams", type=click.IntRange(1), default=sockets.STREAMS, show_default=True, help="How many speak."
)
@common
def sockets_(**own: Any) -> Measure:
    """What the native WebSocket costs.

    The time from a connect to `ready`, the CPU of idle connections, and that of audio by WebSocket beside the same
    audio given to sessions directly. Takes about 6 minutes (--short: 2).
    """
    return lambda job: sockets.measure(job, **own)


@bench.command()
@click.option(
    "--rival",
    "names",
    type=click.Choice(sorted(contenders.PLANS)),
    multiple=True,
    default=tuple(contenders.PLANS),
    show_default=True,
    help="Which servers to measure beside VoiceForge; repeatable.",
)
@click.option(
    "--speakers",
    "counts",
    type=click.IntRange(1),
    multiple=True,
    help="Numbers of speakers to try, upwards until the bound breaks; repeatable.  [default: doubled, then narrowed]",
)
@click.option(
    "--most", type=click.IntRange(1), default=peers_.MOST, show_default=True, help="Largest number of speakers to try."
)
@click.option("--seconds", "seconds_each", type=click.FloatRange(5), help="Audio of each speaker in seconds.")
@click.option(
    "--bound",
    "bound_s",
    type=click.FloatRange(0.1),
    default=peers_.BOUND_S,
    show_default=True,
    help="Word latency in seconds that 95 % of the words must keep.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    default=user_cache_path("voiceforge") / "peers",
    help="Folder for the environments and logs of the other servers.  [default: the user's cache]",
)
@common
def peers(**own: Any) -> Measure:
    """Speakers at once, beside WhisperLive and WhisperLiveKit.

    Installs both, once, each into an environment of its own (4 GB; more where pip finds only the CUDA build of
    PyTorch), starts them and VoiceForge one after another, and raises the number of speakers, who read the same
    audio in real time, until p95 word latency breaks the bound. Takes about 30 minutes (--short: one mode of each,
    10 minutes) and, the first time, some for the installation.
    """
    return lambda job: peers_.measure(job, **own)


bench.add_command(load)
bench.add_command(soak)
