/** One WebSocket: opened, or why not; messages both ways; closed with a code that says what was meant. */

import { asSocket } from "./addresses.ts";
import { errorFromResponse, type VoiceForgeError } from "./errors.ts";
import { connectionLost, fault, notConnected } from "./faults.ts";
import { request } from "./http.ts";
import type { Pipe } from "./outbox.ts";
import type { Connection, Hears } from "./transport.ts";

/** The session is over, by our own hand (RFC 6455 §7.4.1). */
const DONE = 1000;
/** Of our own: this connection is given up, the session is not. */
const GIVEN_UP = 4002;
/** The server's: another connection has taken the session up. */
const REPLACED = 4001;
/** The server will not have what we send, and would not have it again (RFC 6455 §7.4.1). */
const REFUSED: ReadonlySet<number> = new Set([1002, 1003, 1007, 1008, 1009]);
/** What a plain GET is answered by an address that speaks WebSocket only, and had nothing else to say against us. */
const UPGRADE_REQUIRED = 426;

export class Socket implements Connection, Pipe {
  readonly #socket: WebSocket;
  #hears: Hears | null;
  #isKept = true;

  /**
   * Connects.
   *
   * @param url by `http:` or `https:`.
   * @throws VoiceForgeError why not; the signal's reason as it is.
   */
  static async open(url: URL, hears: Hears, signal: AbortSignal): Promise<Socket> {
    const socket = new WebSocket(asSocket(url));
    const isOpen = await new Promise<boolean>((resolve, reject) => {
      socket.addEventListener("open", () => resolve(true), { once: true });
      socket.addEventListener("close", () => resolve(false), { once: true });
      const abandon = (): void => {
        reject(signal.reason);
        socket.close(GIVEN_UP);
      };
      if (signal.aborted) abandon();
      else signal.addEventListener("abort", abandon, { once: true });
    });
    if (!isOpen) throw await whyRefused(url, signal);
    return new Socket(socket, hears);
  }

  private constructor(socket: WebSocket, hears: Hears) {
    this.#socket = socket;
    this.#hears = hears;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data === "string") this.#hears?.message(data);
    });
    socket.addEventListener("close", ({ code }) => {
      const told = this.#hears;
      this.#hears = null;
      told?.lost(lostBy(code));
    });
  }

  get isOpen(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  get bufferedAmount(): number {
    return this.#socket.bufferedAmount;
  }

  send(data: string | Uint8Array<ArrayBuffer>): void {
    if (!this.isOpen) throw notConnected();
    this.#socket.send(data);
  }

  mute(): void {
    this.#hears = null;
    this.#isKept = false;
  }

  close(): void {
    this.#hears = null;
    this.#socket.close(this.#isKept ? DONE : GIVEN_UP);
  }
}

function lostBy(code: number): VoiceForgeError {
  if (code === REPLACED) {
    return fault("REPLACED", "Another connection has taken this session up.", "It goes on there.");
  }
  if (!REFUSED.has(code)) return connectionLost();
  return fault("SOCKET_REFUSED", `The server closed the connection with code ${code}.`, "Start again.");
}

/** Browsers do not tell why a handshake failed: the same address is asked by a plain GET, which is refused for the same. */
async function whyRefused(url: URL, signal: AbortSignal): Promise<VoiceForgeError> {
  const response = await request(url, { method: "GET", cache: "no-store", signal });
  const body = await response.text();
  if (response.ok || response.status === UPGRADE_REQUIRED) {
    const hint = "Check that proxies on the way let WebSockets pass, and try again.";
    return fault("SOCKET_FAILED", "The server answers, but a WebSocket does not get through to it.", hint, true);
  }
  return errorFromResponse(response.status, body, response.headers.get("Retry-After"));
}
