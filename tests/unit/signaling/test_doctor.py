"""`voiceforge doctor`: a line for each thing that can be wrong, and a status that a script can go by."""

from __future__ import annotations

import asyncio
import ctypes
import json
import shutil
import socket
import ssl
from collections import namedtuple
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mediaserver.errors import VoiceForgeError
from mediaserver.settings import Settings
from mediaserver.version import VERSION
from signaling.caller import Call
from signaling.cli import main
from signaling.cli.knobs import knobs
from signaling.doctor import machine, node, ports
from signaling.doctor.all_checks import all_checks
from signaling.doctor.finding import Check, Finding, Report, Status, examine, failed, fine, skipped, warned
from signaling.doctor.machine import check_device, check_disk, check_libopus, check_models
from signaling.doctor.node import check_call, check_clock, check_server, skew
from signaling.doctor.ports import check_announced_address, check_http_port, check_udp_ports
from signaling.doctor.relays import check_stun, entries_of

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine."""
    monkeypatch.chdir(tmp_path)
    for knob in knobs():
        monkeypatch.delenv(knob.variable, raising=False)


# How checks are run


async def test_all_checks_are_run_at_once_and_none_ends_the_others() -> None:
    both = asyncio.Barrier(2)

    async def meets() -> Finding:
        await both.wait()
        return fine("It met the other.")

    async def hangs() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    async def breaks() -> Finding:
        raise ZeroDivisionError("nought")

    async def refuses() -> Finding:
        raise VoiceForgeError("CODE", "It is so.", "Do this.")

    checks = [
        Check("a", meets),
        Check("b", meets),
        Check("c", hangs, limit_s=0.05),
        Check("d", breaks),
        Check("e", refuses),
    ]
    told: list[Report] = []
    reports = await examine(checks, on_done=told.append)
    assert [report.name for report in reports] == ["a", "b", "c", "d", "e"]
    assert {report.name for report in told} == set("abcde")
    assert [str(report.finding.status) for report in reports] == ["ok", "ok", "failed", "failed", "failed"]
    assert "did not end within 0.05 s" in reports[2].finding.message
    assert "ZeroDivisionError: nought" in reports[3].finding.message
    assert (reports[4].finding.message, reports[4].finding.hint) == ("It is so.", "Do this.")


# The machine


async def test_a_missing_model_is_named_with_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(VoiceForgeError) as caught:
        await check_models(Settings(model="large-v3", model_dir=tmp_path))
    assert "voiceforge models fetch large-v3" in caught.value.hint


async def test_a_damaged_model_is_named(tmp_path: Path, model_files: Any) -> None:
    damaged = tmp_path / "tiny.en"
    shutil.copytree(model_files.directory, damaged)
    (damaged / "config.json").write_text("{}")
    with pytest.raises(VoiceForgeError) as caught:
        await check_models(Settings(model_dir=tmp_path))
    assert caught.value.code == "MODEL_CORRUPT"


async def test_models_that_are_here_are_fine(model_dir: Path, model_files: object, vad_model_path: Path) -> None:
    assert (await check_models(Settings(model_dir=model_dir))).status is Status.OK


async def test_a_gpu_that_is_asked_for_and_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_loads", lambda library: False)
    finding = await check_device(Settings(device="cuda"))
    assert finding.status is Status.FAILED
    assert "libcuda.so.1 does not load" in finding.message
    finding = await check_device(Settings(device="auto"))
    assert finding.status is Status.OK
    assert "on the CPU" in finding.message
    assert "libcuda.so.1 does not load" in finding.message
    assert "libcuda" not in (await check_device(Settings(device="cpu"))).message


def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = {"libcuda.so.1"}
    monkeypatch.setattr(machine, "_loads", lambda library: library in loading)
    monkeypatch.setattr(machine.ctranslate2, "get_cuda_device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is `-1`" in str(machine.why_no_cuda())
    monkeypatch.setattr(machine.ctranslate2, "get_cuda_device_count", lambda: 1)
    assert "libcublas.so.12 does not load" in str(machine.why_no_cuda())
    loading.update(machine.CUDA_LIBRARIES)
    assert machine.why_no_cuda() is None


async def test_an_arithmetic_that_the_device_lacks_is_a_failure() -> None:
    with pytest.raises(VoiceForgeError) as caught:
        await check_device(Settings(device="cpu", compute_type="float16"))
    assert caught.value.code == "UNSUPPORTED_COMPUTE_TYPE"


async def test_an_engine_that_does_not_listen_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "engine"
    assert (await check_device(Settings(engine_socket=path))).status is Status.FAILED
    listening = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
    assert (await check_device(Settings(engine_socket=path))).status is Status.OK
    listening.close()


async def test_a_missing_libopus_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check_libopus()).status is Status.OK

    def missing() -> ctypes.PyDLL:
        raise VoiceForgeError("LIBOPUS_MISSING", "libopus was not found.", "Install it.")

    monkeypatch.setattr(machine, "load_libopus", missing)
    (report,) = await examine([Check("libopus", machine.check_libopus)], on_done=lambda report: None)
    assert (report.finding.status, report.finding.hint) == (Status.FAILED, "Install it.")


@pytest.mark.parametrize(
    ("free", "status"), [(10**11, Status.OK), (10**9, Status.WARNING), (10**8, Status.FAILED), (0, Status.FAILED)]
)
async def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, status: Status) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(10**12, 0, free))
    settings = Settings(model_dir=tmp_path / "models", data_dir=tmp_path / "not" / "yet")
    assert (await check_disk(settings)).status is status


async def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    finding = await check_disk(Settings(model_dir=tmp_path, data_dir=tmp_path))
    assert finding.status is Status.FAILED
    assert "cannot be written" in finding.message


# Ports and addresses


@pytest.fixture
def taken() -> Iterator[int]:
    """A TCP and UDP port of loopback that is in use."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        udp.bind(tcp.getsockname())
        yield tcp.getsockname()[1]


async def test_a_taken_port_is_a_failure_and_a_free_one_is_not(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await check_http_port(Settings(port=0))).status is Status.OK

    async def silent(*_arguments: object) -> bool:
        return False

    monkeypatch.setattr(ports, "says_voiceforge", silent)
    finding = await check_http_port(Settings(port=taken))
    assert finding.status is Status.FAILED
    assert "taken by another program" in finding.message


async def test_a_port_that_our_own_server_has_is_fine(server: Serve) -> None:
    url = await server({"/api/v1/config": {"name": "VoiceForge"}})
    finding = await check_http_port(Settings(port=int(url.rpartition(":")[2])))
    assert finding.status is Status.OK
    assert "runs there" in finding.message


@pytest.mark.parametrize("host", ["192.0.2.250", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_a_failure(host: str) -> None:
    assert (await check_http_port(Settings(host=host, port=0))).status is Status.FAILED


async def test_udp_ports_that_are_taken_or_too_few(taken: int) -> None:
    assert (await check_udp_ports(Settings())).status is Status.OK
    finding = await check_udp_ports(Settings(udp_port_min=taken, udp_port_max=taken + 9, max_sessions=11))
    assert finding.status is Status.WARNING
    assert "of 10 UDP ports" in finding.message
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other_family:
        other_family.bind(("::1", taken))
        finding = await check_udp_ports(Settings(udp_port_min=taken, udp_port_max=taken, max_sessions=1))
    assert finding.status is Status.FAILED
    assert "No UDP port" in finding.message


@pytest.mark.parametrize(
    ("settings", "local", "status", "said"),
    [
        ({}, ["127.0.0.1"], Status.OK, "loopback only"),
        ({"host": "0.0.0.0"}, ["192.31.196.7"], Status.OK, "own address 192.31.196.7"),
        ({"host": "0.0.0.0"}, ["10.0.0.7", "fd00::7"], Status.WARNING, "no public address (10.0.0.7, fd00::7)"),
        ({"host": "0.0.0.0", "announced_address": "192.31.196.7"}, ["10.0.0.7"], Status.OK, "are told 192.31.196.7"),
        ({"host": "0.0.0.0", "announced_address": "10.0.0.8"}, ["10.0.0.7"], Status.WARNING, "is not a public one"),
        ({"host": "0.0.0.0", "announced_address": "169.254.1.1"}, ["10.0.0.7"], Status.FAILED, "can send to"),
        ({"host": "0.0.0.0", "announced_address": "0.0.0.0"}, ["10.0.0.7"], Status.FAILED, "can send to"),
        ({"host": "0.0.0.0", "announced_address": "2620:4f:8000::7"}, ["10.0.0.7"], Status.FAILED, "is IPv6"),
        ({"announced_address": "192.31.196.7"}, ["127.0.0.1"], Status.FAILED, "taken on loopback only"),
    ],
)
async def test_the_announced_address(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], local: list[str], status: Status, said: str
) -> None:
    monkeypatch.setattr(ports, "local_addresses", lambda options: local)
    finding = await check_announced_address(Settings(**settings))
    assert finding.status is status
    assert said in finding.message


# A server that runs


Serve = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Serve]:
    """Serves JSON by path; returns the URL."""
    servers: list[TestServer] = []

    async def serve(bodies: dict[str, Any], *, status: dict[str, int] | None = None, date: str | None = None) -> str:
        async def answer(request: web.Request) -> web.Response:
            headers = {} if date is None else {"Date": date}
            if request.path not in bodies:
                return web.Response(status=404, headers=headers)
            return web.json_response(
                bodies[request.path], status=(status or {}).get(request.path, 200), headers=headers
            )

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        servers.append(TestServer(app))
        await servers[-1].start_server()
        return str(servers[-1].make_url("")).rstrip("/")

    yield serve
    for one in servers:
        await one.close()


def well(**changes: Any) -> dict[str, Any]:
    """What a server says that is well."""
    config = {"name": "VoiceForge", "version": VERSION, "model": "tiny.en", **changes}
    return {"/healthz": {}, "/readyz": {"reasons": []}, "/api/v1/config": config}


async def test_a_server_that_is_well(server: Serve) -> None:
    finding = await check_server(Settings(), await server(well()))
    assert finding.status is Status.OK
    assert "model tiny.en" in finding.message
    finding = await check_server(Settings(), await server(well(version="0.0.1")))
    assert finding.status is Status.WARNING


@pytest.mark.parametrize(
    ("bodies", "status", "said"),
    [
        ({}, {}, "/healthz answers with status 404"),
        (well(name="other"), {}, "is no VoiceForge server"),
        ({**well(), "/api/v1/config": []}, {}, "is no VoiceForge server"),
        (
            {**well(), "/readyz": {"reasons": ["the model is loading"]}},
            {"/readyz": 503},
            "takes no sessions: the model is loading",
        ),
    ],
)
async def test_a_server_that_is_not_well(server: Serve, bodies: Any, status: dict[str, int], said: str) -> None:
    finding = await check_server(Settings(), await server(bodies, status=status))
    assert finding.status is Status.FAILED
    assert said in finding.message


async def test_a_server_that_asks_for_a_key_is_one_of_ours(server: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {"error": {"code": "INVALID_API_KEY", "message": "The request has no key.", "hint": ""}}
    url = await server({**well(), "/api/v1/config": refused}, status={"/api/v1/config": 401})
    finding = await check_server(Settings(), url)
    assert finding.status is Status.WARNING
    assert "takes sessions" in finding.message
    assert "VOICEFORGE_API_KEY" in finding.hint
    settings = Settings(host="127.0.0.1", port=int(url.rpartition(":")[2]))
    assert (await check_http_port(settings)).status is Status.OK


async def test_the_key_of_the_command_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response(well().get(request.path, {}))

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    served = TestServer(app)
    await served.start_server()
    monkeypatch.setenv("VOICEFORGE_API_KEY", "vf_a_b")
    assert (await check_server(Settings(), str(served.make_url("")))).status is Status.OK
    await served.close()
    assert seen[-1] == "Bearer vf_a_b"


def test_a_server_with_a_certificate_is_looked_for_by_https(tmp_path: Path) -> None:
    files = {"tls_certificate": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    assert node.url_of(Settings(host="0.0.0.0", port=8443, **files)) == "https://127.0.0.1:8443"


async def test_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (tmp_path / "both.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")
    served = TestServer(web.Application(), scheme="https")
    await served.start_server(ssl=context)
    finding = await check_server(Settings(), str(served.make_url("")))
    await served.close()
    assert finding.status is Status.FAILED
    assert "certificate" in finding.message


async def test_a_server_that_does_not_answer(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert (await check_server(Settings(), url)).status is Status.FAILED
    assert (await check_server(Settings(port=unused_tcp_port), None)).status is Status.SKIPPED
    assert (await check_clock(url)).status is Status.SKIPPED


@pytest.mark.parametrize(
    ("ahead_s", "status"), [(0, Status.OK), (10, Status.WARNING), (-10, Status.WARNING), (3600, Status.FAILED)]
)
async def test_a_clock_that_is_wrong(server: Serve, ahead_s: int, status: Status) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    assert (await check_clock(await server(well(), date=date))).status is status
    assert (await check_clock(None)).status is Status.SKIPPED


@pytest.mark.parametrize(
    ("said_s", "expected"), [(100.0, 0.0), (99.0, 0.0), (100.5, 0.0), (103.0, 2.5), (96.0, -3.0), (98.9, -0.1)]
)
def test_a_date_of_whole_seconds_is_held_to_no_more_than_it_says(said_s: float, expected: float) -> None:
    assert skew(said_s, asked_s=100.0, answered_s=100.5) == pytest.approx(expected)


async def test_a_call_that_fails_says_what_the_server_said(server: Serve) -> None:
    finding = await check_call(Settings(), await server(well()))
    assert finding.status is Status.FAILED
    assert "A call to the server failed" in finding.message


async def test_a_call_without_events_is_a_failure(server: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_call: Call, _stop: asyncio.Event) -> None:
        return

    monkeypatch.setattr(Call, "run", run)
    finding = await check_call(Settings(), await server(well()))
    assert finding.status is Status.FAILED
    assert "heard only nothing" in finding.message


async def test_a_server_that_cannot_be_started_for_a_call_is_a_failure(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_arguments: object) -> AbstractAsyncContextManager[str]:
        raise VoiceForgeError("SERVER_FAILED", "The server did not start.", "Try it.")

    monkeypatch.setattr(node, "own_server", fails)
    finding = await check_call(Settings(port=unused_tcp_port), None)
    assert finding.status is Status.FAILED
    assert "The server did not start." in finding.message


# STUN without a server; with one, see tests/integration


@pytest.mark.parametrize(
    ("settings", "seen", "status"),
    [
        ({"host": "0.0.0.0"}, "192.31.196.7", Status.WARNING),
        ({"host": "0.0.0.0"}, "10.0.0.7", Status.OK),
        ({}, "192.31.196.7", Status.OK),
        ({"host": "0.0.0.0", "announced_address": "192.31.196.7"}, "192.31.196.7", Status.OK),
        ({"host": "0.0.0.0", "announced_address": "192.31.196.7"}, "192.31.196.8", Status.WARNING),
    ],
)
async def test_the_address_that_a_stun_server_sees(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], seen: str, status: Status
) -> None:
    from signaling.doctor import relays
    from stun_turn.probe import Seen

    async def answer(_url: object) -> Seen:
        return Seen((seen, 1234), 0.01)

    monkeypatch.setattr(relays, "ask_stun", answer)
    monkeypatch.setattr(relays, "local_addresses", lambda options: ["10.0.0.7"])
    chosen = Settings(ice_servers=[{"urls": "stun:stun.example"}], **settings)
    assert (await check_stun(chosen, entries_of(chosen)[0])).status is status


def test_without_stun_and_turn_there_is_nothing_to_ask() -> None:
    names = [check.name for check in all_checks(Settings(), url=None)]
    assert names == [
        *("models", "device", "libopus", "disk", "http port", "udp ports", "announced address"),
        *("database", "redis", "stun", "turn", "server", "clock", "call"),
    ]


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments], prog_name="voiceforge", terminal_width=120)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the checks find."""

    def find(**findings: Finding) -> None:
        async def look(finding: Finding) -> Finding:
            return finding

        def checks(settings: Settings, *, url: str | None) -> list[Check]:
            return [Check(name, lambda finding=finding: look(finding)) for name, finding in findings.items()]

        monkeypatch.setattr("signaling.doctor.all_checks.all_checks", checks)

    return find


def test_a_line_for_each_check_with_a_mark_and_a_hint(found: Callable[..., None]) -> None:
    found(a=fine("A is well."), b=warned("B is odd.", "Look at B."), c=skipped("No C."))
    result = run("--port", "9000")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "✓ settings: They are valid; not only defaults: --port.",
        "✓ a: A is well.",
        "! b: B is odd. Look at B.",
        "– c: No C.",
    ]


def test_a_failure_is_status_1(found: Callable[..., None]) -> None:
    found(a=fine("A is well."), b=failed("B is broken.", "Mend B."))
    result = run()
    assert result.exit_code == 1
    assert "✗ b: B is broken. Mend B." in result.output


def test_json_for_programs(found: Callable[..., None]) -> None:
    found(a=failed("A is broken.", "Mend A."))
    result = run("--json")
    assert result.exit_code == 1
    told = json.loads(result.output)
    assert told["ok"] is False
    assert [check["name"] for check in told["checks"]] == ["settings", "a"]
    assert {key: told["checks"][1][key] for key in ("status", "message", "hint")} == {
        "status": "failed",
        "message": "A is broken.",
        "hint": "Mend A.",
    }
    assert told["checks"][1]["seconds"] >= 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "http", "VOICEFORGE_PORT cannot be 'http'"),
        ("TURN_URLS", '["turn:a"]', "needs `turn_secret`"),
        ("ICE_SERVERS", '[{"urls": "http://a"}]', "Entry 1 of `ice_servers` is wrong"),
    ],
)
def test_settings_that_cannot_be_are_a_finding(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"VOICEFORGE_{variable}", value)
    result = run("--json")
    assert result.exit_code == 1
    (check,) = json.loads(result.output)["checks"]
    assert (check["name"], check["status"]) == ("settings", "failed")
    assert said in check["message"]


def test_secrets_are_named_and_not_shown(found: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEFORGE_TURN_SECRET", secret := "a-secret-of-the-test")
    found()
    output = run().output
    assert "VOICEFORGE_TURN_SECRET" in output
    assert secret not in output


def test_a_url_that_is_none_is_status_2() -> None:
    assert run("--url", "voice.example").exit_code == 2
