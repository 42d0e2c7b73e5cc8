import assert from "node:assert/strict";
import { test } from "node:test";

import { Transcript } from "../src/transcript.ts";
import { final, interim, revision } from "./samples.ts";

const texts = (transcript: Transcript): string[] => transcript.utterances.map((utterance) => utterance.text);

test("an interim grows in place and its final replaces it", () => {
  const transcript = new Transcript();
  const first = transcript.apply(interim(1, "hello", ""));
  const second = transcript.apply(interim(1, "hello world", "hello"));
  const third = transcript.apply(final(1, "Hello, world."));
  assert.equal(first?.key, third?.key);
  assert.equal(second?.stable, "hello");
  assert.equal(second?.isFinal, false);
  assert.equal(third?.stable, "Hello, world.");
  assert.equal(third?.language, "en");
  assert.deepEqual(texts(transcript), ["Hello, world."]);
});

test("an interim that comes after its final is ignored", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "Hello."));
  assert.equal(transcript.apply(interim(1, "hell", "")), null);
  assert.deepEqual(texts(transcript), ["Hello."]);
});

test("a stable text that is no prefix of the transcript counts for nothing", () => {
  assert.equal(new Transcript().apply(interim(1, "hello world", "yellow"))?.stable, "");
});

test("a revision replaces a final, keeps its language and remembers the old text", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "I scream."));
  const revised = transcript.apply(revision(1, "Ice cream.", { timestamp: 9 }));
  assert.equal(revised?.text, "Ice cream.");
  assert.equal(revised?.language, "en");
  assert.deepEqual(revised?.superseded, [{ text: "I scream.", replacedAt: 9 }]);
});

test("a revision with the same text leaves no trace", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "Yes."));
  assert.deepEqual(transcript.apply(revision(1, "Yes."))?.superseded, []);
});

test("a revision of an utterance never seen stands for its final", () => {
  const revised = new Transcript().apply(revision(7, "Late."));
  assert.equal(revised?.isFinal, true);
  assert.deepEqual(revised?.superseded, []);
});

test("an utterance whose first event is late takes its place by time, and later changes find it", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "one", { start: 0 }));
  transcript.apply(final(3, "three", { start: 20 }));
  transcript.apply(final(2, "two", { start: 10 }));
  assert.deepEqual(texts(transcript), ["one", "two", "three"]);
  transcript.apply(revision(3, "THREE", { start: 20 }));
  transcript.apply(revision(2, "TWO", { start: 10 }));
  assert.deepEqual(texts(transcript), ["one", "TWO", "THREE"]);
});

test("a second session begins where the first one ended, silence included", () => {
  const transcript = new Transcript();
  transcript.startSession();
  transcript.apply(final(1, "one two", { start: 1, timestamp: 3 }));
  transcript.apply({
    type: "metadata",
    session_id: "s",
    seq: 9,
    duration: 12,
    speech_duration: 1,
    utterances: 1,
    concealed_duration: 0,
    model: "m",
  });
  transcript.startSession();
  const later = transcript.apply(final(1, "three", { start: 2 }));
  assert.equal(later?.session, 1);
  assert.equal(later?.start, 14);
  assert.equal(later?.words[0]?.start, 14);
  assert.deepEqual(texts(transcript), ["one two", "three"]);
});

test("clearing forgets what was said and goes on", () => {
  const transcript = new Transcript();
  transcript.apply(final(1, "one"));
  transcript.clear();
  assert.equal(transcript.utterances.length, 0);
  transcript.apply(final(2, "two", { start: 5 }));
  assert.equal(transcript.utterances[0]?.start, 5);
});

test("a number that is given to what is said later takes nothing away", () => {
  const transcript = new Transcript();
  transcript.apply(final(4, "hello there", { start: 1 }));
  transcript.apply(interim(4, "and now", "and", { start: 9 }));
  transcript.apply(final(4, "and now this", { start: 9 }));
  transcript.apply(revision(4, "and now that", { start: 9 }));
  assert.deepEqual(transcript.utterances.map(({ text, key }) => [key, text]), [["0-4", "hello there"], ["0-4.1", "and now that"]]);
});

test("a final that is told again by another process is the same one", () => {
  const transcript = new Transcript();
  transcript.apply(final(4, "hello there", { start: 1 }));
  transcript.apply(final(4, "hello here", { start: 1.1 }));
  assert.deepEqual(transcript.utterances.map(({ text }) => text), ["hello here"]);
});
