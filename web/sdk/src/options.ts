/** What a client may be told to do, and what it tells. */

import type { VoiceForgeError } from "./errors.ts";
import type {
  FinalEvent,
  InterimEvent,
  MetadataEvent,
  ReadyEvent,
  RevisionEvent,
  ServerEvent,
  SpeechStartedEvent,
  SpeechStoppedEvent,
  UtteranceEndEvent,
} from "./events.ts";
import type { Gap } from "./sequence.ts";

/** What a session may choose, in the wire's own names. What is absent or null takes the server's setting. */
export interface SessionConfig {
  /** A code such as `en`; null lets a multilingual model find out. */
  language?: string | null;
  /** Codes that a multilingual model chooses from; empty or null is all that it knows. */
  languages?: readonly string[] | null;
  /** Text before what is heard, in the spelling to go on with; 800 letters at most, of which the end counts. */
  prompt?: string | null;
  /** Words to expect, as they are to be written: names, terms. About 40 count, the first ones. */
  hotwords?: readonly string[] | null;
  model?: string | null;
  interim_results?: boolean;
  revisions?: boolean;
  settled_finals?: boolean;
  vad_enabled?: boolean;
  /** Silence in ms that ends an utterance, 100 to 10 000. */
  endpointing_ms?: number | null;
  /** What ends an utterance: silence alone, or also what a model makes of each pause, where the server has one. */
  turn_detection?: "silence" | "semantic" | null;
  /** With `semantic`: silence in ms that ends a finished turn, 200 to 10 000. */
  turn_complete_ms?: number | null;
  /** With `semantic`: silence in ms that ends an unfinished turn, 200 to 10 000. */
  turn_incomplete_ms?: number | null;
  /** Gap in ms after the last word at which `utterance_end` comes, 100 to 10 000; it comes with the final if unset. */
  utterance_end_ms?: number | null;
  /** Audio in ms kept from before speech was noticed, 0 to 2000. */
  pre_roll_ms?: number | null;
  /** Speech probability that counts as speech, between 0 and 1. */
  vad_threshold?: number | null;
  /** Confidence below which words are marked `low_confidence`, 0 to 1; 0 marks none. No word is left out. */
  min_confidence?: number | null;
  denoise?: "off" | "speex" | "spectral_gate" | null;
  denoise_branch?: "vad" | "both" | null;
  /** Fields of your own (caller, call id …), given back with every event; at most 16. */
  metadata?: Readonly<Record<string, string>>;
  /** What the tracks of a call are called, in their order. */
  channel_labels?: readonly string[];
}

/** How bytes are written that a program sends by `sendAudio`, in the wire's own names. */
export interface AudioFormat {
  /** Absent: a container, told by its first bytes (WebM, Ogg, WAV …). `opus` is one packet a call. */
  encoding?: "linear16" | "linear32" | "float32" | "mulaw" | "alaw" | "opus" | "ogg-opus" | "flac";
  /** Hz; needed for `linear16`, `linear32` and `float32`. */
  sample_rate?: number;
  /** Interleaved; 1 if absent. */
  channels?: number;
  /** Whether each channel is transcribed by itself. */
  multichannel?: boolean;
}

/** A way to the server. */
export type TransportName = "webrtc" | "websocket";

export interface ClientOptions {
  /** The server, such as `https://example.org`, or its WHIP endpoint; in a page it may be relative to the page. */
  url: string | URL;
  /**
   * A key, or a join token, or what gets one: a function is asked anew for each session that is opened.
   *
   * It is sent as a bearer token. A WebSocket of a browser has no headers: there a key is first exchanged for a join
   * token, so that no key stands in a URL.
   */
  token?: string | (() => string | Promise<string>);
  config?: SessionConfig;
  /** A track, which stays the caller's, or what to ask of the microphone, which the client opens and stops. */
  audio?: MediaStreamTrack | MediaTrackConstraints;
  /** The program brings the audio itself, by `sendAudio`; no microphone is opened. Over a WebSocket only. */
  audioFormat?: AudioFormat;
  /** `webrtc` if absent. `automatic`: WebRTC, and a WebSocket where UDP does not get through. */
  transport?: TransportName | "automatic";
  /** Whether a connection that is lost is taken up again; true if absent. */
  resume?: boolean;
  /** STUN and TURN servers, or what fetches them; absent: the server is asked before each connection. */
  iceServers?: RTCIceServer[] | (() => Promise<RTCIceServer[]>);
  /** From the offer to `ready`, in ms. Time in which a person is asked for the microphone does not count. */
  connectTimeoutMs?: number;
  /** Where `voiceforge-worklet.js` lies; absent: beside this module. A WebSocket needs it for a track. */
  workletUrl?: string | URL;
}

/**
 * `idle` → `connecting` → `connected` ⇄ `interrupted` → `resuming` → `connected` … → `closing` → `closed`.
 *
 * `interrupted`: no packets pass just now; the path may recover by itself. `resuming`: the connection is gone, and the
 * session is being taken up by a new one. A closed client stays closed: make a new one.
 */
export type ConnectionState = "idle" | "connecting" | "connected" | "interrupted" | "resuming" | "closing" | "closed";

export interface Closing {
  /**
   * The server's own word, or what the client knows: `client` (a close from here), `peer_lost` (no way back was found in
   * time), `gone` (the server has not kept the session), `replaced` (another connection took it up), `error`.
   */
  readonly reason: string;
}

/** A session that goes on after its connection was lost. */
export interface Resumed {
  /** Seconds from the last sign of life to this moment. */
  readonly awayS: number;
  /**
   * Seconds of audio that nobody has heard. By WebRTC all of `awayS`, an estimate; by WebSocket only what was too old to
   * be kept. Null where the program has to begin a new container: what it sent of the old one cannot be gone on with.
   */
  readonly lostAudioS: number | null;
  /** Whether another process has taken the session over. */
  readonly isElsewhere: boolean;
}

export interface ClientEvents {
  state: ConnectionState;
  ready: ReadyEvent;
  interim: InterimEvent;
  final: FinalEvent;
  revision: RevisionEvent;
  speech_started: SpeechStartedEvent;
  speech_stopped: SpeechStoppedEvent;
  utterance_end: UtteranceEndEvent;
  metadata: MetadataEvent;
  /** The session goes on; the events of the time between have come before this. */
  resumed: Resumed;
  warning: VoiceForgeError;
  /** A request that failed, or what ended the session; `closed` follows in the second case. */
  error: VoiceForgeError;
  /** Events were left out. A slow connection loses interims, never finals. */
  gap: Gap;
  /** Once, after the last event. */
  closed: Closing;
  /** Every event of the server, before its own listeners. */
  event: ServerEvent;
}
