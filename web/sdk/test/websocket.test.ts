import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { VoiceForgeClient } from "../src/client.ts";
import type { ClientOptions } from "../src/options.ts";
import { FakeBrowser, refusal } from "./fakes.ts";

const FORMAT = { encoding: "linear16", sample_rate: 16_000 } as const;
const READY = { config: {}, model: "tiny.en", resume: { path: "/ws/v1/transcribe/p.s", window_s: 30 } };

let browser: FakeBrowser;

beforeEach(() => {
  browser = new FakeBrowser();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
});

afterEach(() => {
  mock.timers.reset();
  browser.restore();
});

async function connecting(options: Partial<ClientOptions> = {}) {
  const client = new VoiceForgeClient({ url: "https://server.test/", audioFormat: FORMAT, ...options });
  const told: string[] = [];
  client.on("state", (state) => told.push(state));
  client.on("error", (error) => told.push(`error ${error.code}`));
  client.on("warning", (error) => told.push(`warning ${error.code}`));
  client.on("resumed", ({ lostAudioS, isElsewhere }) => told.push(`resumed ${lostAudioS} ${isElsewhere}`));
  client.on("closed", ({ reason }) => told.push(`closed: ${reason}`));
  const ready = client.connect();
  ready.catch(() => undefined);
  await browser.settle();
  return { client, told, ready };
}

async function connected(options: Partial<ClientOptions> = {}) {
  const made = await connecting(options);
  browser.socket.opens();
  await browser.settle();
  browser.says("ready", READY);
  await made.ready;
  made.told.length = 0;
  return made;
}

async function later(ms: number): Promise<void> {
  browser.nowMs += ms;
  mock.timers.tick(ms);
  await browser.settle();
}

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const resumed = (received_bytes: number | null, is_elsewhere = false): object => ({
  stream_time: 1,
  received_bytes,
  is_elsewhere,
  resume: READY.resume,
});

test("the configuration and the audio's format are in the address, and no key is", async () => {
  const { client } = await connected({ config: { language: "en" } });
  assert.equal(browser.socket.url, "wss://server.test/ws/v1/transcribe?language=en&encoding=linear16&sample_rate=16000");
  assert.equal(client.transport, "websocket");
  assert.equal(browser.requests.length, 0);
});

test("a key is exchanged for a join token", async () => {
  browser.answer = () => Response.json({ token: "eyJa.b.c", expires_in_s: 60 }, { status: 201 });
  await connected({ token: "vf_key" });
  assert.equal(browser.requests[0]?.url, "https://server.test/api/v1/tokens");
  assert.equal(browser.requests[0]?.headers["Authorization"], "Bearer vf_key");
  assert.equal(new URL(browser.socket.url).searchParams.get("token"), "eyJa.b.c");
  assert.equal(browser.socket.url.includes("vf_key"), false);
});

test("a join token is used as it is, and asked for anew for each session", async () => {
  let asked = 0;
  await connected({ token: async () => `eyJa.b.${(asked += 1)}` });
  assert.equal(new URL(browser.socket.url).searchParams.get("token"), "eyJa.b.1");
  assert.equal(browser.requests.length, 0);
});

test("a key that is refused says why, before any socket is made", async () => {
  browser.answer = () => refusal(401, "INVALID_API_KEY");
  const { ready } = await connecting({ token: "vf_key" });
  await assert.rejects(ready, { code: "INVALID_API_KEY", status: 401 });
});

test("why a handshake was refused is asked by a plain GET", async () => {
  browser.asked = () => refusal(503, "NODE_FULL", 9);
  const { ready } = await connecting();
  browser.socket.breaks();
  await assert.rejects(ready, { code: "NODE_FULL", retryAfterS: 9 });
  assert.equal(browser.requests.at(-1)?.url.startsWith("https://server.test/ws/v1/transcribe?"), true);
});

test("a handshake that only a proxy can have refused says so", async () => {
  const { ready } = await connecting();
  browser.socket.breaks();
  await assert.rejects(ready, { code: "SOCKET_FAILED" });
});

test("audio waits for `ready`, and goes on behind what the server has after a drop", async () => {
  const { client, told } = await connected();
  await client.sendAudio(bytes(1, 2, 3, 4));
  const first = browser.socket;
  first.breaks();
  assert.equal(client.state, "resuming");
  await client.sendAudio(bytes(5, 6));
  await later(250);
  assert.equal(browser.socket.url, "wss://server.test/ws/v1/transcribe/p.s?after=1");
  browser.socket.opens();
  await browser.settle();
  await client.sendAudio(bytes(7, 8));
  assert.deepEqual(browser.socket.audio, [], "not before the server has said from where");
  browser.says("resumed", resumed(2));
  await client.sendAudio(bytes(9, 10));
  assert.deepEqual(first.audio, [1, 2, 3, 4]);
  assert.deepEqual(browser.socket.audio, [3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(told, ["resuming", "connected", "resumed 0 false"]);
});

test("a container begins anew where another process has no use for the old one", async () => {
  const { client, told } = await connected({ audioFormat: {} });
  await client.sendAudio(bytes(1, 2));
  browser.socket.breaks(1012);
  await later(250);
  browser.socket.opens();
  await browser.settle();
  browser.says("resumed", resumed(null, true));
  assert.deepEqual(browser.socket.audio, []);
  assert.equal(told.at(-1), "resumed null true");
});

test("a socket that is given up is closed as that, and only once the session is safe", async () => {
  const { client } = await connected();
  const first = browser.socket;
  browser.says("reconnect", { reason: "draining" });
  await later(250);
  assert.equal(first.closedWith, null);
  await client.sendAudio(bytes(1, 2));
  assert.deepEqual(first.audio, [], "it would be sent again anyway");
  browser.socket.opens();
  await browser.settle();
  browser.says("resumed", resumed(0));
  assert.equal(first.closedWith, 4002);
  client.abort();
  assert.equal(browser.socket.closedWith, 1000);
});

test("another connection that took the session up ends this one", async () => {
  const { told } = await connected();
  browser.socket.breaks(4001);
  assert.deepEqual(told, ["error REPLACED", "closed", "closed: replaced"]);
});

test("what the server will not have is not tried again", async () => {
  const { told } = await connected();
  browser.socket.breaks(1009);
  assert.deepEqual(told, ["error SOCKET_REFUSED", "closed", "closed: error"]);
});

test("a session that is gone is told by the plain GET", async () => {
  const { told } = await connected();
  browser.socket.breaks();
  browser.asked = () => refusal(404, "SESSION_NOT_FOUND");
  await later(250);
  browser.socket.breaks();
  await browser.settle();
  assert.deepEqual(told, ["resuming", "error SESSION_GONE", "closed", "closed: gone"]);
});

test("a server without a window is not asked", async () => {
  const { ready, told } = await connecting();
  browser.socket.opens();
  await browser.settle();
  browser.says("ready", { ...READY, resume: null });
  await ready;
  browser.socket.breaks();
  assert.deepEqual(told.slice(2), ["error CONNECTION_LOST", "closed", "closed: peer_lost"]);
});

test("close sends what is left before it says so", async () => {
  const { client } = await connected();
  browser.socket.bufferedAmount = 1e6;
  void client.sendAudio(bytes(1, 2));
  const closing = client.close();
  await browser.settle();
  assert.deepEqual(browser.socket.texts, []);
  browser.socket.bufferedAmount = 0;
  await later(50);
  assert.deepEqual(browser.socket.sent.map((data) => (typeof data === "string" ? data : [...data])), [[1, 2], '{"type":"close_stream"}']);
  browser.says("closed", { reason: "client" });
  await closing;
});

test("a client that sends a track takes no bytes", async () => {
  const client = new VoiceForgeClient({ url: "https://server.test/" });
  await assert.rejects(client.sendAudio(bytes(1)), { code: "NO_AUDIO_FORMAT" });
});

test("where UDP does not get through the same track goes over a WebSocket, and that is said", async () => {
  const { client, told, ready } = await automatic();
  browser.gathered();
  await browser.settle();
  await later(6_000);
  assert.deepEqual(told, ["connecting", "warning UDP_BLOCKED"]);
  assert.equal(browser.methods.at(-1), "DELETE", "the first session is not left behind");
  assert.equal(browser.pc.closed, true);
  assert.equal(browser.microphone.stopped, false);
  browser.socket.opens();
  await browser.settle();
  browser.says("ready", READY);
  await ready;
  assert.equal(client.transport, "websocket");
  browser.hears(Uint8Array.of(1, 2).buffer);
  assert.deepEqual(browser.socket.audio, [1, 2]);
});

const OF_FIREFOX = [
  "v=0",
  "o=mozilla...THIS_IS_SDPARTA-99.0 1 0 IN IP4 0.0.0.0",
  "a=mid:0",
  "a=candidate:0 1 UDP 2122187007 192.0.2.2 37439 typ host",
  "",
].join("\r\n");
const ON_LOOPBACK = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 60088 typ host\r\na=candidate:2 1 udp 1 ::1 49147 typ host\r\n";

test("Firefox goes over a WebSocket at once to a server on its own computer, for it would never get through", async () => {
  browser.offer = OF_FIREFOX;
  browser.answersWith(ON_LOOPBACK);
  const { client, told, ready } = await automatic();
  browser.gathered();
  await browser.settle();
  assert.deepEqual(told, ["connecting", "warning UDP_BLOCKED"]);
  assert.equal(browser.methods.at(-1), "DELETE", "the first session is not left behind");
  browser.socket.opens();
  await browser.settle();
  browser.says("ready", READY);
  await ready;
  assert.equal(client.transport, "websocket");
});

const GETS_THROUGH = {
  "to an address of the network": [OF_FIREFOX, ON_LOOPBACK.replace("::1", "192.0.2.2")],
  "to an address that it learns later": [OF_FIREFOX, "v=0\r\n"],
  "with candidates on loopback": [OF_FIREFOX.replace("192.0.2.2", "127.0.0.1"), ON_LOOPBACK],
  "with a relay": [OF_FIREFOX, ON_LOOPBACK, { urls: "turn:192.0.2.3" }],
  "if it is Chromium": [OF_FIREFOX.replace("mozilla...THIS_IS_SDPARTA-99.0", "-"), ON_LOOPBACK],
} as const;

for (const [how, [offer, answer, ...iceServers]] of Object.entries(GETS_THROUGH)) {
  test(`media is waited for ${how}`, async () => {
    browser.offer = offer;
    browser.answersWith(answer);
    browser.iceServers = iceServers;
    const { client, told, ready } = await automatic();
    browser.gathered();
    await browser.settle();
    browser.opened();
    browser.says("ready", READY);
    await ready;
    assert.deepEqual(told, ["connecting", "connected"]);
    assert.equal(client.transport, "webrtc");
  });
}

test("a refusal is no blocked network", async () => {
  browser.answer = () => refusal(503, "NODE_FULL", 3);
  const { told, ready } = await automatic();
  browser.gathered();
  await assert.rejects(ready, { code: "NODE_FULL" });
  assert.deepEqual(told, ["connecting", "closed", "closed: error"]);
});

async function automatic() {
  const client = new VoiceForgeClient({ url: "https://server.test/", transport: "automatic" });
  const told: string[] = [];
  client.on("state", (state) => told.push(state));
  client.on("warning", (error) => told.push(`warning ${error.code}`));
  client.on("closed", ({ reason }) => told.push(`closed: ${reason}`));
  const ready = client.connect();
  ready.catch(() => undefined);
  await browser.settle();
  return { client, told, ready };
}
