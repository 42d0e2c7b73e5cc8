/** A transcript as a file. Pure functions of utterances; those without text are left out. */

import { alignWords } from "./align.ts";
import type { Utterance } from "./transcript.ts";

/** The line length that broadcasters' guides agree on. */
const CUE_LINE_CHARACTERS = 42;
const CUE_LINES = 2;
/** Longer than this and a cue outstays its words. */
const CUE_MAX_S = 7;
/** Shorter than this and a cue flashes by. */
const CUE_MIN_S = 0.5;

/** Words that stand on screen together. */
interface Cue {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** One utterance a line, with a line of its own between sessions. */
export function toText(utterances: readonly Utterance[]): string {
  let session: number | null = null;
  const lines: string[] = [];
  for (const utterance of spoken(utterances)) {
    if (session !== null && session !== utterance.session) lines.push("");
    session = utterance.session;
    lines.push(utterance.text.trim());
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** SubRip. */
export function toSrt(utterances: readonly Utterance[]): string {
  return cues(utterances)
    .map((cue, index) => `${index + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${cue.text}\n`)
    .join("\n");
}

/** WebVTT. */
export function toVtt(utterances: readonly Utterance[]): string {
  const escape = (text: string): string => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const body = cues(utterances).map((cue) => `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${escape(cue.text)}\n`);
  return ["WEBVTT\n", ...body].join("\n");
}

/** Everything that is known, in the wire's own names; times in seconds. */
export function toJson(utterances: readonly Utterance[]): string {
  const body = {
    format: "voiceforge.transcript",
    version: 1,
    utterances: spoken(utterances).map((utterance) => ({
      session: utterance.session,
      start: seconds(utterance.start),
      end: seconds(utterance.end),
      transcript: utterance.text,
      is_final: utterance.isFinal,
      confidence: utterance.confidence,
      language: utterance.language,
      speaker: utterance.speaker,
      words: utterance.words.map((word) => ({ ...word, start: seconds(word.start), end: seconds(word.end) })),
      superseded: utterance.superseded.map((old) => ({ transcript: old.text, replaced_at: seconds(old.replacedAt) })),
    })),
  };
  return `${JSON.stringify(body, null, 2)}\n`;
}

function spoken(utterances: readonly Utterance[]): Utterance[] {
  return utterances.filter((utterance) => utterance.text.trim() !== "");
}

function cues(utterances: readonly Utterance[]): Cue[] {
  const made = spoken(utterances).flatMap(utteranceCues);
  // Players show overlapping cues on top of each other: each ends no later than the next begins.
  return made.map((cue, index) => {
    const next = made[index + 1]?.start ?? Infinity;
    const wanted = Math.max(cue.end, cue.start + CUE_MIN_S);
    return { ...cue, end: Math.max(Math.min(wanted, next), Math.min(cue.end, next), cue.start) };
  });
}

function utteranceCues(utterance: Utterance): Cue[] {
  const segments = alignWords(utterance.text, utterance.words, utterance.text.length);
  const made: Cue[] = [];
  let text = "";
  let start: number | null = null;
  let end = utterance.start;
  const flush = (): void => {
    const lines = wrap(text);
    if (lines.length > 0) made.push({ start: start ?? end, end: Math.max(end, start ?? end), text: lines.join("\n") });
    text = "";
    start = null;
  };
  for (const segment of segments) {
    if (segment.word !== null) {
      const tooLong = start !== null && segment.word.end - start > CUE_MAX_S;
      if (text.trim() !== "" && (tooLong || wrap(text + segment.text).length > CUE_LINES)) flush();
      start ??= segment.word.start;
      end = segment.word.end;
    }
    text += segment.text;
  }
  if (start === null && made.length === 0) {
    // No word has a time: the utterance as it is.
    start = utterance.start;
    end = utterance.end;
  }
  flush();
  return made;
}

/** Breaks at spaces; a run without spaces is broken where the line is full, as scripts without them need. */
function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const run of text.trim().split(/\s+/)) {
    let rest = run;
    if (line !== "" && line.length + 1 + rest.length <= CUE_LINE_CHARACTERS) {
      line += ` ${rest}`;
      continue;
    }
    if (line !== "") lines.push(line);
    while (rest.length > CUE_LINE_CHARACTERS) {
      lines.push(rest.slice(0, CUE_LINE_CHARACTERS));
      rest = rest.slice(CUE_LINE_CHARACTERS);
    }
    line = rest;
  }
  return line === "" ? lines : [...lines, line];
}

function clock(timeS: number, decimal: "," | "."): string {
  const ms = Math.max(0, Math.round(timeS * 1000));
  const pad = (value: number, digits: number): string => String(Math.floor(value)).padStart(digits, "0");
  return `${pad(ms / 3_600_000, 2)}:${pad((ms / 60_000) % 60, 2)}:${pad((ms / 1000) % 60, 2)}${decimal}${pad(ms % 1000, 3)}`;
}

function seconds(timeS: number): number {
  return Math.round(timeS * 1000) / 1000;
}
