/** One speaker's connection to a VoiceForge server: audio by WebRTC, text by its data channel, set up by WHIP. */

import { Emitter } from "./emitter.ts";
import { VoiceForgeError, wireError } from "./errors.ts";
import {
  parseEvent,
  type FinalEvent,
  type InterimEvent,
  type MetadataEvent,
  type ReadyEvent,
  type RevisionEvent,
  type ServerEvent,
  type SpeechStartedEvent,
  type SpeechStoppedEvent,
  type UtteranceEndEvent,
  type WireError,
} from "./events.ts";
import { Heartbeat, TICK_INTERVAL_MS } from "./heartbeat.ts";
import { LateCandidates } from "./late_candidates.ts";
import { openMicrophone } from "./microphone.ts";
import { iceCredentials } from "./sdpfrag.ts";
import { Sequence, type Gap } from "./sequence.ts";
import { readStats, type ConnectionStats, type StatsSample } from "./stats.ts";
import { createSession, deleteSession, trickle, type WhipSession } from "./whip.ts";

/** The data channel's name, whichever side makes it. */
const CHANNEL = "transcripts";
/** The server gives a peer as long to connect. */
const CONNECT_TIMEOUT_MS = 15_000;
/** The server takes up to 10 s to flush its finals when it stops; a client need not wait longer. */
const CLOSE_TIMEOUT_MS = 10_000;

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

export interface ClientOptions {
  /** The WHIP endpoint, such as `https://example.org/whip`; in a page it may be relative to the page. */
  url: string | URL;
  /** Sent as a bearer token. */
  token?: string;
  config?: SessionConfig;
  /** A track, which stays the caller's, or what to ask of the microphone, which the client opens and stops. */
  audio?: MediaStreamTrack | MediaTrackConstraints;
  /** STUN and TURN servers; `fetchServerInfo` brings those that the server hands out. */
  iceServers?: RTCIceServer[];
  /** From the offer to `ready`, in ms. Time in which a person is asked for the microphone does not count. */
  connectTimeoutMs?: number;
}

/**
 * `idle` → `connecting` → `connected` ⇄ `interrupted` → `closing` → `closed`.
 *
 * `interrupted`: no packets pass just now; the connection may recover by itself, or it fails and is `closed`. A closed
 * client stays closed: a session cannot be resumed yet, so begin anew with a new client.
 */
export type ConnectionState = "idle" | "connecting" | "connected" | "interrupted" | "closing" | "closed";

export interface Closing {
  /** The server's own word, `client` for a close from here, `peer_lost` or `error` where the server could say nothing. */
  readonly reason: string;
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

/** Connects once, speaks, and closes. */
export class VoiceForgeClient extends Emitter<ClientEvents> {
  readonly #options: ClientOptions;
  readonly #sequence = new Sequence();
  readonly #abort = new AbortController();
  #state: ConnectionState = "idle";
  #sessionId: string | null = null;
  #track: MediaStreamTrack | null = null;
  #pc: RTCPeerConnection | null = null;
  #channel: RTCDataChannel | null = null;
  #whip: WhipSession | null = null;
  #heartbeat: Heartbeat | null = null;
  #ticker: ReturnType<typeof setInterval> | undefined;
  #statsSample: StatsSample | null = null;

  constructor(options: ClientOptions) {
    super();
    this.#options = options;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Names the session in the server's log; null before `ready`. */
  get sessionId(): string | null {
    return this.#sessionId;
  }

  /** What is being sent, for a level meter; null before it is open and after the end. */
  get audioTrack(): MediaStreamTrack | null {
    return this.#track;
  }

  /**
   * Opens the microphone where no track was given, connects, and resolves once the server is `ready`.
   *
   * @throws VoiceForgeError why it did not work; the client is closed then.
   */
  async connect(): Promise<ReadyEvent> {
    if (this.#state !== "idle") throw clientError("ALREADY_USED", "This client has connected before.", "Make a new one.");
    this.#setState("connecting");
    try {
      this.#track = await this.#openTrack();
      return await this.#negotiate(this.#track);
    } catch (cause) {
      const error = cause instanceof VoiceForgeError ? cause : unexpected(cause);
      this.#end("error");
      throw error;
    }
  }

  /**
   * Changes the running session; what is absent stays. A refusal comes as an `error` event.
   *
   * @throws VoiceForgeError `NOT_CONNECTED`.
   */
  configure(changes: SessionConfig): void {
    this.#send({ type: "configure", config: changes });
  }

  /**
   * Ends the running utterance now; its final follows.
   *
   * @throws VoiceForgeError `NOT_CONNECTED`.
   */
  finalize(): void {
    this.#send({ type: "finalize" });
  }

  /** Stops listening at once, waits at most 10 s for the last finals and `closed`, then lets go of everything. */
  async close(): Promise<void> {
    if (this.#state === "closed" || this.#state === "closing") return;
    if (this.#channel?.readyState !== "open") return this.#end("client");
    const closed = new Promise<void>((resolve) => this.on("closed", () => resolve()));
    this.#setState("closing");
    this.#send({ type: "close_stream" });
    this.#stopOwnTrack();
    const timer = setTimeout(() => this.#end("client"), CLOSE_TIMEOUT_MS);
    await closed;
    clearTimeout(timer);
  }

  /** Lets go of everything now, without waiting for the last finals: for a page that is being left. */
  abort(): void {
    this.#end("client");
  }

  /** What the browser measured since the call before. */
  async stats(): Promise<ConnectionStats> {
    const report = this.#pc === null ? null : await this.#pc.getStats();
    const entries = report === null ? [] : [...(report as unknown as Map<string, Record<string, unknown>>).values()];
    const { stats, sample } = readStats(entries, this.#statsSample);
    this.#statsSample = sample;
    return stats;
  }

  async #openTrack(): Promise<MediaStreamTrack> {
    const audio = this.#options.audio ?? {};
    if (audio instanceof MediaStreamTrack) return audio;
    const track = await openMicrophone(audio);
    if (!this.#abort.signal.aborted) return track;
    track.stop(); // closed while the person was being asked
    throw this.#abort.signal.reason;
  }

  async #negotiate(track: MediaStreamTrack): Promise<ReadyEvent> {
    const { url, token, config, iceServers = [], connectTimeoutMs = CONNECT_TIMEOUT_MS } = this.#options;
    const signal = this.#abort.signal;
    const pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc = pc;
    const timer = setTimeout(() => this.#abort.abort(timedOut(connectTimeoutMs)), connectTimeoutMs);
    try {
      const aborted = new Promise<never>((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason), { once: true }),
      );
      const ready = new Promise<ReadyEvent>((resolve) => this.on("ready", resolve));
      pc.addEventListener("connectionstatechange", () => this.#onConnectionState(pc));
      pc.addEventListener("datachannel", ({ channel }) => channel.label === CHANNEL && this.#listenTo(channel));
      track.addEventListener("ended", () => this.#onTrackEnded());
      pc.addTransceiver(track, { direction: "sendonly" });
      this.#listenTo(pc.createDataChannel(CHANNEL));
      const candidates = new LateCandidates(pc);
      await Promise.race([pc.setLocalDescription(), aborted]);
      const offer = await Promise.race([candidates.offer(), aborted]);
      const whip = await createSession(endpoint(url, config), offer, token, signal);
      if (signal.aborted) {
        void deleteSession(whip, token);
        throw signal.reason;
      }
      this.#whip = whip;
      await pc.setRemoteDescription({ type: "answer", sdp: whip.answer });
      const ice = iceCredentials(offer);
      if (ice !== null) void candidates.sendBy((found, last) => trickle(whip, ice, found, last, token));
      return await Promise.race([ready, aborted]);
    } finally {
      clearTimeout(timer);
    }
  }

  #listenTo(channel: RTCDataChannel): void {
    channel.binaryType = "arraybuffer";
    channel.addEventListener("open", () => (this.#channel = channel));
    channel.addEventListener("message", ({ data }: MessageEvent<string | ArrayBuffer>) =>
      this.#onMessage(typeof data === "string" ? data : new TextDecoder().decode(data)),
    );
    channel.addEventListener("close", () => {
      if (this.#channel === channel) this.#fail(connectionLost());
    });
  }

  #onMessage(text: string): void {
    if (this.#state === "closed") return;
    this.#heartbeat?.heard(performance.now());
    const event = parseEvent(text);
    if (event === null) {
      this.emit("warning", clientError("MALFORMED_EVENT", "The server sent what is no event.", "Update this client."));
      return;
    }
    const step = this.#sequence.take(event.seq);
    if (step === "duplicate") return;
    if (step !== null) this.emit("gap", step);
    if (event.type === "unknown") return;
    this.emit("event", event);
    this.#dispatch(event);
  }

  #dispatch(event: ServerEvent): void {
    switch (event.type) {
      case "pong":
        return;
      case "ready":
        this.#sessionId = event.session_id;
        this.#setState("connected");
        this.#startHeartbeat();
        return this.emit("ready", event);
      case "warning":
      case "error":
        return this.emit(event.type, serverError(event.error));
      case "closed":
        return this.#end(event.reason);
      case "interim":
        return this.emit("interim", event);
      case "final":
        return this.emit("final", event);
      case "revision":
        return this.emit("revision", event);
      case "speech_started":
        return this.emit("speech_started", event);
      case "speech_stopped":
        return this.emit("speech_stopped", event);
      case "utterance_end":
        return this.emit("utterance_end", event);
      case "metadata":
        return this.emit("metadata", event);
    }
  }

  #startHeartbeat(): void {
    this.#heartbeat = new Heartbeat(performance.now());
    this.#ticker = setInterval(() => {
      const beat = this.#heartbeat?.tick(performance.now());
      if (beat === "dead") this.#fail(connectionLost());
      if (beat === "ping" && this.#channel?.readyState === "open") this.#send({ type: "keep_alive" });
    }, TICK_INTERVAL_MS);
  }

  #onConnectionState(pc: RTCPeerConnection): void {
    if (pc.connectionState === "failed") {
      this.#fail(this.#state === "connecting" ? unreachableMedia() : connectionLost());
    } else if (pc.connectionState === "disconnected" && this.#state === "connected") {
      this.#setState("interrupted");
    } else if (pc.connectionState === "connected" && this.#state === "interrupted") {
      this.#setState("connected");
    }
  }

  /** The device was unplugged or its permission withdrawn; `stop()` from here does not lead to this. */
  #onTrackEnded(): void {
    if (this.#state === "closed" || this.#state === "closing") return;
    const hint = "Connect it again, or choose another in the settings, then start again.";
    this.emit("error", clientError("MICROPHONE_LOST", "The microphone went away.", hint, true));
    void this.close();
  }

  #send(message: object): void {
    if (this.#channel?.readyState !== "open") {
      throw clientError("NOT_CONNECTED", "There is no connection to the server.", "Wait for `ready`.");
    }
    this.#channel.send(JSON.stringify(message));
  }

  /** While connecting the failure rejects `connect`; later it is an event. */
  #fail(error: VoiceForgeError): void {
    if (this.#state === "connecting") return this.#abort.abort(error);
    if (this.#state === "closed") return;
    if (this.#state !== "closing") this.emit("error", error);
    this.#end("peer_lost");
  }

  #stopOwnTrack(): void {
    if (this.#track !== null && this.#track !== this.#options.audio) this.#track.stop();
  }

  #end(reason: string): void {
    if (this.#state === "closed") return;
    clearInterval(this.#ticker);
    if (this.#whip !== null) void deleteSession(this.#whip, this.#options.token);
    this.#stopOwnTrack();
    this.#setState("closed");
    this.#abort.abort(clientError("CLOSED", "The client was closed.", "Make a new one to connect again."));
    this.#pc?.close();
    this.#track = null;
    this.#channel = null;
    this.#pc = null;
    this.emit("closed", { reason });
  }

  #setState(state: ConnectionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}

function endpoint(url: string | URL, config: SessionConfig = {}): URL {
  const made = new URL(url, globalThis.document?.baseURI);
  for (const [name, value] of Object.entries(config)) {
    if (value !== undefined && value !== null) made.searchParams.set(name, written(value));
  }
  return made;
}

/** A URL has no lists and no objects: commas, and JSON. */
function written(value: unknown): string {
  return typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : String(value);
}

function clientError(code: string, message: string, hint: string, retryable = false): VoiceForgeError {
  return new VoiceForgeError({ code, message, hint, retryable });
}

function serverError(told: WireError): VoiceForgeError {
  const unnamed = { code: "UNKNOWN_ERROR", message: "The server reported an error.", hint: "", retryable: false };
  return new VoiceForgeError(wireError(told, unnamed) ?? unnamed);
}

function timedOut(limitMs: number): VoiceForgeError {
  const seconds = Math.round(limitMs / 1000);
  const hint = "Where UDP is blocked on the way, the server needs a TURN server.";
  return clientError("CONNECT_TIMEOUT", `No connection within ${seconds} s.`, hint, true);
}

function unreachableMedia(): VoiceForgeError {
  const hint = "The server's UDP ports must be open to this browser, or a TURN server be configured.";
  return clientError("ICE_FAILED", "The server answers, but audio does not get through to it.", hint, true);
}

function connectionLost(): VoiceForgeError {
  return clientError("CONNECTION_LOST", "The connection to the server was lost.", "Start again.", true);
}

function unexpected(cause: unknown): VoiceForgeError {
  const told = cause instanceof Error ? cause.message : String(cause);
  return new VoiceForgeError(
    { code: "CLIENT_FAILED", message: `The browser could not connect: ${told}`, hint: "Try another browser.", retryable: false },
    { cause },
  );
}
