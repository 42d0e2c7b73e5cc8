/** The seam between a client and its ways to a server: what a way can do, and what it tells. */

import type { VoiceForgeError } from "./errors.ts";
import type { ReadyEvent, ResumedEvent } from "./events.ts";
import type { TransportName } from "./options.ts";
import type { ConnectionStats } from "./stats.ts";

/** What one connection tells. After `mute` or `close` of the connection nothing more comes. */
export interface Hears {
  message(text: string): void;
  /** Packets stopped passing, or pass again. */
  flows(isFlowing: boolean): void;
  /** It broke, once. */
  lost(error: VoiceForgeError): void;
}

/** One connection to a session. A session that is resumed has several, one after another. */
export interface Connection {
  /** Whether messages can be sent. */
  readonly isOpen: boolean;
  send(text: string): void;
  /** Tells nothing more, but stays open: a server that sees it closed would take that for the end of the session. */
  mute(): void;
  close(): void;
}

/** A way to a server, for one session. */
export interface Transport {
  readonly name: TransportName;
  /** For how long the server keeps the session once its connection is lost, in seconds; null: it does not. */
  readonly windowS: number | null;
  /**
   * Connects to a new session, or takes the session up.
   *
   * @param after the number of the last event that was seen; null opens a new session.
   * @throws VoiceForgeError what the server refused, or why it was not reached; the signal's reason as it is.
   */
  connect(after: number | null, hears: Hears, signal: AbortSignal): Promise<Connection>;
  /**
   * The server has greeted the newest connection: audio may flow.
   *
   * @returns seconds of audio that were too old to be kept; null where a new container has to begin.
   */
  greeted(event: ReadyEvent | ResumedEvent): number | null;
  /** Waits until all audio has left. */
  flushed(): Promise<void>;
  stats(): Promise<ConnectionStats>;
  /** Bytes that came on the newest connection, whatever they say; null where that is not known. */
  received(): Promise<number | null>;
  /**
   * Lets go of the session and of everything that belongs to it.
   *
   * @param isHeld whether the server waits for us, and is to be told that nobody comes.
   */
  end(isHeld: boolean): void;
}
