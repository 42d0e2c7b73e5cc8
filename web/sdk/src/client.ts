/** One speaker's session at a VoiceForge server: audio to it, text from it, over one connection after another. */

import { Addresses } from "./addresses.ts";
import { Emitter } from "./emitter.ts";
import type { VoiceForgeError } from "./errors.ts";
import { parseEvent, type ReadyEvent, type ResumedEvent, type ServerEvent } from "./events.ts";
import * as faults from "./faults.ts";
import { limited } from "./limited.ts";
import { Link } from "./link.ts";
import { watchNetwork } from "./network.ts";
import type { ClientEvents, ClientOptions, ConnectionState, SessionConfig, TransportName } from "./options.ts";
import { Pulse } from "./pulse.ts";
import { Patience, persist, reasonOf } from "./resuming.ts";
import { Sequence } from "./sequence.ts";
import { Source } from "./source.ts";
import { NO_STATS, type ConnectionStats } from "./stats.ts";
import { Told } from "./told.ts";
import type { Transport } from "./transport.ts";
import { isBlocked, wayBy, waysOf } from "./ways.ts";
import { WebSocketWay } from "./websocket.ts";

/** The server gives a peer as long to connect. */
const CONNECT_TIMEOUT_MS = 15_000;
/** The server takes up to 10 s to flush its finals when it stops; a client need not wait longer. */
const CLOSE_TIMEOUT_MS = 10_000;

/** What may be told to one connection alone, and need not count among the session's events. */
const OF_CONNECTION: ReadonlySet<string> = new Set(["resumed", "reconnect", "warning"]);

/** Opens one session, goes on with it after losses of its connection, and closes it. */
export class VoiceForgeClient extends Emitter<ClientEvents> {
  readonly #options: ClientOptions;
  readonly #addresses: Addresses;
  readonly #sequence = new Sequence();
  readonly #told = new Told();
  readonly #abort = new AbortController();
  readonly #pulse: Pulse;
  readonly #patience = new Patience();
  #state: ConnectionState = "idle";
  #sessionId: string | null = null;
  #source: Source | null = null;
  #transport: Transport | null = null;
  #link: Link | null = null;
  /** Connections that were given up. They are closed once the session is safe elsewhere, or over. */
  #retired: Link[] = [];
  /** Changes that the server has not answered yet: they may have been lost with a connection. */
  #unconfirmed: SessionConfig | null = null;
  #unwatch = (): void => undefined;

  constructor(options: ClientOptions) {
    super();
    this.#options = options;
    this.#addresses = new Addresses(options.url);
    this.#pulse = new Pulse({
      ping: () => this.#link?.isOpen && this.#send({ type: "keep_alive" }),
      dead: () => this.#lose(faults.connectionLost()),
      received: async () => (this.#mayResume ? ((await this.#transport?.received()) ?? null) : null),
    });
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Names the session in the server's log; null before `ready`. */
  get sessionId(): string | null {
    return this.#sessionId;
  }

  /** The way that is used or tried; null before the first. */
  get transport(): TransportName | null {
    return this.#transport?.name ?? null;
  }

  /** What is being sent, for a level meter; null before it is open and after the end. */
  get audioTrack(): MediaStreamTrack | null {
    return this.#source?.track ?? null;
  }

  /**
   * Opens the microphone where no track was given, connects, and resolves once the server is `ready`.
   *
   * @throws VoiceForgeError why it did not work; the client is closed then.
   */
  async connect(): Promise<ReadyEvent> {
    if (this.#state !== "idle") throw faults.alreadyUsed();
    this.#setState("connecting");
    try {
      const { audio = {}, audioFormat } = this.#options;
      if (audioFormat === undefined) {
        this.#source = await Source.open(audio, this.#abort.signal, () => this.#onTrackEnded());
      }
      const ready = await this.#firstConnection();
      if (this.#options.resume !== false) this.#unwatch = watchNetwork(() => this.#onNetworkChange());
      return ready;
    } catch (cause) {
      this.#end("error");
      throw faults.toldOf(cause);
    }
  }

  /**
   * Changes the running session; what is absent stays. A refusal comes as an `error` event.
   *
   * @throws VoiceForgeError `NOT_CONNECTED`; while the session is being taken up it waits for that instead.
   */
  configure(changes: SessionConfig): void {
    if (this.#state !== "resuming") this.#send({ type: "configure", config: changes });
    this.#unconfirmed = { ...this.#unconfirmed, ...changes };
  }

  /**
   * Ends the running utterance now; its final follows.
   *
   * @throws VoiceForgeError `NOT_CONNECTED`.
   */
  finalize(): void {
    this.#send({ type: "finalize" });
  }

  /**
   * Takes bytes of `audioFormat`, also while the connection is being taken up again.
   *
   * Resolves once there is room for more. Who brings recorded audio waits for that; a live source need not: what waits is
   * bounded, and the oldest is dropped first.
   *
   * @throws VoiceForgeError `NO_AUDIO_FORMAT`, `NOT_CONNECTED`.
   */
  async sendAudio(bytes: Uint8Array): Promise<void> {
    if (this.#options.audioFormat === undefined) throw faults.noAudioFormat();
    if (!(this.#transport instanceof WebSocketWay) || this.#state === "closing" || this.#state === "closed") {
      throw faults.notConnected();
    }
    await this.#transport.push(bytes);
  }

  /** Stops listening at once, waits at most 10 s for the last finals and `closed`, then lets go of everything. */
  async close(): Promise<void> {
    if (this.#state === "closed" || this.#state === "closing") return;
    if (!this.#link?.isOpen || this.#state === "resuming") return this.#end("client");
    const closed = new Promise<void>((resolve) => this.on("closed", () => resolve()));
    this.#setState("closing");
    this.#source?.stop();
    const timer = setTimeout(() => this.#end("client"), CLOSE_TIMEOUT_MS);
    await this.#transport?.flushed();
    if (this.#link?.isOpen) this.#send({ type: "close_stream" });
    await closed;
    clearTimeout(timer);
  }

  /** Lets go of everything now, without waiting for the last finals: for a page that is being left. */
  abort(): void {
    this.#end("client");
  }

  /** What was measured since the call before. */
  async stats(): Promise<ConnectionStats> {
    const stats = (await this.#transport?.stats()) ?? NO_STATS;
    return { ...stats, rttS: stats.rttS ?? this.#pulse.roundTripS };
  }

  async #firstConnection(): Promise<ReadyEvent> {
    const [first, second] = waysOf(this.#options);
    try {
      return await this.#openBy(first);
    } catch (cause) {
      const error = faults.toldOf(cause);
      if (second === undefined || !isBlocked(error) || this.#abort.signal.aborted) throw error;
      this.#closeConnections();
      this.#transport?.end(false);
      this.emit("warning", faults.udpBlocked(error));
      return await this.#openBy(second);
    }
  }

  async #openBy(name: TransportName): Promise<ReadyEvent> {
    const warn = (error: VoiceForgeError): void => this.emit("warning", error);
    this.#transport = wayBy(name, this.#options, { addresses: this.#addresses, track: this.audioTrack, warn });
    const limitMs = this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const limits = { limitMs, late: () => faults.timedOut(limitMs), signal: this.#abort.signal };
    return await limited(limits, async (signal) => (await this.#reach(null, signal)) as ReadyEvent);
  }

  /** Makes a connection the current one, and waits until the server has greeted it. */
  async #reach(after: number | null, signal: AbortSignal): Promise<ReadyEvent | ResumedEvent> {
    const transport = this.#transport as Transport;
    const link = new Link({
      message: (text) => this.#onMessage(text),
      flows: (isFlowing) => this.#onFlow(isFlowing),
      lost: (error) => this.#lose(error),
    });
    this.#retire();
    this.#link = link;
    return await link.open((hears) => transport.connect(after, hears, signal), signal);
  }

  #onMessage(text: string): void {
    if (this.#state === "closed") return;
    this.#pulse.heard();
    const event = parseEvent(text);
    if (event === null) return this.emit("warning", faults.malformedEvent());
    const step = this.#sequence.take(event.seq);
    if (step === "duplicate" && !OF_CONNECTION.has(event.type)) return;
    if (step !== null && step !== "duplicate") this.emit("gap", step);
    if (event.type === "unknown") return;
    if ((event.type === "interim" || event.type === "final") && this.#told.isKnown(event)) return;
    this.emit("event", event);
    this.#dispatch(event);
  }

  #dispatch(event: ServerEvent): void {
    switch (event.type) {
      case "pong":
        return this.#pulse.answered();
      case "ready":
        return this.#onReady(event);
      case "resumed":
        return this.#onResumed(event);
      case "reconnect":
        return this.#lose(faults.connectionLost());
      case "warning":
        return this.emit("warning", faults.serverError(event.error));
      case "error":
        this.#unconfirmed = null;
        return this.emit("error", faults.serverError(event.error));
      case "closed":
        return this.#end(event.reason);
      default:
        return this.emit(event.type, event);
    }
  }

  /** Once at first, and again after each `configure`. */
  #onReady(event: ReadyEvent): void {
    if (this.#state === "connecting") {
      this.#sessionId = event.session_id;
      this.#setState("connected");
      this.#pulse.start();
      this.#transport?.greeted(event);
      this.#link?.greeted(event);
    }
    this.#unconfirmed = null;
    this.emit("ready", event);
  }

  #onResumed(event: ResumedEvent): void {
    if (this.#state !== "resuming") return;
    const keptLostS = this.#transport?.greeted(event) ?? null;
    const awayS = this.#pulse.silentS;
    this.#closeRetired();
    this.#setState("connected");
    this.#pulse.start();
    this.#link?.greeted(event);
    if (this.#unconfirmed !== null) this.#send({ type: "configure", config: this.#unconfirmed });
    const lostAudioS = this.#transport?.name === "webrtc" ? awayS : keptLostS;
    this.emit("resumed", { awayS, lostAudioS, isElsewhere: event.is_elsewhere === true });
  }

  #onFlow(isFlowing: boolean): void {
    if (!isFlowing && this.#state === "connected") {
      this.#setState("interrupted");
      if (this.#mayResume) this.#pulse.doubt();
    } else if (isFlowing && this.#state === "interrupted") {
      this.#setState("connected");
    }
  }

  #onNetworkChange(): void {
    if (this.#state === "resuming") this.#patience.hurry();
    else if (this.#mayResume) this.#pulse.doubt();
  }

  /** The device was unplugged or its permission withdrawn. */
  #onTrackEnded(): void {
    if (this.#state === "closed" || this.#state === "closing") return;
    this.emit("error", faults.microphoneLost());
    void this.close();
  }

  #send(message: object): void {
    if (!this.#link?.isOpen) throw faults.notConnected();
    this.#link.send(JSON.stringify(message));
  }

  get #mayResume(): boolean {
    return this.#options.resume !== false && (this.#transport?.windowS ?? 0) > 0;
  }

  /** A connection that stood is gone. One that was still being made says so to who makes it. */
  #lose(error: VoiceForgeError): void {
    if (this.#state === "closed" || this.#state === "connecting" || this.#state === "resuming") return;
    if (this.#state === "closing") return this.#end("peer_lost");
    if (error.retryable && this.#mayResume) void this.#resume();
    else this.#fail(error);
  }

  async #resume(): Promise<void> {
    const windowS = this.#transport?.windowS ?? 0;
    this.#setState("resuming");
    this.#pulse.stop();
    this.#retire();
    const options = { windowS, patience: this.#patience, signal: this.#abort.signal, now: () => performance.now() };
    try {
      await persist((signal) => this.#reach(this.#sequence.last ?? -1, signal), options);
    } catch (cause) {
      if (!this.#abort.signal.aborted) this.#fail(faults.toldOf(cause));
    }
  }

  #fail(error: VoiceForgeError): void {
    this.emit("error", error);
    this.#end(reasonOf(error));
  }

  #retire(): void {
    if (this.#link === null) return;
    this.#link.mute();
    this.#retired.push(this.#link); // a handful: attempts are bounded by the window
    this.#link = null;
  }

  #closeRetired(): void {
    for (const link of this.#retired.splice(0)) link.close();
  }

  #closeConnections(): void {
    this.#closeRetired();
    this.#link?.close();
    this.#link = null;
  }

  #end(reason: string): void {
    if (this.#state === "closed") return;
    this.#pulse.stop();
    this.#unwatch();
    this.#transport?.end(this.#state === "resuming" && reason === "client");
    this.#source?.stop();
    this.#setState("closed");
    this.#abort.abort(faults.closedHere());
    this.#closeConnections();
    this.#source = null;
    this.emit("closed", { reason });
  }

  #setState(state: ConnectionState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.emit("state", state);
  }
}
