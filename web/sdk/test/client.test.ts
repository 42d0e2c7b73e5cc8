import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { VoiceForgeClient } from "../src/client.ts";
import type { ClientOptions } from "../src/options.ts";
import { FakeBrowser } from "./fakes.ts";

let browser: FakeBrowser;

beforeEach(() => {
  browser = new FakeBrowser();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
});

afterEach(() => {
  mock.timers.reset();
  browser.restore();
});

/** A client, what it told in order, and the promise of its connection. */
function connecting(options: Partial<ClientOptions> = {}) {
  const client = new VoiceForgeClient({ url: "https://server.test/whip", ...options });
  const told: string[] = [];
  client.on("state", (state) => told.push(state));
  client.on("error", (error) => told.push(`error ${error.code}`));
  client.on("gap", ({ first, last }) => told.push(`gap ${first}-${last}`));
  client.on("closed", ({ reason }) => told.push(`closed: ${reason}`));
  return { client, told, connected: client.connect() };
}

async function connected(options: Partial<ClientOptions> = {}) {
  const made = connecting(options);
  await browser.settle();
  browser.gathered();
  await browser.settle();
  browser.opened();
  browser.says("ready", { config: {}, model: "tiny.en" });
  await made.connected;
  return made;
}

test("connects with the configuration in the query and the token in the header", async () => {
  const config = { language: "en", endpointing_ms: 300, denoise: null, interim_results: false };
  const { client, told } = await connected({ token: "t", config });
  const [post] = browser.requests;
  assert.equal(post?.url, "https://server.test/whip?language=en&endpointing_ms=300&interim_results=false");
  assert.equal(post?.headers["Authorization"], "Bearer t");
  assert.deepEqual(told, ["connecting", "connected"]);
  assert.equal(client.sessionId, "s");
});

test("gathering that does not end is waited for 1 s, and what comes later is sent after", async () => {
  connecting();
  await browser.settle();
  assert.deepEqual(browser.methods, []);
  mock.timers.tick(1000);
  const candidate = { candidate: "candidate:1 1 UDP 1 192.0.2.1 9 typ srflx", sdpMid: "0" };
  await browser.settle();
  browser.pc.dispatchEvent(Object.assign(new Event("icecandidate"), { candidate }));
  await browser.settle();
  assert.deepEqual(browser.methods, ["POST", "PATCH"]);
  assert.equal(browser.requests[1]?.url, "https://server.test/whip/secret");
  assert.equal(browser.requests[1]?.headers["If-Match"], '"1"');
});

test("close asks for the last finals, stops the microphone at once and deletes the session", async () => {
  const { client, told } = await connected();
  const closing = client.close();
  assert.equal(browser.microphone.stopped, true);
  await browser.settle();
  assert.deepEqual(browser.pc.channel.sent, [{ type: "close_stream" }]);
  assert.equal(browser.methods.includes("DELETE"), false);
  browser.says("closed", { reason: "client" });
  await closing;
  assert.deepEqual(told, ["connecting", "connected", "closing", "closed", "closed: client"]);
  assert.equal(browser.methods.at(-1), "DELETE");
  assert.equal(browser.pc.closed, true);
});

test("close waits 10 s for a server that says nothing", async () => {
  const { client } = await connected();
  const closing = client.close();
  mock.timers.tick(10_000);
  await closing;
  assert.equal(client.state, "closed");
});

test("a full server rejects with its own words and leaves nothing open", async () => {
  const error = { code: "NODE_FULL", message: "Full.", hint: "Wait.", retryable: true };
  browser.answer = () => Response.json({ error }, { status: 503, headers: { "Retry-After": "5" } });
  const { client, connected: outcome } = connecting();
  await browser.settle();
  browser.gathered();
  await assert.rejects(outcome, { code: "NODE_FULL", retryAfterS: 5 });
  assert.equal(client.state, "closed");
  assert.equal(browser.microphone.stopped, true);
});

test("an answer that is no WHIP answer is refused", async () => {
  browser.answer = () => new Response("<html>", { status: 200 });
  const { connected: outcome } = connecting();
  await browser.settle();
  browser.gathered();
  await assert.rejects(outcome, { code: "INVALID_ANSWER" });
});

test("a connection that never opens fails after its time and is deleted", async () => {
  const { connected: outcome } = connecting({ connectTimeoutMs: 2000 });
  await browser.settle();
  browser.gathered();
  await browser.settle();
  mock.timers.tick(2000);
  await assert.rejects(outcome, { code: "CONNECT_TIMEOUT" });
  assert.equal(browser.methods.at(-1), "DELETE");
});

test("closing while connecting rejects, and a track of the caller's is left alone", async () => {
  const track = new (globalThis as unknown as { MediaStreamTrack: new () => MediaStreamTrack }).MediaStreamTrack();
  const { client, connected: outcome } = connecting({ audio: track });
  await browser.settle();
  void client.close();
  await assert.rejects(outcome, { code: "CLOSED" });
  assert.equal((track as unknown as { stopped: boolean }).stopped, false);
});

test("a session that is made while the client is being closed is ended", async () => {
  let answered = (_: Response): void => undefined;
  browser.answer = () => new Promise<Response>((resolve) => (answered = resolve)) as unknown as Response;
  const { client, connected: outcome } = connecting();
  await browser.settle();
  browser.gathered();
  await browser.settle();
  await client.close();
  answered(new Response("v=0\r\n", { status: 201, headers: { Location: "/whip/late", ETag: '"1"' } }));
  await assert.rejects(outcome, { code: "CLOSED" });
  assert.equal(browser.requests.at(-1)?.method, "DELETE");
  assert.equal(browser.requests.at(-1)?.url, "https://server.test/whip/late");
});

test("a path that breaks is interrupted, recovers, and in the end is lost where nothing is to be resumed", async () => {
  const { told } = await connected({ resume: false });
  browser.becomes("disconnected");
  browser.becomes("connected");
  browser.becomes("failed");
  assert.deepEqual(told.slice(2), ["interrupted", "connected", "error CONNECTION_LOST", "closed", "closed: peer_lost"]);
});

test("events that were left out are told, and an error does not end the session", async () => {
  const { client, told } = await connected();
  browser.loses(2);
  browser.says("error", { error: { code: "INVALID_CONFIG", message: "No.", hint: "Ask.", retryable: false } });
  assert.deepEqual(told.slice(2), ["gap 2-3", "error INVALID_CONFIG"]);
  assert.equal(client.state, "connected");
});

test("a microphone that goes away ends the session in order", async () => {
  const { told } = await connected();
  browser.microphone.dispatchEvent(new Event("ended"));
  assert.deepEqual(told.slice(2), ["error MICROPHONE_LOST", "closing"]);
  await browser.settle();
  assert.deepEqual(browser.pc.channel.sent, [{ type: "close_stream" }]);
});

test("a listener that throws does not keep others from hearing", async () => {
  const logged = mock.method(console, "error", () => undefined);
  const { client } = await connected();
  let heard = 0;
  client.on("speech_started", () => assert.fail("on purpose"));
  client.on("speech_started", () => (heard += 1));
  browser.says("speech_started", { at: 1 });
  assert.equal(heard, 1);
  assert.equal(logged.mock.callCount(), 1);
});
