/** The way by a WebSocket: audio as bytes, events as text. It gets through wherever HTTP does. */

import { withQuery, type Addresses } from "./addresses.ts";
import { layoutOf, TRACK_FORMAT } from "./audio_format.ts";
import { Capture } from "./capture.ts";
import { isToken, joinToken } from "./credentials.ts";
import type { ReadyEvent, ResumedEvent } from "./events.ts";
import { whenAborted } from "./limited.ts";
import type { AudioFormat, SessionConfig } from "./options.ts";
import { Outbox } from "./outbox.ts";
import { Socket } from "./socket.ts";
import { NO_STATS, type ConnectionStats } from "./stats.ts";
import type { Connection, Hears, Transport } from "./transport.ts";
import { deleteSession } from "./whip.ts";

export interface WebSocketOptions {
  readonly addresses: Addresses;
  readonly config: SessionConfig | undefined;
  readonly credential: () => Promise<string | undefined>;
  /** What is sent; without one the program brings bytes of `format`. */
  readonly track: MediaStreamTrack | null;
  readonly format: AudioFormat;
  readonly workletUrl: string | URL | undefined;
  /** Audio was dropped unsent, for the connection is too slow. */
  readonly onDropped: (lostS: number) => void;
}

export class WebSocketWay implements Transport {
  readonly name = "websocket";
  readonly outbox: Outbox;
  readonly #options: WebSocketOptions;
  readonly #keptBytes: number;
  #capture: Capture | null = null;
  #socket: Socket | null = null;
  #terms: ReadyEvent["resume"] = null;
  #hasEnded = false;

  constructor(options: WebSocketOptions) {
    this.#options = options.track === null ? options : { ...options, format: TRACK_FORMAT };
    const layout = layoutOf(this.#options.format);
    this.#keptBytes = layout.keptBytes;
    this.outbox = new Outbox(layout, options.onDropped);
  }

  get windowS(): number | null {
    return this.#terms?.window_s ?? null;
  }

  async connect(after: number | null, hears: Hears, signal: AbortSignal): Promise<Connection> {
    await Promise.race([this.#listen(), whenAborted(signal)]);
    this.outbox.pause();
    const url = await this.#url(after, signal);
    signal.throwIfAborted();
    this.#socket = await Socket.open(url, hears, signal);
    return this.#socket;
  }

  greeted(event: ReadyEvent | ResumedEvent): number | null {
    if (event.resume !== undefined) this.#terms = event.resume;
    if (this.#socket === null) return 0;
    return this.outbox.begin(this.#socket, event.type === "ready" ? 0 : (event.received_bytes ?? null));
  }

  /** Takes a program's bytes, which may be changed afterwards; resolves once there is room for more. */
  async push(bytes: Uint8Array): Promise<void> {
    this.outbox.push(new Uint8Array(bytes));
    await this.outbox.until(this.#keptBytes / 2);
  }

  async flushed(): Promise<void> {
    this.#capture?.close();
    this.#capture = null;
    await this.outbox.until(0);
  }

  async stats(): Promise<ConnectionStats> {
    return NO_STATS;
  }

  async received(): Promise<null> {
    return null;
  }

  end(isHeld: boolean): void {
    this.#hasEnded = true;
    if (isHeld && this.#terms) void deleteSession(this.#options.addresses.session(this.#terms.path), undefined);
    this.#capture?.close();
    this.#capture = null;
    this.outbox.end();
  }

  async #listen(): Promise<void> {
    const { track, workletUrl } = this.#options;
    if (track === null || this.#capture !== null) return;
    const capture = await Capture.open(track, (bytes) => this.outbox.push(bytes), workletUrl);
    if (this.#hasEnded) capture.close(); // while the browser was opening it
    else this.#capture = capture;
  }

  async #url(after: number | null, signal: AbortSignal): Promise<URL> {
    const { addresses, config, format, credential } = this.#options;
    if (after !== null && this.#terms) return withQuery(addresses.session(this.#terms.path), { after });
    const shown = await Promise.race([credential(), whenAborted(signal)]);
    const token = shown === undefined || isToken(shown) ? shown : await joinToken(addresses.tokens, shown, signal);
    return withQuery(withQuery(addresses.stream, { ...config, ...format }), { token });
  }
}
