import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { VoiceForgeClient } from "../src/client.ts";
import type { FinalEvent } from "../src/events.ts";
import { Told } from "../src/told.ts";
import { FakeBrowser, refusal } from "./fakes.ts";

const READY = { config: {}, model: "tiny.en", resume: { path: "/ws/v1/transcribe/p.s", window_s: 30 } };
const RESUMED = { stream_time: 1, received_bytes: 0, is_elsewhere: true, resume: { path: "/ws/v1/transcribe/q.t", window_s: 30 } };

let browser: FakeBrowser;

beforeEach(() => {
  browser = new FakeBrowser();
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
});

afterEach(() => {
  mock.timers.reset();
  browser.restore();
});

async function connected() {
  const client = new VoiceForgeClient({ url: "https://server.test/", audioFormat: { encoding: "linear16" } });
  const told: string[] = [];
  client.on("state", (state) => told.push(state));
  client.on("error", (error) => told.push(`error ${error.code}`));
  client.on("interim", ({ utterance_id, transcript }) => told.push(`interim ${utterance_id} ${transcript}`));
  client.on("final", ({ utterance_id, transcript }) => told.push(`final ${utterance_id} ${transcript}`));
  client.on("closed", ({ reason }) => told.push(`closed: ${reason}`));
  const ready = client.connect();
  await browser.settle();
  browser.socket.opens();
  await browser.settle();
  browser.says("ready", READY);
  await ready;
  told.length = 0;
  return { client, told };
}

async function later(ms: number): Promise<void> {
  browser.nowMs += ms;
  mock.timers.tick(ms);
  await browser.settle();
}

const spoken = (utterance_id: number, start: number, transcript: string, channel?: number): object => ({
  utterance_id,
  start,
  duration: 1,
  timestamp: start + 2,
  confidence: 0.9,
  transcript,
  stable: "",
  channel,
  words: [],
});

test("a server that does not know yet who has the session is asked again when it says", async () => {
  const { client, told } = await connected();
  browser.socket.breaks();
  browser.asked = () => refusal(503, "SESSION_MOVING", 4);
  await later(250);
  const refused = browser.socket;
  refused.breaks();
  await browser.settle();
  assert.equal(client.state, "resuming");
  await later(3_900);
  assert.equal(browser.socket, refused);
  await later(200);
  assert.notEqual(browser.socket, refused);
  browser.socket.opens();
  await browser.settle();
  browser.says("resumed", RESUMED);
  assert.deepEqual(told, ["resuming", "connected"]);
});

test("what a process that took over tells again is told once", async () => {
  const { told } = await connected();
  browser.says("final", spoken(1, 0, "one"));
  browser.says("final", spoken(2, 2, "two"));
  browser.socket.breaks();
  await later(250);
  browser.socket.opens();
  await browser.settle();
  browser.seq += 10_000;
  browser.says("resumed", RESUMED);
  told.length = 0;
  browser.says("interim", spoken(2, 2.1, "tw"));
  browser.says("final", spoken(2, 2.1, "too"));
  browser.says("interim", spoken(3, 4, "three"));
  browser.says("final", spoken(3, 4, "three"));
  browser.says("final", spoken(3, 6, "another one, by a number that nobody had written down"));
  assert.deepEqual(told, [
    "interim 3 three",
    "final 3 three",
    "final 3 another one, by a number that nobody had written down",
  ]);
});

test("channels count for themselves, and what is kept of them is bounded", () => {
  const told = new Told();
  const final = (id: number, channel?: number): FinalEvent => ({ type: "final", ...spoken(id, id, "", channel) }) as FinalEvent;
  assert.equal(told.isKnown(final(1, 0)), false);
  assert.equal(told.isKnown(final(1, 1)), false);
  assert.equal(told.isKnown(final(1, 1)), true);
  assert.equal(told.isKnown(final(1)), true, "the only channel is the first one");
  for (let id = 2; id < 70; id += 1) told.isKnown(final(id));
  assert.equal(told.isKnown(final(1)), false);
});

test("a client that is closed while nobody has its session ends that for good", async () => {
  const { client } = await connected();
  browser.socket.breaks();
  await client.close();
  const last = browser.requests.at(-1);
  assert.deepEqual([last?.method, last?.url], ["DELETE", "https://server.test/ws/v1/transcribe/p.s"]);
});

test("one that gives up, or was replaced, leaves the session to whoever has it", async () => {
  const { told } = await connected();
  browser.socket.breaks();
  await later(250);
  browser.socket.opens();
  await browser.settle();
  browser.socket.breaks(4001);
  await browser.settle();
  assert.deepEqual(told, ["resuming", "error REPLACED", "closed", "closed: replaced"]);
  assert.equal(browser.methods.includes("DELETE"), false);
});

test("one that is connected says goodbye over its connection", async () => {
  const { client } = await connected();
  client.abort();
  assert.equal(browser.socket.closedWith, 1000);
  assert.equal(browser.methods.includes("DELETE"), false);
});
