import assert from "node:assert/strict";
import { test } from "node:test";

import { toJson, toSrt, toText, toVtt } from "../src/exporters.ts";
import type { FinalEvent } from "../src/events.ts";
import { Transcript, type Utterance } from "../src/transcript.ts";
import { final, revision, word } from "./samples.ts";

function said(...events: FinalEvent[]): readonly Utterance[] {
  const transcript = new Transcript();
  events.forEach((event) => transcript.apply(event));
  return transcript.utterances;
}

test("text is one utterance a line, without the empty ones", () => {
  const utterances = said(final(1, " One."), final(2, "", { start: 5 }), final(3, "Three.", { start: 9 }));
  assert.equal(toText(utterances), "One.\nThree.\n");
});

test("text leaves a line between sessions", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "One."));
  transcript.startSession();
  transcript.apply(final(1, "Two."));
  assert.equal(toText(transcript.utterances), "One.\n\nTwo.\n");
});

test("nothing said is an empty file of each kind", () => {
  assert.equal(toText([]), "");
  assert.equal(toSrt([]), "");
  assert.equal(toVtt([]), "WEBVTT\n");
  assert.deepEqual(JSON.parse(toJson([])).utterances, []);
});

test("SubRip counts cues, writes commas and carries minutes and hours", () => {
  const utterances = said(final(1, "One two."), final(2, "Late.", { start: 3725.5 }));
  assert.equal(
    toSrt(utterances),
    "1\n00:00:00,000 --> 00:00:01,000\nOne two.\n\n2\n01:02:05,500 --> 01:02:06,000\nLate.\n",
  );
});

test("a time that rounds up to a second carries over", () => {
  const utterances = said(final(1, "Hm.", { words: [word("Hm.", 59.9996, 60.9996)] }));
  assert.match(toSrt(utterances), /00:01:00,000 --> 00:01:01,000/);
});

test("WebVTT escapes what would be markup", () => {
  const vtt = toVtt(said(final(1, "a<b> & c --> d")));
  assert.equal(vtt, "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\na&lt;b&gt; &amp; c --&gt; d\n");
});

test("a long utterance becomes cues of at most two lines of 42 characters and 7 seconds, each starting at its word", () => {
  const text = Array.from({ length: 40 }, (_, index) => `word${index}`).join(" ");
  const blocks = toSrt(said(final(1, text))).trim().split("\n\n");
  assert.ok(blocks.length > 2);
  const seconds = (time: string): number => {
    const [hours, minutes, rest] = time.split(":");
    return Number(hours) * 3600 + Number(minutes) * 60 + Number(rest?.replace(",", "."));
  };
  let endBefore = 0;
  for (const block of blocks) {
    const [, times = "", ...lines] = block.split("\n");
    const [start = 0, end = 0] = times.split(" --> ").map(seconds);
    assert.ok(lines.length <= 2 && lines.every((line) => line.length <= 42), block);
    assert.ok(end - start <= 7, block);
    assert.ok(start >= endBefore, block);
    const index = Number(/word(\d+)/.exec(lines[0] ?? "")?.[1]);
    assert.equal(start, index / 2);
    endBefore = end;
  }
  assert.equal(blocks.map((block) => block.split("\n").slice(2).join(" ")).join(" "), text);
});

test("text without spaces is not split at words and not joined by spaces", () => {
  const words = [word("今日", 0, 0.4), word("は", 0.4, 0.5), word("良い", 0.5, 0.9), word("天気", 0.9, 1.4)];
  assert.match(toSrt(said(final(1, "今日は良い天気", { words }))), /\n今日は良い天気\n/);
});

test("an utterance without words takes its own times", () => {
  const srt = toSrt(said(final(1, "No times.", { words: [], start: 2, duration: 3 })));
  assert.equal(srt, "1\n00:00:02,000 --> 00:00:05,000\nNo times.\n");
});

test("cues that would overlap end where the next one begins", () => {
  const utterances = said(
    final(1, "First.", { words: [word("First.", 0, 1.2)] }),
    final(2, "Second.", { start: 1, words: [word("Second.", 1, 2)] }),
  );
  assert.match(toSrt(utterances), /00:00:00,000 --> 00:00:01,000\nFirst\./);
});

test("JSON tells words, language and what a revision replaced", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "I scream."));
  transcript.apply(revision(1, "Ice cream.", { timestamp: 9.1234 }));
  const [utterance] = JSON.parse(toJson(transcript.utterances)).utterances;
  assert.equal(utterance.transcript, "Ice cream.");
  assert.equal(utterance.is_final, true);
  assert.equal(utterance.language, "en");
  assert.deepEqual(utterance.words[1], {
    word: "cream.",
    start: 0.5,
    end: 1,
    confidence: 0.9,
    speaker: null,
    low_confidence: false,
  });
  assert.deepEqual(utterance.superseded, [{ transcript: "I scream.", replaced_at: 9.123 }]);
});
