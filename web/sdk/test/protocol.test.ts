import assert from "node:assert/strict";
import { test } from "node:test";

import { alignWords } from "../src/align.ts";
import { errorFromMicrophone, errorFromResponse } from "../src/errors.ts";
import { parseEvent } from "../src/events.ts";
import { Heartbeat } from "../src/heartbeat.ts";
import { WordLatency } from "../src/latency.ts";
import { buildSdpFragment, iceCredentials } from "../src/sdpfrag.ts";
import { Sequence } from "../src/sequence.ts";
import { readServerInfo } from "../src/server_info.ts";
import { readStats } from "../src/stats.ts";
import { final, interim, word } from "./samples.ts";

test("an event is read as it is", () => {
  const event = interim(1, "hello world", "hello");
  assert.deepEqual(parseEvent(JSON.stringify(event)), event);
});

test("an event of a newer server is unknown, not malformed", () => {
  assert.deepEqual(parseEvent('{"type":"toString","session_id":"s","seq":4,"x":1}'), {
    type: "unknown",
    session_id: "s",
    seq: 4,
  });
});

test("what is no event is refused", () => {
  const malformed = ["", "nonsense", "[]", "null", '{"type":"final"}', '{"type":"closed","session_id":"s","seq":1}'];
  malformed.push(JSON.stringify({ ...final(1, "x"), words: [{ word: "x" }] }));
  for (const text of malformed) assert.equal(parseEvent(text), null, text);
});

test("the server's own error is told with all its parts", () => {
  const body = JSON.stringify({ error: { code: "NODE_FULL", message: "Full.", hint: "Wait.", retryable: true } });
  const error = errorFromResponse(503, body, "7");
  const { code, message, hint, retryable, retryAfterS } = error;
  const expected = { code: "NODE_FULL", message: "Full.", hint: "Wait.", retryable: true, retryAfterS: 7 };
  assert.deepEqual({ code, message, hint, retryable, retryAfterS }, expected);
});

test("an error page of a proxy becomes an error by its status", () => {
  const error = errorFromResponse(502, "<html>Bad Gateway</html>");
  assert.equal(error.code, "BAD_GATEWAY");
  assert.equal(error.retryable, true);
  assert.equal(errorFromResponse(418, "").code, "HTTP_418");
  assert.equal(errorFromResponse(400, '{"error":"as text"}').code, "HTTP_400");
  assert.equal(errorFromResponse(503, "", "Wed, 21 Oct 2026 07:28:00 GMT").retryAfterS, null);
});

test("microphone failures are told apart", () => {
  assert.equal(errorFromMicrophone({ name: "NotAllowedError" }).code, "MICROPHONE_DENIED");
  assert.equal(errorFromMicrophone({ name: "NotFoundError" }).code, "MICROPHONE_NOT_FOUND");
  assert.equal(errorFromMicrophone({ name: "NotReadableError" }).code, "MICROPHONE_BUSY");
  assert.equal(errorFromMicrophone(undefined).code, "MICROPHONE_FAILED");
});

const ICE = { ufrag: "EsAw", password: "P2uYro0UCOQ4zxjKXaWCBui1", mid: "0" };

test("ICE credentials are those of the offer's first m-line", () => {
  const sdp = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 x 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n" +
    "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=application 9 x y\r\na=mid:1\r\na=ice-ufrag:EsAw\r\n";
  assert.deepEqual(iceCredentials(sdp), ICE);
  assert.equal(iceCredentials("v=0\r\n"), null);
});

test("a fragment names its generation, its m-line and its candidates", () => {
  const candidates = [
    { candidate: "candidate:1 1 UDP 2 198.51.100.1 39132 typ host", sdpMid: "0" },
    { candidate: "candidate:2 1 UDP 1 198.51.100.1 39133 typ srflx", sdpMid: null },
  ];
  assert.equal(
    buildSdpFragment(ICE, candidates, true),
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n" +
      "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" +
      "a=candidate:1 1 UDP 2 198.51.100.1 39132 typ host\r\na=candidate:2 1 UDP 1 198.51.100.1 39133 typ srflx\r\n" +
      "a=end-of-candidates\r\n",
  );
});

test("a fragment may say only that there are no more", () => {
  const fragment = buildSdpFragment(ICE, [{ candidate: "", sdpMid: "0" }], true);
  assert.match(fragment, /a=mid:0\r\na=end-of-candidates\r\n$/);
  assert.doesNotMatch(fragment, /a=candidate/);
});

test("a jump in the sequence is a gap, a number seen before a duplicate", () => {
  const sequence = new Sequence();
  assert.equal(sequence.take(1), null);
  assert.equal(sequence.take(2), null);
  assert.deepEqual(sequence.take(6), { first: 3, last: 5 });
  assert.equal(sequence.take(6), "duplicate");
  assert.equal(sequence.take(7), null);
});

test("pings go every 5 seconds, and 15 seconds of silence are death", () => {
  const heartbeat = new Heartbeat(0);
  const beats: string[] = [];
  for (let nowMs = 1000; nowMs <= 15_000; nowMs += 1000) beats.push(`${nowMs / 1000}:${heartbeat.tick(nowMs)}`);
  assert.deepEqual(beats.filter((beat) => !beat.endsWith("wait")), ["5:ping", "10:ping", "15:dead"]);
});

test("an answer keeps the connection alive", () => {
  const heartbeat = new Heartbeat(0);
  for (let nowMs = 1000; nowMs <= 60_000; nowMs += 1000) {
    const beat = heartbeat.tick(nowMs);
    assert.notEqual(beat, "dead");
    if (beat === "ping") heartbeat.heard(nowMs + 20);
  }
});

test("a computer that slept asks before it judges", () => {
  const heartbeat = new Heartbeat(0);
  heartbeat.tick(1000);
  assert.equal(heartbeat.tick(3_600_000), "ping");
  assert.equal(heartbeat.tick(3_601_000), "wait");
});

test("segments are the transcript, piece by piece", () => {
  const words = [word(" Hello", 0, 1), word("brave", 1, 2), word("world", 2, 3)];
  const segments = alignWords("Hello, NEW world!", words, "Hello,".length);
  assert.equal(segments.map((segment) => segment.text).join(""), "Hello, NEW world!");
  assert.deepEqual(
    segments.map((segment) => [segment.text, segment.word?.start ?? null, segment.stable]),
    [
      ["Hello", 0, true],
      [", NEW ", null, false],
      ["world", 2, false],
      ["!", null, false],
    ],
  );
});

test("a short word is not found far away inside another", () => {
  const words = [word("I", 0, 1), word("twenty", 1, 2), word("a", 2, 3)];
  const segments = alignWords("I 20 pounds or something of this kind, then that", words, 0);
  assert.deepEqual(segments.filter((segment) => segment.word !== null).map((segment) => segment.text), ["I"]);
});

test("a word counts once, from the event since which it does not change", () => {
  const latency = new WordLatency();
  assert.equal(latency.medianS, null);
  latency.observe(interim(1, "one two", "", { timestamp: 1.2 }), 0);
  assert.equal(latency.medianS, null);
  latency.observe(interim(1, "one two", "one", { timestamp: 1.5 }), 0.1); // "one" ended at 0.5
  assert.equal(latency.medianS, 1.05);
  latency.observe(interim(1, "one two three", "one", { timestamp: 9 }), 0);
  assert.equal(latency.medianS, 1.05);
  latency.observe(final(1, "one two", { timestamp: 3 }), 0); // "two" ended at 1.0
  assert.equal(latency.percentileS(0), 1.05);
  assert.equal(latency.percentileS(0.99), 2);
});

test("statistics prefer RTCP's round trip and measure the bit rate between samples", () => {
  const outbound = (timestamp: number, bytesSent: number): Record<string, unknown> => {
    return { type: "outbound-rtp", kind: "audio", timestamp, bytesSent };
  };
  const pair = { type: "candidate-pair", nominated: true, currentRoundTripTime: 0.02 };
  const first = readStats([pair, outbound(1000, 100)], null);
  assert.deepEqual(first.stats, { rttS: 0.02, lossRatio: null, packetsLost: null, jitterS: null, bitrateBps: null });
  const inbound = { type: "remote-inbound-rtp", kind: "audio", roundTripTime: 0.03, fractionLost: 0.01, packetsLost: 2 };
  const second = readStats([pair, inbound, outbound(3000, 8100)], first.sample);
  assert.deepEqual(second.stats, { rttS: 0.03, lossRatio: 0.01, packetsLost: 2, jitterS: null, bitrateBps: 32_000 });
});

test("server information of the wrong shape is absent", () => {
  assert.deepEqual(readServerInfo("no").languages, []);
  const session = { endpointing_ms: 500 };
  const told = { version: 3, languages: ["en", 5], turn_detection: ["silence", null], ice_servers: [null], session };
  const rest = { languages: ["en"], turnDetection: ["silence"], iceServers: [], session };
  assert.deepEqual(readServerInfo(told), { version: null, model: null, ...rest });
});
