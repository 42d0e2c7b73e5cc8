import assert from "node:assert/strict";
import { test } from "node:test";

import { layoutOf } from "../src/audio_format.ts";
import { KeptAudio, MESSAGE_MAX_BYTES } from "../src/kept_audio.ts";
import { Outbox, type Pipe } from "../src/outbox.ts";
import { Resampler, toLinear16 } from "../src/resampler.ts";

const LINEAR = layoutOf({ encoding: "linear16", sample_rate: 16_000 });

/** Bytes that say where they are in the stream. */
function bytes(from: number, to: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: to - from }, (_, index) => (from + index) % 251);
}

/** A socket that takes all, or nothing while it is `full`. */
class FakePipe implements Pipe {
  full = false;
  readonly isOpen = true;
  readonly messages: number[][] = [];
  get bufferedAmount(): number {
    return this.full ? 1e9 : 0;
  }
  get all(): number[] {
    return this.messages.flat();
  }
  send(message: Uint8Array): void {
    this.messages.push([...message]);
  }
}

const small = { ...LINEAR, keptBytes: 100 };

test("a minute of a track is kept, and what bytes without a clock come to", () => {
  assert.equal(LINEAR.keptBytes, 60 * 32_000);
  assert.equal(layoutOf({ encoding: "mulaw" }).bytesPerS, 8_000);
  assert.equal(layoutOf({ encoding: "linear32", sample_rate: 8_000, channels: 2 }).bytesPerS, 64_000);
  const webm = layoutOf({});
  assert.deepEqual([webm.bytesPerS, webm.silence, webm.isPackets], [null, null, false]);
  assert.equal(layoutOf({ encoding: "opus" }).isPackets, true);
});

test("the oldest audio is dropped first, and the rest keeps its place", () => {
  const kept = new KeptAudio(100, false);
  for (let at = 0; at < 250; at += 10) kept.push(bytes(at, at + 10));
  assert.deepEqual([kept.start, kept.end], [150, 250]);
  assert.deepEqual(kept.read(155), bytes(155, 250));
  assert.equal(kept.read(250), null);
});

test("small pieces leave as one message, long ones as several, packets as they are", () => {
  const kept = new KeptAudio(1e6, false);
  kept.push(bytes(0, MESSAGE_MAX_BYTES + 10));
  kept.push(bytes(MESSAGE_MAX_BYTES + 10, MESSAGE_MAX_BYTES + 20));
  assert.equal(kept.read(0)?.length, MESSAGE_MAX_BYTES);
  assert.equal(kept.read(MESSAGE_MAX_BYTES)?.length, 20);
  const packets = new KeptAudio(1e6, true);
  packets.push(bytes(0, 7));
  packets.push(bytes(7, 9));
  assert.deepEqual([packets.read(0)?.length, packets.read(7)?.length], [7, 2]);
});

test("audio of the time between goes on where the server has it to, without a hole or a double", () => {
  const outbox = new Outbox(LINEAR, () => assert.fail("nothing is dropped"));
  const [first, second] = [new FakePipe(), new FakePipe()];
  outbox.begin(first, 0);
  outbox.push(bytes(0, 400));
  outbox.pause();
  outbox.push(bytes(400, 1000));
  assert.equal(outbox.begin(second, 320), 0);
  outbox.push(bytes(1000, 1100));
  assert.deepEqual(first.all, [...bytes(0, 400)]);
  assert.deepEqual(second.all, [...bytes(320, 1100)]);
});

test("what was too old to be kept is silence of the same length, and told", () => {
  const outbox = new Outbox(small, () => assert.fail("told by `begin` instead"));
  outbox.begin(new FakePipe(), 0);
  outbox.push(bytes(0, 50));
  outbox.pause();
  for (let at = 50; at < 250; at += 10) outbox.push(bytes(at, at + 10));
  const pipe = new FakePipe();
  assert.equal(outbox.begin(pipe, 40), 110 / 32_000);
  assert.deepEqual(pipe.all, [...new Array(110).fill(0), ...bytes(150, 250)]);
});

test("bytes that tell no time leave the hole out, and the server's count is kept in mind", () => {
  const outbox = new Outbox({ ...layoutOf({ encoding: "flac" }), keptBytes: 100 }, () => undefined);
  outbox.begin(new FakePipe(), 0);
  outbox.pause();
  for (let at = 0; at < 150; at += 10) outbox.push(bytes(at, at + 10));
  const [second, third] = [new FakePipe(), new FakePipe()];
  outbox.begin(second, 0);
  assert.deepEqual(second.all, [...bytes(50, 150)]);
  outbox.begin(third, 60);
  assert.deepEqual(third.all, [...bytes(110, 150)]);
});

test("a container that cannot be gone on with begins anew", () => {
  const outbox = new Outbox(layoutOf({}), () => undefined);
  outbox.begin(new FakePipe(), 0);
  outbox.push(bytes(0, 90));
  const pipe = new FakePipe();
  assert.equal(outbox.begin(pipe, null), null);
  outbox.push(bytes(7, 9));
  assert.deepEqual(pipe.all, [...bytes(7, 9)]);
});

test("a server that claims more than was sent gets what comes next", () => {
  const outbox = new Outbox(LINEAR, () => undefined);
  outbox.push(bytes(0, 10));
  const pipe = new FakePipe();
  outbox.begin(pipe, 99);
  outbox.push(bytes(10, 12));
  assert.deepEqual(pipe.all, [...bytes(10, 12)]);
});

test("a slow socket is not filled, who waits goes on when there is room, and what is dropped is told once", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const dropped: number[] = [];
  const outbox = new Outbox(small, (lostS) => dropped.push(lostS * 32_000));
  const pipe = new FakePipe();
  pipe.full = true;
  outbox.begin(pipe, 0);
  outbox.push(bytes(0, 60));
  let gone = false;
  const waiting = outbox.until(0).then(() => (gone = true));
  for (let at = 60; at < 140; at += 10) outbox.push(bytes(at, at + 10));
  assert.deepEqual([pipe.messages.length, outbox.unsentBytes], [0, 140]);
  pipe.full = false;
  t.mock.timers.tick(50);
  await waiting;
  assert.equal(gone, true);
  assert.equal(dropped.reduce((sum, one) => sum + one, 0), 60);
  assert.deepEqual(pipe.all, [...new Array(60).fill(0), ...bytes(60, 140)]);
});

test("an end lets go of who waits", async () => {
  const outbox = new Outbox(LINEAR, () => undefined);
  outbox.push(bytes(0, 10));
  const waiting = outbox.until(0);
  outbox.end();
  await waiting;
});

/** Level of a tone behind the resampler, in dB of what went in; the filter's run-in is left out. */
function passesDb(fromHz: number, toneHz: number): number {
  const input = Float32Array.from({ length: fromHz }, (_, index) => Math.sin((2 * Math.PI * toneHz * index) / fromHz));
  const output = new Resampler(fromHz, 16_000).feed(input).slice(2_000, 14_000);
  const power = output.reduce((sum, sample) => sum + sample * sample, 0) / output.length;
  return 10 * Math.log10(2 * power);
}

for (const fromHz of [48_000, 44_100, 96_000, 16_000, 8_000]) {
  test(`${fromHz} Hz become 16 kHz: speech passes unchanged, nothing folds back`, () => {
    const top = Math.min(7_000, 0.43 * fromHz);
    for (const toneHz of [100, 1_000, 3_000, top]) assert.ok(Math.abs(passesDb(fromHz, toneHz)) < 0.1, `${toneHz} Hz`);
    if (fromHz <= 16_000) return;
    for (const toneHz of [8_100, 9_000, 15_900, 20_000]) assert.ok(passesDb(fromHz, toneHz) < -60, `${toneHz} Hz`);
  });
}

test("what comes out does not depend on how the input is cut, and no sample is lost", () => {
  const input = Float32Array.from({ length: 44_100 }, (_, index) => Math.sin(index / 9));
  const whole = new Resampler(44_100, 16_000).feed(input);
  const resampler = new Resampler(44_100, 16_000);
  const pieces: number[] = [];
  for (let at = 0, size = 1; at < input.length; at += size, size = (size * 7) % 129 || 1) {
    pieces.push(...resampler.feed(input.subarray(at, at + size)));
  }
  assert.equal(whole.length, 16_000);
  assert.deepEqual(pieces, [...whole]);
});

test("16 bits are clipped, not wrapped", () => {
  const into = new Int16Array(4);
  toLinear16(Float32Array.of(2, -2, 0.5), into, 1);
  assert.deepEqual([...into], [0, 32_767, -32_767, 16_384]);
});
