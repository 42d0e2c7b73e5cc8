/**
 * What the server says: one interface an event, in the wire's own names.
 *
 * Every time is stream time in seconds: audio received by the server, counted in samples. No event carries wall time.
 */

/** A word with its place on the stream's clock. */
export interface Word {
  readonly word: string;
  readonly start: number;
  readonly end: number;
  /** How likely the word is right, 0 to 1. */
  readonly confidence: number;
  readonly speaker?: string | null;
  /** Whether `confidence` is below the session's `min_confidence`. A mark only: such words stay in the transcript. */
  readonly low_confidence?: boolean;
}

/** A failure as the server tells it. */
export interface WireError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  readonly retryable: boolean;
}

interface Envelope {
  readonly session_id: string;
  /** Counts a session's events up by one; a jump means that events were left out. */
  readonly seq: number;
  /** The fields that the session was opened with, where it has some. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** Where something was heard, in a call of several channels; absent where there is one without a label. */
interface Heard extends Envelope {
  readonly channel?: number;
  readonly channel_label?: string;
}

/** How a session is taken up once its connection is lost. */
export interface ResumeTerms {
  /** The session's own address. It is a secret. */
  readonly path: string;
  /** For how long the server keeps the session, in seconds. */
  readonly window_s: number;
}

/** The session exists; `config` is what is in force, defaults included. */
export interface ReadyEvent extends Envelope {
  readonly type: "ready";
  readonly config: Readonly<Record<string, unknown>>;
  readonly model: string;
  /** Absent where the session ends with its connection. */
  readonly resume?: ResumeTerms | null;
}

/** The session goes on over this connection; the events that were missed have come before this. */
export interface ResumedEvent extends Envelope {
  readonly type: "resumed";
  readonly stream_time: number;
  /** Up to where the server has the client's bytes of audio; null: a new container begins. By WebRTC there are none. */
  readonly received_bytes?: number | null;
  /** Whether another process has taken the session over. */
  readonly is_elsewhere: boolean;
  readonly resume?: ResumeTerms | null;
}

/** This server is about to let go of the connection: the session is to be taken up by a new one. */
export interface ReconnectEvent extends Envelope {
  readonly type: "reconnect";
  readonly reason: string;
}

/** Somebody began to speak at `at`. */
export interface SpeechStartedEvent extends Heard {
  readonly type: "speech_started";
  readonly at: number;
}

/** Speech ended at `at`; its final follows. */
export interface SpeechStoppedEvent extends Heard {
  readonly type: "speech_stopped";
  readonly at: number;
}

interface Spoken extends Heard {
  readonly utterance_id: number;
  readonly transcript: string;
  /** The share of its words that may be expected to be right. */
  readonly confidence: number;
  readonly start: number;
  readonly duration: number;
  /** The stream time at which the server sent this event. */
  readonly timestamp: number;
  readonly words: readonly Word[];
}

/** What is heard so far of an utterance. `stable` is the leading part of `transcript` that only grows. */
export interface InterimEvent extends Spoken {
  readonly type: "interim";
  readonly stable: string;
  readonly is_final: false;
}

/** The text of a whole utterance, from one decode over all of it. */
export interface FinalEvent extends Spoken {
  readonly type: "final";
  readonly language: string | null;
  readonly language_confidence: number | null;
  readonly speaker: string | null;
  readonly is_final: true;
}

/** A correction of a final; it replaces that final's text and words. */
export interface RevisionEvent extends Spoken {
  readonly type: "revision";
}

/** An utterance is over: its final is out, and `utterance_end_ms`, if set, has passed since `last_word_end`. */
export interface UtteranceEndEvent extends Heard {
  readonly type: "utterance_end";
  readonly utterance_id: number;
  readonly last_word_end: number;
}

/** The totals of a session, sent once, after its last final. */
export interface MetadataEvent extends Envelope {
  readonly type: "metadata";
  readonly duration: number;
  readonly speech_duration: number;
  readonly utterances: number;
  readonly concealed_duration: number;
  readonly model: string;
}

/** The last event of a session. */
export interface ClosedEvent extends Envelope {
  readonly type: "closed";
  /** One word: `client`, `shutdown`, `timeout`, `peer_lost`, `error` … */
  readonly reason: string;
}

/** The answer to `keep_alive`. */
export interface PongEvent extends Envelope {
  readonly type: "pong";
  readonly timestamp: number;
}

/** Something to know that does not end the session. */
export interface WarningEvent extends Envelope {
  readonly type: "warning";
  readonly error: WireError;
}

/** A request that failed; the session goes on unless `closed` follows. */
export interface ErrorEvent extends Envelope {
  readonly type: "error";
  readonly error: WireError;
}

export type ServerEvent =
  | ReadyEvent
  | ResumedEvent
  | ReconnectEvent
  | SpeechStartedEvent
  | SpeechStoppedEvent
  | InterimEvent
  | FinalEvent
  | RevisionEvent
  | UtteranceEndEvent
  | MetadataEvent
  | ClosedEvent
  | PongEvent
  | WarningEvent
  | ErrorEvent;

/** A message of a newer server: counted, so that no gap is seen where there is none, and otherwise left alone. */
export interface UnknownEvent extends Envelope {
  readonly type: "unknown";
}

type FieldType = "string" | "number" | "object" | "array";
type Shape = Readonly<Record<string, FieldType>>;

const SPOKEN: Shape = {
  utterance_id: "number",
  transcript: "string",
  confidence: "number",
  start: "number",
  duration: "number",
  timestamp: "number",
  words: "array",
};

/** The fields without which an event cannot be used; the others may be absent. */
const SHAPES: Readonly<Record<ServerEvent["type"], Shape>> = {
  ready: { config: "object", model: "string" },
  resumed: { stream_time: "number" },
  reconnect: { reason: "string" },
  speech_started: { at: "number" },
  speech_stopped: { at: "number" },
  interim: { ...SPOKEN, stable: "string" },
  final: SPOKEN,
  revision: SPOKEN,
  utterance_end: { utterance_id: "number", last_word_end: "number" },
  metadata: { duration: "number", speech_duration: "number", utterances: "number" },
  closed: { reason: "string" },
  pong: { timestamp: "number" },
  warning: { error: "object" },
  error: { error: "object" },
};

const WORD: Shape = { word: "string", start: "number", end: "number", confidence: "number" };

/**
 * Reads one message of the server.
 *
 * @returns the event; `UnknownEvent` for a type that this client does not know; `null` for anything malformed.
 */
export function parseEvent(text: string): ServerEvent | UnknownEvent | null {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  if (!hasShape(body, { type: "string", session_id: "string", seq: "number" })) return null;
  const type = body["type"] as string;
  if (!Object.hasOwn(SHAPES, type)) {
    return { type: "unknown", session_id: body["session_id"] as string, seq: body["seq"] as number };
  }
  if (!hasShape(body, SHAPES[type as ServerEvent["type"]])) return null;
  const words = body["words"];
  if (Array.isArray(words) && !words.every((word) => hasShape(word, WORD))) return null;
  return body as unknown as ServerEvent;
}

function hasShape(value: unknown, shape: Shape): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return Object.entries(shape).every(([name, type]) => {
    const field = (value as Record<string, unknown>)[name];
    if (type === "array") return Array.isArray(field);
    if (type === "object") return typeof field === "object" && field !== null && !Array.isArray(field);
    return typeof field === type;
  });
}
