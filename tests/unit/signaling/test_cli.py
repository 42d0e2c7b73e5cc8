from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings
from signaling.cli import main
from signaling.cli.captions import Captions
from signaling.cli.knobs import knobs
from signaling.own_server import own_server
from signaling.transcript import Transcript

COMMAND = (sys.executable, "-m", "signaling.cli")
CALL_S = 60
"""A call lasts as long as its recording, 6 s; a busy machine loads the model slowly."""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="voiceforge", terminal_width=120)


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for knob in knobs():
        if knob.name != "model_dir":
            monkeypatch.delenv(knob.variable, raising=False)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


# The root


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"voiceforge \d+\.\d+\.\d+\S*\n", result.output)


def test_all_commands_are_listed_also_those_of_entry_points() -> None:
    output = run("--help").output
    for name in ("serve", "transcribe", "models", "settings", "bench"):
        assert re.search(rf"^  {name} ", output, re.MULTILINE), name


def test_a_command_whose_packages_are_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "benchmarks.cli", None)
    result = run("bench", "latency", "--short")
    assert result.exit_code == 1
    assert "not installed" in result.output
    assert "requirements-dev.lock" in result.output


# serve


def test_help_of_serve_explains_every_setting_with_its_default_and_unit() -> None:
    output = " ".join(run("serve", "--help").output.split())
    for knob in knobs():
        assert (knob.flag in output) is not knob.is_secret, "a secret in a command line is seen by every user"
    for heading in ("Server:", "WebRTC:", "Audio:", "Decoder:", "Sessions:"):
        assert heading in output
    assert "--port VALUE" in output
    assert "at most 65535; default: 8080]" in output
    assert "--endpointing-ms MS" in output
    assert "default: 500 ms]" in output
    assert "--session-max-s SECONDS" in output
    assert "default: 7200 s]" in output
    assert "--device auto|cpu|cuda" in output
    assert "--model-fetch / --no-model-fetch" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "http"), "--port cannot be 'http'"),
        (("--max-batch", "0"), "--max-batch cannot be '0': input should be greater than or equal to 1"),
        (("--device", "tpu"), "--device cannot be 'tpu'"),
        (("--prot", "1"), "--prot"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(arguments: tuple[str, ...], said: str) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.output.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("model", ["tinny.en", "/nowhere/model"])
def test_serve_with_a_model_that_does_not_exist_ends_with_a_sentence_and_a_hint(model: str) -> None:
    process = start("serve", "--port", "0", "--model", model)
    output, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 1
    assert model in errors
    assert ("Did you mean `tiny.en`?" in errors) == (model == "tinny.en")
    assert "Traceback" not in output + errors


def test_serve_on_a_port_in_use_says_which(taken_port: int) -> None:
    process = start("serve", "--port", str(taken_port))
    output, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 1
    assert f"Port {taken_port} is already in use" in errors
    assert "--port" in errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_without_the_audit_log_that_it_must_have_ends_before_it_listens(tmp_path: Path, workers: int) -> None:
    process = start("serve", "--port", "0", "--workers", str(workers), "--audit-log", str(tmp_path))
    output, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 1
    assert f"`audit_log` {tmp_path} cannot be written: is a directory." in errors
    assert "audit_required" in errors
    assert "Traceback" not in output + errors
    assert "http://" not in output + errors


# What transcribe refuses


def test_a_file_that_is_not_audio_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("These are notes.\n" * 20)
    result = run("transcribe", str(path))
    assert result.exit_code == 1
    assert "notes.txt is not audio." in result.output
    assert "FLAC" in result.output


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    result = run("transcribe", str(tmp_path / "gone.wav"))
    assert result.exit_code == 1
    assert "gone.wav" in result.output


def test_a_server_that_does_not_answer_is_named(speech: object, taken_port: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run("transcribe", str(speech.path), "--url", f"http://127.0.0.1:{port}")  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert f"No server answers at http://127.0.0.1:{port}." in result.output


@pytest.mark.parametrize(
    "arguments", [("--url", "127.0.0.1:1"), ("--url", "http://a", "--model", "base"), ("--format", "docx")]
)
def test_options_that_make_no_sense_are_status_2(speech: object, arguments: tuple[str, ...]) -> None:
    assert run("transcribe", str(speech.path), *arguments).exit_code == 2  # type: ignore[attr-defined]


def test_an_output_that_cannot_be_written_is_told_before_the_call(speech: object, tmp_path: Path) -> None:
    result = run("transcribe", str(speech.path), "--output", str(tmp_path / "gone" / "a.srt"))  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert "its folder does not exist" in result.output


def test_an_own_server_that_cannot_start_says_why(speech: object) -> None:
    result = run("transcribe", str(speech.path), "--model", "tinny.en")  # type: ignore[attr-defined]
    assert result.exit_code == 1
    assert "The server did not start." in result.output
    assert "There is no model `tinny.en`." in result.output


# Real calls


def test_a_file_is_written_down_through_a_real_call_to_a_server_of_its_own(
    speech: object, model_files: ModelFiles, vad_model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.json"
    process = start("transcribe", str(speech.path), "--output", str(out))  # type: ignore[attr-defined]
    children = wait_for_children(process)
    output, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 0, errors
    assert output == ""
    made = json.loads(out.read_text())
    expected = words(speech.text)  # type: ignore[attr-defined]
    assert words(made["text"]) == expected
    heard = [word for segment in made["segments"] for word in segment["words"]]
    assert len(heard) == len(expected)
    assert 0 <= heard[0]["start"] < heard[-1]["end"] <= speech.duration_s + 0.7  # type: ignore[attr-defined]
    assert children
    assert not [child for child in children if child.is_running()], "the server is gone"


def test_ctrl_c_ends_the_call_and_writes_what_was_said_so_far(
    speeches: dict[str, object], model_files: ModelFiles, vad_model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.srt"
    recording = speeches["gettysburg-slt"]
    process = start("transcribe", str(recording.path), "--output", str(out))  # type: ignore[attr-defined]
    children = wait_for_children(process)
    wait_until_called(children[0])
    time.sleep(4.0)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 0, errors
    assert time.monotonic() - began < 15
    text = out.read_text()
    assert "new nation" in text.lower()
    assert "civil war" not in text.lower(), "the rest was not sent"
    assert "Traceback" not in output + errors
    assert not [child for child in children if child.is_running()]


def wait_for_children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if children := psutil.Process(process.pid).children():
            return children
        time.sleep(0.05)
    pytest.fail(f"no server was started: {process.communicate()}")


def wait_until_called(server: psutil.Process) -> None:
    """Until the server has UDP sockets: a call has begun."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.net_connections(kind="udp"):
            return
        time.sleep(0.05)
    pytest.fail("no call came")


async def test_the_own_server_is_gone_when_its_user_fails(
    model_files: ModelFiles, vad_model_path: Path, no_leaked_tasks: None
) -> None:
    before = set(psutil.Process().children())

    async def use_and_fail() -> None:
        async with own_server(()) as url:
            assert url.startswith("http://127.0.0.1:")
            raise RuntimeError("user failed")

    with pytest.raises(RuntimeError, match="user failed"):
        await use_and_fail()
    assert set(psutil.Process().children()) <= before


async def test_waiting_for_the_own_server_can_be_cancelled(no_leaked_tasks: None) -> None:
    before = set(psutil.Process().children())

    async def wait() -> None:
        async with own_server(()):
            pytest.fail("not reached")

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(psutil.Process().children()) <= before


async def test_the_own_server_serves_its_user_where_others_would_be_sent_elsewhere(
    model_files: ModelFiles, vad_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOICEFORGE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("VOICEFORGE_DISK_RESERVE_MIB", str(1 << 30))
    async with asyncio.timeout(60), own_server(()) as url, aiohttp.request("GET", f"{url}/readyz") as response:
        assert (await response.json())["codes"] == ["disk_full"]


async def test_a_failing_own_server_gives_its_own_words() -> None:

    async def use() -> None:
        async with own_server(("--model", "tinny.en")):
            pytest.fail("not reached")

    with pytest.raises(VoiceForgeError) as caught:
        await use()
    assert caught.value.code == "SERVER_FAILED"
    assert "tinny.en" in caught.value.message


# What is heard


def final_event(number: int, text: str, start: float) -> dict[str, object]:
    return {
        "type": "final",
        "utterance_id": number,
        "transcript": text,
        "confidence": 0.9,
        "start": start,
        "duration": 1.0,
        "timestamp": start + 1.5,
        "language": "en",
        "language_confidence": None,
        "speaker": None,
        "words": [{"word": text, "start": start, "end": start + 1.0, "confidence": 0.9, "speaker": None}],
    }


def test_a_transcript_is_put_together_from_finals_and_revisions() -> None:
    transcript = Transcript()
    transcript.apply({"type": "interim", "transcript": "hello wor", "stable": "hello"})
    assert (transcript.stable, transcript.unstable) == ("hello", " wor")
    transcript.apply(final_event(2, "world", 3.0))
    transcript.apply(final_event(1, "helo", 1.0))
    revision = final_event(1, "hello", 1.1) | {"type": "revision"}
    transcript.apply(revision)
    transcript.apply(final_event(9, "x", 9.0) | {"type": "revision"})
    transcript.apply({"type": "something_new"})
    transcript.apply({"type": "warning", "error": {"message": "Careful.", "hint": "Do less."}})
    assert [(final.transcript, final.start) for final in transcript.ordered()] == [("hello", 1.1), ("world", 3.0)]
    assert (transcript.stable, transcript.unstable) == ("", "")
    assert transcript.problems == ["Careful. Do less."]
    assert not transcript.complete
    transcript.apply({"type": "metadata"})
    assert transcript.complete


def test_captions_show_finals_by_time_and_the_stable_part_bright() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system="standard", legacy_windows=False)
    captions, transcript = Captions(console, duration_s=10.0), Transcript()
    with captions:
        for event in (final_event(1, "Hello.", 1.0), {"type": "interim", "transcript": "and then", "stable": "and"}):
            transcript.apply(event)
            captions.show(event, transcript)
        captions.position(5.0)
    assert "\x1b[36m    1.0  \x1b[0mHello." in out.getvalue()
    assert "\x1b[1mand\x1b[0m\x1b[2m then\x1b[0m" in out.getvalue()


# Models


def test_models_are_listed_with_licence_state_and_size(model_files: ModelFiles) -> None:
    output = run("models", "list").output
    line = next(line for line in output.splitlines() if line.startswith("tiny.en "))
    assert line.split()[:5] == ["tiny.en", "whisper", "en", "78", "MIT"]
    assert line.split()[-1] in ("fetched", "installed", "cached")
    assert "99 languages" in output
    assert "as first fetched" in output


def test_models_verify_finds_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vad_model_path: Path) -> None:
    monkeypatch.setenv("VOICEFORGE_MODEL_DIR", str(tmp_path))
    assert "No model is here yet" in run("models", "verify").output
    copy = tmp_path / "silero-vad" / vad_model_path.name
    copy.parent.mkdir()
    copy.write_bytes(vad_model_path.read_bytes())
    result = run("models", "verify", "silero-vad")
    assert result.exit_code == 0
    assert "as published" in result.output
    copy.write_bytes(copy.read_bytes()[:-1] + b"X")
    result = run("models", "verify")
    assert result.exit_code == 1
    assert "voiceforge models fetch silero-vad" in result.output


def test_models_path_and_its_failures(model_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("models", "path", "tiny.en").output.strip() == str(model_files.directory)
    monkeypatch.setenv("VOICEFORGE_MODEL_DIR", str(tmp_path))
    result = run("models", "path", "base")
    assert result.exit_code == 1
    assert "voiceforge models fetch base" in result.output
    result = run("models", "path", "tinny.en")
    assert result.exit_code == 1
    assert "Did you mean `tiny.en`?" in result.output


def test_settings_writes_the_reference(tmp_path: Path) -> None:
    out = tmp_path / "settings.md"
    assert run("settings", "--output", str(out)).exit_code == 0
    assert out.read_text() == run("settings").output
    assert "`VOICEFORGE_PORT`" in out.read_text()


@pytest.mark.parametrize("arguments", [("serve", "--help"), ("transcribe", "--help"), ("models", "--help")])
def test_help_comes_without_waiting_for_the_engine(arguments: tuple[str, ...]) -> None:
    code = (
        f"import sys; from signaling.cli import main; main({arguments!r}, standalone_mode=False); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert "ctranslate2" not in done.stdout.split()
    assert "aiortc" not in done.stdout.split()
    assert "torch" not in done.stdout.split()


def test_the_model_directory_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOICEFORGE_MODEL_DIR", str(tmp_path))
    assert Settings().model_dir == tmp_path
    assert os.environ["VOICEFORGE_MODEL_DIR"] == str(tmp_path)
