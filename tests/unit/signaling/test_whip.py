"""WHIP as a client meets it: RFC 9725 by status and header, and every refusal by its code."""

from __future__ import annotations

import asyncio
import random
import re
import time
from typing import Any

import pytest
from aiohttp import ClientResponse
from front_door import ANSWER, FRAGMENT, OFFER, SDP, FakePeer, Node, StartNode
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from mediaserver.errors import CapacityError, ConfigError, MediaError
from mediaserver.session_config import SessionConfig
from signaling.app import ADMISSION, REGISTRY
from signaling.limits import SDP_MAX_BYTES, SDPFRAG_MAX_BYTES
from signaling.query import read_query
from signaling.routes.whip_operations import WhipQuery
from stun_turn.credentials import issue

FRAG = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def post(node: Node, query: str = "", **kwargs: Any) -> ClientResponse:
    return await node.client.post(f"/whip{query}", **{"data": OFFER, "headers": SDP, **kwargs})


async def opened(node: Node) -> tuple[str, str]:
    """The URL and the entity-tag of a new session."""
    response = await post(node)
    assert response.status == 201
    return response.headers["Location"], response.headers["ETag"]


async def code_of(response: ClientResponse) -> str:
    body = await response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "hint", "retryable"}
    assert body["error"]["message"]
    assert body["error"]["hint"]
    assert "Traceback" not in await response.text()
    return str(body["error"]["code"])


class TestPost:
    async def test_an_offer_becomes_a_session_with_a_url(self, node: Node) -> None:
        response = await post(node)
        assert response.status == 201
        assert response.headers["Content-Type"] == "application/sdp"
        assert await response.text() == ANSWER
        assert response.headers["Location"].startswith("/whip/")
        assert response.headers["ETag"].startswith('"')
        assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        assert response.headers["Cache-Control"] == "no-store"
        assert node.sessions() == 1

    async def test_the_url_is_long_and_tells_nothing_of_the_log_id(self, node: Node) -> None:
        urls = [(await opened(node))[0] for _ in range(3)]
        assert len(set(urls)) == 3
        for url, peer in zip(urls, node.peers, strict=True):
            assert len(url.removeprefix("/whip/")) >= 32
            assert peer.session_id not in url

    async def test_each_ice_server_is_a_link(self, start_node: StartNode) -> None:
        node = await start_node(
            ice_servers=[
                {"urls": "stun:stun.example:3478"},
                {"urls": ["turn:a.example", "turns:b.example"], "username": 'u"1', "credential": "p\\w"},
            ]
        )
        response = await post(node)
        credentials = 'username="u\\"1"; credential="p\\\\w"; credential-type="password"'
        assert response.headers.getall("Link")[1:] == [
            '<stun:stun.example:3478>; rel="ice-server"',
            f'<turn:a.example>; rel="ice-server"; {credentials}',
            f'<turns:b.example>; rel="ice-server"; {credentials}',
        ]

    async def test_each_session_gets_turn_credentials_of_its_own(self, start_node: StartNode) -> None:
        secret = "north-of-the-river-1"
        node = await start_node(turn_urls=["turn:turn.example"], turn_secret=secret, turn_ttl_s=60)
        for number in range(2):
            response = await post(node)
            assert response.headers["Cache-Control"] == "no-store"
            (link,) = response.headers.getall("Link")[1:]
            found = re.fullmatch(
                r'<turn:turn\.example>; rel="ice-server"; username="(\d+):(\S+)"; credential="(\S+)"; '
                'credential-type="password"',
                link,
            )
            assert found is not None, link
            assert abs(int(found[1]) - time.time() - 60) < 30
            assert found[2] == node.peers[number].session_id
            assert found[3] == issue(secret, found[2], ttl_s=0, now_s=int(found[1])).credential

    async def test_the_query_configures_the_session(self, node: Node) -> None:
        await post(node, "?language=en&interim_results=false&endpointing_ms=300&vad_threshold=0.4&denoise=speex")
        config = node.peers[0].config
        assert (config.language, config.interim_results, config.endpointing_ms) == ("en", False, 300)
        assert (config.vad_threshold, config.denoise) == (0.4, "speex")

    async def test_every_wrong_query_field_is_named(self, node: Node) -> None:
        response = await post(node, "?colour=red&endpointing_ms=soon&interim_results=perhaps")
        assert response.status == 400
        body = await response.json()
        assert body["error"]["code"] == "INVALID_CONFIG"
        for field in ("colour", "endpointing_ms", "interim_results"):
            assert f"`{field}`" in body["error"]["message"]
        assert not node.peers

    async def test_a_query_field_given_twice_is_refused(self, node: Node) -> None:
        response = await post(node, "?language=en&language=de")
        assert (response.status, await code_of(response)) == (400, "INVALID_CONFIG")

    async def test_a_webhook_of_its_own_hears_the_session(self, node: Node) -> None:
        headers = {**SDP, "X-VoiceForge-Webhook": "https://crm.example/hook"}
        assert (await post(node, headers=headers)).status == 201
        assert [type(tap).__name__ for tap in node.peers[0].taps] == ["EventLog", "SessionWebhook"]

    @pytest.mark.parametrize(
        ("name", "value", "code"),
        [
            ("X-VoiceForge-Webhook", "ftp://crm.example", "INVALID_URL"),
            ("X-VoiceForge-Webhook", "http://10.0.0.1/", "ADDRESS_NOT_ALLOWED"),
            ("X-VoiceForge-Webhook-Secret", "a secret of sorts", "INVALID_WEBHOOK"),
            ("X-VoiceForge-Metadata", "caller", "INVALID_METADATA"),
            ("X-VoiceForge-Metadata", '{"caller":7}', "INVALID_CONFIG"),
            ("X-VoiceForge-Metadata", '{"caller":"\\ud800"}', "INVALID_CONFIG"),
        ],
    )
    async def test_a_header_that_cannot_be_met_is_refused(self, node: Node, name: str, value: str, code: str) -> None:
        response = await post(node, headers={**SDP, name: value})
        assert (response.status, await code_of(response)) == (400, code)
        assert not node.peers

    async def test_metadata_comes_from_the_header_and_the_query(self, node: Node) -> None:
        headers = {**SDP, "X-VoiceForge-Metadata": '{"caller":"+49 30","call_id":"a7"}'}
        assert (await post(node, '?metadata={"queue":"sales"}', headers=headers)).status == 201
        assert node.peers[0].config.metadata == {"caller": "+49 30", "call_id": "a7", "queue": "sales"}

    @pytest.mark.parametrize(("query", "is_stereo"), [("?multichannel=true", True), ("", False)])
    async def test_the_two_channels_of_a_track_may_be_two_people(self, node: Node, query: str, is_stereo: bool) -> None:
        assert (await post(node, query)).status == 201
        assert node.peers[0].is_stereo is is_stereo
        assert type(node.peers[0].config) is SessionConfig

    @pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/plain"}, {"Content-Type": ";;/%"}])
    async def test_another_content_type_is_415(self, node: Node, headers: dict[str, str]) -> None:
        response = await node.client.post(
            "/whip", data=OFFER.encode(), headers=headers, skip_auto_headers=["Content-Type"]
        )
        assert (response.status, await code_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
        assert response.headers["Accept-Post"] == "application/sdp"

    async def test_content_type_parameters_and_case_do_not_matter(self, node: Node) -> None:
        response = await post(node, headers={"Content-Type": "Application/SDP; charset=utf-8"})
        assert response.status == 201

    async def test_a_compressed_body_is_415(self, node: Node) -> None:
        response = await post(node, headers={**SDP, "Content-Encoding": "br"}, data=b"x")
        assert response.status in (400, 415)  # the parser may refuse the coding before a handler sees it

    @pytest.mark.parametrize("body", [b"", b" \r\n", b"\xff\xfe\x00"])
    async def test_a_body_that_is_no_text_is_400(self, node: Node, body: bytes) -> None:
        response = await post(node, data=body)
        assert (response.status, await code_of(response)) == (400, "INVALID_SDP")
        assert not node.peers

    async def test_a_body_too_large_is_413(self, node: Node) -> None:
        response = await post(node, data=b"v" * (SDP_MAX_BYTES + 1))
        assert (response.status, await code_of(response)) == (413, "BODY_TOO_LARGE")
        assert (await post(node, data=b"v" * SDP_MAX_BYTES)).status == 201

    async def test_a_chunked_body_too_large_is_413(self, node: Node) -> None:
        async def endless() -> Any:
            for _ in range(100):
                yield b"v" * 4096

        response = await post(node, data=endless())
        assert (response.status, await code_of(response)) == (413, "BODY_TOO_LARGE")

    @pytest.mark.parametrize(
        ("code", "status"),
        [
            ("INVALID_SDP", 400),
            ("NO_USABLE_AUDIO", 422),
            ("UNSUPPORTED_CODEC", 422),
            ("TOO_MANY_AUDIO_TRACKS", 422),
        ],
    )
    async def test_what_the_peer_refuses_keeps_its_code(self, start_node: StartNode, code: str, status: int) -> None:
        def refuse(peer: FakePeer) -> None:
            peer.accept_error = MediaError(code, "No.", "Change it.")

        node = await start_node(prepare=refuse)
        response = await post(node)
        assert (response.status, await code_of(response)) == (status, code)
        assert node.peers[0].closed
        assert node.sessions() == 0
        assert node.refused(code) == 1

    async def test_a_config_that_the_node_cannot_meet_is_400(self, start_node: StartNode) -> None:
        def refuse(_peer: FakePeer) -> None:
            raise ConfigError("MODEL_NOT_LOADED", "Not that one.", "Leave it out.")

        node = await start_node(prepare=refuse)
        response = await post(node, "?model=large")
        assert (response.status, await code_of(response)) == (400, "MODEL_NOT_LOADED")
        assert node.sessions() == 0

    async def test_a_full_server_is_503_and_says_when_to_come_back(self, start_node: StartNode) -> None:
        node = await start_node(max_sessions=1)
        url, _ = await opened(node)
        response = await post(node)
        assert (response.status, await code_of(response)) == (503, "SERVER_FULL")
        assert int(response.headers["Retry-After"]) > 0
        assert node.refused("SERVER_FULL") == 1
        await node.client.delete(url)
        assert (await post(node)).status == 201

    async def test_offers_that_race_for_the_last_room_get_one(self, start_node: StartNode) -> None:
        node = await start_node(max_sessions=1)
        statuses = sorted(response.status for response in await asyncio.gather(*(post(node) for _ in range(5))))
        assert statuses == [201, 503, 503, 503, 503]

    async def test_a_loading_server_is_503(self, start_node: StartNode) -> None:
        node = await start_node(loaded=False)
        response = await post(node)
        assert (response.status, await code_of(response)) == (503, "MODEL_LOADING")
        assert int(response.headers["Retry-After"]) > 0

    async def test_an_overloaded_server_is_503(self, node: Node) -> None:
        node.engine.retry_after_s = 7
        response = await post(node)
        assert (response.status, await code_of(response)) == (503, "OVERLOADED")
        assert response.headers["Retry-After"] == "7"

    async def test_a_stopping_server_is_503(self, node: Node) -> None:
        node.app[ADMISSION].stop()
        response = await post(node)
        assert (response.status, await code_of(response)) == (503, "SHUTTING_DOWN")
        assert "Retry-After" in response.headers

    async def test_no_free_port_is_503(self, start_node: StartNode) -> None:
        def refuse(peer: FakePeer) -> None:
            peer.accept_error = CapacityError("NO_UDP_PORT", "None.", "Later.", retry_after_s=3)

        response = await post(await start_node(prepare=refuse))
        assert (response.status, response.headers["Retry-After"]) == (503, "3")

    async def test_an_answer_that_does_not_come_is_given_up(
        self, start_node: StartNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hang(peer: FakePeer) -> None:
            peer.never_accepts = True

        monkeypatch.setattr("signaling.answering.ACCEPT_TIMEOUT_S", 0.05)
        node = await start_node(prepare=hang)
        response = await post(node)
        assert (response.status, await code_of(response)) == (503, "ANSWER_TIMEOUT")
        assert node.peers[0].closed == ["setup_failed"]
        assert node.sessions() == 0

    async def test_a_server_that_stops_during_an_answer_says_so(self, start_node: StartNode) -> None:
        made = asyncio.Event()

        def hang(peer: FakePeer) -> None:
            peer.never_accepts = True
            made.set()

        node = await start_node(prepare=hang)
        request = asyncio.create_task(post(node))
        await made.wait()
        await node.app[REGISTRY].close_all("shutdown", deadline_s=1.0)
        response = await request
        assert (response.status, await code_of(response)) == (503, "SHUTTING_DOWN")
        assert node.peers[0].closed == ["shutdown"]
        assert node.sessions() == 0

    async def test_a_fault_is_500_without_a_traceback(self, start_node: StartNode) -> None:
        def fail(peer: FakePeer) -> None:
            peer.accept_error = RuntimeError("secret detail")

        node = await start_node(prepare=fail)
        response = await post(node)
        assert (response.status, await code_of(response)) == (500, "INTERNAL_ERROR")
        assert "secret detail" not in await response.text()
        assert node.sessions() == 0


class TestPatch:
    async def test_candidates_are_taken_with_204_and_no_etag(self, node: Node) -> None:
        url, etag = await opened(node)
        response = await node.client.patch(url, data=FRAGMENT, headers={**FRAG, "If-Match": etag})
        assert response.status == 204
        assert "ETag" not in response.headers  # RFC 9725 §4.3.2
        assert node.peers[0].fragments == [FRAGMENT]

    async def test_one_matching_tag_of_several_is_enough(self, node: Node) -> None:
        url, etag = await opened(node)
        response = await node.client.patch(url, data=FRAGMENT, headers={**FRAG, "If-Match": f'"other", {etag}'})
        assert response.status == 204

    async def test_patch_on_an_unknown_session_is_404(self, node: Node) -> None:
        response = await node.client.patch("/whip/nobody", data=FRAGMENT, headers={**FRAG, "If-Match": '"x"'})
        assert (response.status, await code_of(response)) == (404, "SESSION_NOT_FOUND")

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({"Content-Type": "application/sdp", "If-Match": '"x"'}, 415, "UNSUPPORTED_MEDIA_TYPE"),
            (FRAG, 428, "PRECONDITION_REQUIRED"),
            ({**FRAG, "If-Match": '"x"'}, 412, "PRECONDITION_FAILED"),
            ({**FRAG, "If-Match": "*"}, 422, "ICE_RESTART_UNSUPPORTED"),
        ],
    )
    async def test_what_a_patch_lacks_is_said(
        self, node: Node, headers: dict[str, str], status: int, code: str
    ) -> None:
        url, _ = await opened(node)
        response = await node.client.patch(url, data=FRAGMENT, headers=headers)
        assert (response.status, await code_of(response)) == (status, code)
        assert node.peers[0].fragments == []

    async def test_a_weak_tag_does_not_match(self, node: Node) -> None:
        url, etag = await opened(node)
        response = await node.client.patch(url, data=FRAGMENT, headers={**FRAG, "If-Match": f"W/{etag}"})
        assert response.status == 412

    async def test_a_restart_by_new_credentials_is_refused_and_the_session_lives(self, node: Node) -> None:
        url, etag = await opened(node)
        node.peers[0].candidate_error = MediaError("ICE_RESTART_UNSUPPORTED", "No.", "Open a new one.")
        response = await node.client.patch(url, data=FRAGMENT, headers={**FRAG, "If-Match": etag})
        assert (response.status, await code_of(response)) == (422, "ICE_RESTART_UNSUPPORTED")
        assert (await node.client.get(url)).status == 200

    async def test_a_fragment_too_large_is_413(self, node: Node) -> None:
        url, etag = await opened(node)
        body = b"a" * (SDPFRAG_MAX_BYTES + 1)
        response = await node.client.patch(url, data=body, headers={**FRAG, "If-Match": etag})
        assert (response.status, await code_of(response)) == (413, "BODY_TOO_LARGE")

    async def test_an_empty_fragment_is_400(self, node: Node) -> None:
        url, etag = await opened(node)
        response = await node.client.patch(url, data=b"", headers={**FRAG, "If-Match": etag})
        assert (response.status, await code_of(response)) == (400, "INVALID_SDPFRAG")


class TestDelete:
    async def test_delete_ends_the_session_once_its_finals_are_out(self, node: Node) -> None:
        url, _ = await opened(node)
        peer = node.peers[0]
        peer.may_close.clear()
        request = asyncio.create_task(node.client.delete(url))
        await asyncio.sleep(0.05)
        assert not request.done()
        peer.may_close.set()
        assert (await request).status == 200
        assert peer.closed == ["client"]
        assert node.sessions() == 0

    async def test_entity_tags_are_ignored(self, node: Node) -> None:
        url, _ = await opened(node)
        assert (await node.client.delete(url, headers={"If-Match": '"other"'})).status == 200

    async def test_a_second_delete_is_404(self, node: Node) -> None:
        url, _ = await opened(node)
        await node.client.delete(url)
        response = await node.client.delete(url)
        assert (response.status, await code_of(response)) == (404, "SESSION_NOT_FOUND")

    async def test_a_session_that_does_not_close_cleanly_is_gone_all_the_same(self, node: Node) -> None:
        url, _ = await opened(node)
        node.peers[0].close_error = RuntimeError("broken")
        assert (await node.client.delete(url)).status == 200
        assert node.sessions() == 0

    async def test_a_session_that_ended_by_itself_is_404(self, node: Node) -> None:
        url, _ = await opened(node)
        assert node.peers[0].on_ended is not None
        node.peers[0].on_ended("timeout")
        assert (await node.client.delete(url)).status == 404


class TestOtherMethods:
    async def test_options_say_what_may_be_posted(self, node: Node) -> None:
        response = await node.client.options("/whip")
        assert response.status == 204
        assert response.headers["Accept-Post"] == "application/sdp"
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]
        allowed = response.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"If-Match", "X-Request-ID", "traceparent"} <= set(allowed)

    async def test_a_client_that_must_know_before_its_offer_asks_by_options(self, start_node: StartNode) -> None:
        node = await start_node(turn_urls=["turn:turn.example"], turn_secret="north-of-the-river-1")
        response = await node.client.options("/whip")
        assert response.headers["Link"].startswith('<turn:turn.example>; rel="ice-server"; username="')
        assert response.headers["Cache-Control"] == "no-store"
        origin = str(node.client.make_url("")).rstrip("/")
        preflight = await node.client.options(
            "/whip", headers={"Access-Control-Request-Method": "POST", "Origin": origin}
        )
        assert preflight.status == 204
        assert "Link" not in preflight.headers
        url, _ = await opened(node)
        assert "Link" not in (await node.client.options(url)).headers

    async def test_options_on_a_session_do_not_say_whether_it_is_there(self, node: Node) -> None:
        url, _ = await opened(node)
        answers = [await node.client.options(path) for path in (url, "/whip/nobody")]
        assert [answer.status for answer in answers] == [204, 204]

    async def test_get_on_a_session_describes_it_without_its_secret(self, node: Node) -> None:
        url, _ = await opened(node)
        response = await node.client.get(url)
        assert response.status == 200
        assert await response.json() == {"session_id": node.peers[0].session_id, "state": "connected"}
        assert url.removeprefix("/whip/") not in await response.text()

    async def test_get_on_the_endpoint_has_no_content(self, node: Node) -> None:
        assert (await node.client.get("/whip")).status == 204  # RFC 9725 §4.1

    @pytest.mark.parametrize(("method", "path"), [("PUT", "/whip"), ("DELETE", "/whip"), ("PUT", "/whip/nobody")])
    async def test_other_methods_are_405_with_allow(self, node: Node, method: str, path: str) -> None:
        response = await node.client.request(method, path)
        assert (response.status, await code_of(response)) == (405, "METHOD_NOT_ALLOWED")
        assert "OPTIONS" in response.headers["Allow"]

    async def test_an_unknown_path_is_404_as_json(self, node: Node) -> None:
        response = await node.client.get("/nowhere")
        assert (response.status, await code_of(response)) == (404, "NOT_FOUND")


class TestOrigins:
    async def test_the_own_origin_may_call(self, node: Node) -> None:
        origin = str(node.client.make_url("/")).rstrip("/")
        response = await post(node, headers={**SDP, "Origin": origin})
        assert response.status == 201
        assert response.headers["Access-Control-Allow-Origin"] == origin
        assert "Location" in response.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in response.headers

    async def test_a_listed_origin_may_call(self, start_node: StartNode) -> None:
        node = await start_node(cors_origins=["https://app.example/"])
        response = await post(node, headers={**SDP, "Origin": "https://app.example"})
        assert response.status == 201
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[", "file://", ""])
    async def test_another_origin_is_403(self, node: Node, origin: str) -> None:
        response = await post(node, headers={**SDP, "Origin": origin})
        assert (response.status, await code_of(response)) == (403, "ORIGIN_NOT_ALLOWED")
        assert "Access-Control-Allow-Origin" not in response.headers
        assert not node.peers

    async def test_a_preflight_of_another_origin_is_403(self, node: Node) -> None:
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        assert (await node.client.options("/whip", headers=headers)).status == 403

    async def test_a_refusal_can_be_read_by_an_allowed_page(self, start_node: StartNode) -> None:
        node = await start_node(cors_origins=["https://app.example"], loaded=False)
        response = await post(node, headers={**SDP, "Origin": "https://app.example"})
        assert response.status == 503
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]

    async def test_every_origin_is_a_star_without_credentials(self, start_node: StartNode) -> None:
        node = await start_node(cors_origins=["*"])
        response = await post(node, headers={**SDP, "Origin": "https://any.example"})
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers

    @pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "x@localhost", "[", "10.0.0.1"])
    async def test_a_foreign_host_name_on_loopback_is_403(self, node: Node, host: str) -> None:
        response = await post(node, headers={**SDP, "Host": host})
        assert (response.status, await code_of(response)) == (403, "HOST_NOT_ALLOWED")

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080"])
    async def test_loopback_names_are_let_in(self, node: Node, host: str) -> None:
        assert (await post(node, headers={**SDP, "Host": host})).status == 201

    async def test_bound_to_the_network_any_host_name_is_let_in(self, start_node: StartNode) -> None:
        node = await start_node(host="0.0.0.0")
        assert (await post(node, headers={**SDP, "Host": "voice.example"})).status == 201

    async def test_the_host_of_a_listed_origin_is_let_in_on_loopback(self, start_node: StartNode) -> None:
        node = await start_node(cors_origins=["https://voice.example"])
        headers = {**SDP, "Host": "voice.example", "Origin": "https://voice.example"}
        assert (await post(node, headers=headers)).status == 201


class TestHostileInput:
    @pytest.mark.parametrize("seed", range(8))
    async def test_random_bytes_are_refused_or_handed_to_the_peer(self, node: Node, seed: int) -> None:
        body = random.Random(seed).randbytes(4000)
        assert (await post(node, data=body)).status == 400

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /whip HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
            b"POST /whip?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /whip HTTP/1.1\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(1000)) + b"\r\n",
            b"POST /whip HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
            b"POST /whip HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sdp\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
            b"POST /whip HTTP/1.1\r\nHost: localhost\r\nContent-Type: \xff\xfe\r\nContent-Length: 1\r\n\r\nx",
            b"POST /whip HTTP/1.1\r\nHost: \xff\r\nOrigin: \xff\r\nContent-Length: 1\r\n\r\nx",
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /static/..%2f..%2fapp.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"FROBNICATE /whip HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /whip HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n",
        ],
    )
    async def test_what_is_hardly_http_never_gets_500(self, node: Node, raw: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.client.port)
        writer.write(raw)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer == b"" or answer.split()[1].startswith(b"4"), answer[:200]
        assert b"Traceback" not in answer
        assert not node.peers
        assert (await node.client.get("/healthz")).status == 200

    @given(
        st.dictionaries(
            st.sampled_from(["language", "model", "endpointing_ms", "vad_threshold", "denoise", "x"]), st.text()
        )
    )
    def test_any_query_is_a_config_or_a_named_error(self, query: dict[str, str]) -> None:
        try:
            read_query(WhipQuery, MultiDict(query)).session()
        except ConfigError as error:
            assert error.code == "INVALID_CONFIG"  # noqa: PT017
