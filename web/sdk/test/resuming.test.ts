import assert from "node:assert/strict";
import { test } from "node:test";

import { Addresses, asSocket, withQuery } from "../src/addresses.ts";
import { isToken } from "../src/credentials.ts";
import { errorFromResponse } from "../src/errors.ts";
import { fault } from "../src/faults.ts";
import { Heartbeat } from "../src/heartbeat.ts";
import { Backoff, Patience, persist, reasonOf } from "../src/resuming.ts";
import { refusal } from "./fakes.ts";

const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
};

/** Persistence over a clock that is turned by hand. */
function persisting(attempt: (signal: AbortSignal) => Promise<string>, windowS = 30) {
  const [patience, ending] = [new Patience(), new AbortController()];
  const clock = { nowMs: 0, attempts: [] as number[] };
  const outcome = persist(
    (signal) => {
      clock.attempts.push(clock.nowMs);
      return attempt(signal);
    },
    { windowS, patience, signal: ending.signal, now: () => clock.nowMs, backoff: new Backoff(() => 0.5) },
  );
  outcome.catch(() => undefined);
  return { clock, patience, ending, outcome };
}

test("waits grow to 5 s, and no two clients come in step", () => {
  const [early, late] = [new Backoff(() => 0), new Backoff(() => 0.999)];
  const waits = (backoff: Backoff): number[] => Array.from({ length: 7 }, () => Math.round(backoff.next()));
  assert.deepEqual(waits(early), [0, 250, 500, 1000, 2000, 2500, 2500]);
  assert.deepEqual(waits(late), [250, 750, 1499, 2998, 5996, 7495, 7495]);
});

test("it is tried until the server's window is over", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { clock, outcome } = persisting(async () => Promise.reject(fault("SERVER_UNREACHABLE", "", "", true)));
  for (; clock.nowMs < 31_000; clock.nowMs += 125) {
    t.mock.timers.tick(125);
    await settle();
  }
  await assert.rejects(outcome, { code: "CONNECTION_LOST" });
  assert.deepEqual(clock.attempts.map((ms) => Math.round(ms / 1000)), [0, 1, 2, 4, 8, 13, 18, 23, 28]);
});

test("a server that names a time is left alone for so long, whatever the network says", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const full = async (): Promise<string> => Promise.reject(errorFromResponse(503, await refusal(503, "NODE_FULL").text(), "7"));
  const { clock, patience } = persisting(full);
  for (; clock.nowMs < 9_000; clock.nowMs += 125) {
    t.mock.timers.tick(125);
    await settle();
    patience.hurry();
  }
  assert.equal(clock.attempts.length, 2);
  assert.ok((clock.attempts[1] as number) >= 7_000);
});

test("the network's return ends a wait", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let isBack = false;
  const { patience, outcome } = persisting(async () => {
    if (!isBack) throw fault("SERVER_UNREACHABLE", "", "", true);
    return "there";
  });
  t.mock.timers.tick(125);
  await settle();
  isBack = true;
  patience.hurry();
  assert.equal(await outcome, "there");
});

for (const [status, code] of [
  [404, "SESSION_GONE"],
  [405, "SESSION_GONE"],
  [409, "SESSION_GONE"],
  [401, "INVALID_API_KEY"],
  [403, "INSUFFICIENT_PERMISSIONS"],
  [400, "INVALID_CURSOR"],
] as const) {
  test(`${status} ends it at the first attempt`, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const { clock, outcome } = persisting(async () => Promise.reject(errorFromResponse(status, await refusal(status, code).text())));
    t.mock.timers.tick(125);
    await assert.rejects(outcome, { code });
    assert.equal(clock.attempts.length, 1);
  });
}

test("an attempt that hangs is given up for the next, and a close ends all at once", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const hang = (signal: AbortSignal): Promise<string> =>
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  const { clock, ending, outcome } = persisting(hang);
  for (; clock.nowMs < 12_000; clock.nowMs += 125) {
    t.mock.timers.tick(125);
    await settle();
  }
  assert.equal(clock.attempts.length, 2);
  ending.abort(fault("CLOSED", "", ""));
  await assert.rejects(outcome, { code: "CLOSED" });
});

test("why a session is over is one word", () => {
  const words = ["CONNECTION_LOST", "SESSION_GONE", "REPLACED", "INVALID_API_KEY"].map((code) => reasonOf(fault(code, "", "")));
  assert.deepEqual(words, ["peer_lost", "gone", "replaced", "error"]);
});

test("a doubted path is asked at once and given 3 s", () => {
  const heartbeat = new Heartbeat(0);
  heartbeat.doubt();
  assert.equal(heartbeat.tick(1_000), "ping");
  assert.equal(heartbeat.tick(3_900), "wait");
  assert.equal(heartbeat.tick(4_000), "dead");
});

test("a doubted path that answers is believed again, and its round trip is known", () => {
  const heartbeat = new Heartbeat(0);
  heartbeat.doubt();
  heartbeat.tick(1_000);
  heartbeat.answered(1_080);
  assert.equal(heartbeat.roundTripMs, 80);
  assert.deepEqual([2_000, 3_000, 4_000, 5_000].map((ms) => heartbeat.tick(ms)), ["wait", "wait", "wait", "wait"]);
  heartbeat.doubt();
  assert.equal(heartbeat.tick(5_500), "ping", "each doubt is asked about");
});

test("a server is known by its address or by its WHIP endpoint, behind a prefix too", () => {
  for (const [given, base] of [
    ["https://example.org", "https://example.org/"],
    ["https://example.org/whip", "https://example.org/"],
    ["https://example.org/voice", "https://example.org/voice/"],
    ["https://example.org/voice/whip?x=1#y", "https://example.org/voice/"],
  ] as const) {
    const addresses = new Addresses(given);
    assert.equal(addresses.stream.href, `${base}ws/v1/transcribe`);
    assert.equal(addresses.tokens.href, `${base}api/v1/tokens`);
    assert.equal(addresses.session("/ws/v1/transcribe/a.b").href, `${base}ws/v1/transcribe/a.b`);
    assert.ok(addresses.whip.href.startsWith(`${base}whip`));
  }
  assert.equal(new Addresses("https://example.org/whip?x=1").whip.search, "?x=1", "what the caller says is kept");
});

test("sockets have their own scheme, and queries no nulls", () => {
  assert.equal(asSocket(new URL("https://example.org/a?b=1")).href, "wss://example.org/a?b=1");
  assert.equal(asSocket(new URL("http://example.org/a")).href, "ws://example.org/a");
  const fields = { language: "en", denoise: null, languages: ["en", "de"], metadata: { a: "b" } };
  assert.equal(withQuery(new URL("http://x/"), fields).search, "?language=en&languages=en%2Cde&metadata=%7B%22a%22%3A%22b%22%7D");
});

test("tokens are told from keys", () => {
  assert.equal(isToken("eyJhbGciOiJIUzI1NiJ9.e30.x"), true);
  assert.equal(isToken("vf_00000000_x.y.z"), false);
});
