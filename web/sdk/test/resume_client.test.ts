import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { VoiceForgeClient } from "../src/client.ts";
import type { ClientOptions } from "../src/options.ts";
import { FakeBrowser, refusal } from "./fakes.ts";

let browser: FakeBrowser;

beforeEach(() => {
  browser = new FakeBrowser();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
});

afterEach(() => {
  mock.timers.reset();
  browser.restore();
});

async function connected(options: Partial<ClientOptions> = {}) {
  const client = new VoiceForgeClient({ url: "https://server.test/whip", token: "t", ...options });
  const told: string[] = [];
  client.on("state", (state) => told.push(state));
  client.on("error", (error) => told.push(`error ${error.code}`));
  client.on("warning", (error) => told.push(`warning ${error.code}`));
  client.on("gap", ({ first, last }) => told.push(`gap ${first}-${last}`));
  client.on("resumed", ({ lostAudioS, isElsewhere }) => told.push(`resumed ${lostAudioS} ${isElsewhere}`));
  client.on("speech_started", ({ at }) => told.push(`speech ${at}`));
  client.on("closed", ({ reason }) => told.push(`closed: ${reason}`));
  const ready = client.connect();
  await browser.settle();
  browser.gathered();
  await browser.settle();
  browser.opened();
  browser.says("ready", { config: {}, model: "tiny.en", resume: { path: "/whip/secret", window_s: 30 } });
  await ready;
  told.length = 0;
  return { client, told };
}

async function later(ms: number): Promise<void> {
  browser.nowMs += ms;
  mock.timers.tick(ms);
  await browser.settle();
}

/** The next attempt gets as far as an open data channel. */
async function reconnects(): Promise<void> {
  await later(250);
  browser.gathered();
  await browser.settle();
  browser.opened();
}

const RESUMED = { stream_time: 9, received_bytes: null, is_elsewhere: false, resume: { path: "/whip/secret", window_s: 30 } };

test("a connection that fails is taken up behind the last event, and nothing comes twice", async () => {
  const { client, told } = await connected();
  browser.says("speech_started", { at: 1 });
  browser.becomes("failed");
  assert.equal(client.state, "resuming");
  await reconnects();
  assert.equal(browser.requests.at(-1)?.url, "https://server.test/whip/secret?after=2");
  assert.equal(browser.requests.at(-1)?.headers["Authorization"], "Bearer t");
  browser.seq -= 1;
  browser.says("speech_started", { at: 1 });
  browser.says("speech_started", { at: 5 });
  assert.equal(client.state, "resuming", "what was missed comes before the session goes on");
  browser.nowMs += 6_750;
  browser.says("resumed", RESUMED);
  assert.deepEqual(told, ["speech 1", "resuming", "speech 5", "connected", "resumed 7 false"]);
  browser.says("speech_started", { at: 8 });
  assert.equal(told.at(-1), "speech 8");
  assert.equal(browser.methods.includes("DELETE"), false);
});

test("`resumed` counts as an event or tells where it stands: both are understood", async () => {
  const { client, told } = await connected();
  browser.becomes("failed");
  await reconnects();
  browser.seq -= 1;
  browser.says("warning", { error: { code: "EVENTS_LOST", message: "", hint: "", retryable: false } });
  browser.seq -= 1;
  browser.says("resumed", { ...RESUMED, is_elsewhere: true });
  assert.equal(client.state, "connected");
  assert.deepEqual(told.slice(1), ["warning EVENTS_LOST", "connected", "resumed 0.25 true"]);
});

test("the old connection stays until the session is safe: a close would end it", async () => {
  await connected();
  browser.becomes("failed");
  await reconnects();
  const [old, next] = browser.peers;
  assert.deepEqual([old?.closed, next?.closed], [false, false]);
  browser.says("resumed", RESUMED);
  assert.deepEqual([old?.closed, next?.closed], [true, false]);
  assert.equal(browser.microphone.stopped, false);
});

for (const [what, happens] of [
  ["the data channel closes", () => browser.pc.channel.dispatchEvent(new Event("close"))],
  ["the server asks for it", () => browser.says("reconnect", { reason: "draining" })],
] as const) {
  test(`resumes when ${what}`, async () => {
    const { client } = await connected();
    happens();
    assert.equal(client.state, "resuming");
  });
}

for (const [what, growth, after] of [
  ["15 s after the last answer, where reports still come", 10, 15],
  ["9 s after the last of everything", 0, 9],
] as const) {
  test(`resumes ${what}`, async () => {
    const { client } = await connected();
    let second = 0;
    for (; client.state === "connected" && second < 30; second += 1) {
      browser.pc.received += growth;
      await later(1_000);
    }
    assert.equal(second, after);
  });
}

test("a network that changed is asked at once, and believed if it answers", async () => {
  const { client } = await connected();
  browser.network.dispatchEvent(new Event("change"));
  assert.deepEqual(browser.pc.channel.sent, [{ type: "keep_alive" }]);
  browser.says("pong", { timestamp: 1 });
  for (let second = 0; second < 4; second += 1) await later(1_000);
  assert.equal(client.state, "connected");
  browser.network.dispatchEvent(new Event("change"));
  for (let second = 0; second < 3; second += 1) await later(1_000);
  assert.equal(client.state, "resuming");
});

test("packets that stop are given 3 s, not 15", async () => {
  const { client } = await connected();
  browser.becomes("disconnected");
  assert.equal(client.state, "interrupted");
  for (let second = 0; second < 3; second += 1) await later(1_000);
  assert.equal(client.state, "resuming");
});

test("ICE servers are fetched anew, for their credentials expire", async () => {
  browser.iceServers = [{ urls: "turn:a", username: "1" }];
  await connected();
  browser.iceServers = [{ urls: "turn:a", username: "2" }];
  browser.becomes("failed");
  await later(250);
  assert.deepEqual(browser.peers.map(({ configuration }) => configuration.iceServers?.[0]?.username), ["1", "2"]);
  browser.iceServers = [];
  browser.gathered();
  await browser.settle();
  browser.becomes("failed");
  await browser.settle();
  await later(1_000);
  assert.equal(browser.peers.length, 3);
  assert.equal(browser.pc.configuration.iceServers?.[0]?.username, "2", "better old ones than none");
});

test("a server that is away is asked again and again, and when its window is over the session is lost", async () => {
  const { told } = await connected();
  browser.becomes("failed");
  browser.answer = () => refusal(502, "BAD_GATEWAY");
  for (let step = 0; step < 400; step += 1) {
    await later(100);
    browser.gathered();
    await browser.settle();
  }
  assert.deepEqual(told, ["resuming", "error CONNECTION_LOST", "closed", "closed: peer_lost"]);
  const posts = browser.methods.filter((method) => method === "POST").length;
  assert.ok(posts >= 6 && posts <= 16, `${posts}`);
  assert.equal(browser.microphone.stopped, true);
  assert.equal(browser.peers.every(({ closed }) => closed), true);
});

for (const [status, code, reason] of [
  [404, "SESSION_GONE", "gone"],
  [409, "SESSION_GONE", "gone"],
  [401, "INVALID_API_KEY", "error"],
  [403, "INSUFFICIENT_PERMISSIONS", "error"],
] as const) {
  test(`${status} to the offer closes with ${code}`, async () => {
    const { told } = await connected();
    browser.becomes("failed");
    browser.answer = () => refusal(status, code);
    await later(250);
    browser.gathered();
    await browser.settle();
    assert.deepEqual(told, ["resuming", `error ${code}`, "closed", `closed: ${reason}`]);
  });
}

test("close ends a resumption at once, and the session with it", async () => {
  const { client, told } = await connected();
  browser.becomes("failed");
  await reconnects(); // its channel is open, but the server has not said that the session goes on
  await client.close();
  assert.deepEqual(told, ["resuming", "closed", "closed: client"]);
  assert.equal(browser.methods.at(-1), "DELETE");
  assert.equal(browser.microphone.stopped, true);
});

test("a configuration that was not answered is sent again, and one made meanwhile too", async () => {
  const { client } = await connected();
  client.configure({ endpointing_ms: 800 });
  browser.says("ready", { config: {}, model: "tiny.en", resume: { path: "/whip/secret", window_s: 30 } });
  client.configure({ language: "en" });
  browser.becomes("failed");
  client.configure({ interim_results: false });
  await reconnects();
  browser.says("resumed", RESUMED);
  assert.deepEqual(browser.pc.channel.sent, [
    { type: "configure", config: { language: "en", interim_results: false } },
  ]);
});

test("a connection that is lost again before it is greeted is only one more attempt", async () => {
  const { client, told } = await connected();
  browser.becomes("failed");
  await reconnects();
  browser.becomes("failed");
  await browser.settle();
  await later(1_000);
  browser.gathered();
  await browser.settle();
  browser.opened();
  browser.says("resumed", RESUMED);
  assert.equal(client.state, "connected");
  assert.deepEqual(told.slice(0, 2), ["resuming", "connected"]);
});

test("a server that does not know yet who has the session is offered again when it says", async () => {
  const { client, told } = await connected();
  browser.becomes("failed");
  const answer = browser.answer;
  browser.answer = () => refusal(503, "SESSION_MOVING", 4);
  await later(250);
  browser.gathered();
  await browser.settle();
  browser.answer = answer;
  const posts = () => browser.methods.filter((method) => method === "POST").length;
  const before = posts();
  await later(3_900);
  assert.deepEqual([client.state, posts()], ["resuming", before]);
  await later(200);
  browser.gathered();
  await browser.settle();
  browser.opened();
  browser.says("resumed", RESUMED);
  assert.deepEqual(told, ["resuming", "connected", "resumed 4.35 false"]);
});
