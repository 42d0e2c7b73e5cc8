/** One connection of a session as the client holds it: being made, greeted, or given up. */

import type { VoiceForgeError } from "./errors.ts";
import type { ReadyEvent, ResumedEvent } from "./events.ts";
import { closedHere, notConnected } from "./faults.ts";
import { whenAborted } from "./limited.ts";
import type { Connection, Hears } from "./transport.ts";

type Greeting = ReadyEvent | ResumedEvent;

/** Until it is greeted its loss rejects `open`; afterwards it is told to whom it belongs. */
export class Link {
  #hears: Hears | null;
  #connection: Connection | null = null;
  #isMuted = false;
  #greet: (event: Greeting) => void = () => undefined;
  #refuse: ((error: VoiceForgeError) => void) | null = null;

  constructor(hears: Hears) {
    this.#hears = hears;
  }

  get isOpen(): boolean {
    return this.#connection?.isOpen === true;
  }

  /**
   * Connects, and waits for the server's greeting.
   *
   * @throws what `connect` throws, why the connection was lost again, or the signal's reason.
   */
  async open(connect: (hears: Hears) => Promise<Connection>, signal: AbortSignal): Promise<Greeting> {
    const greeted = new Promise<Greeting>((resolve, reject) => {
      this.#greet = resolve;
      this.#refuse = reject;
    });
    greeted.catch(() => undefined); // it may be lost before anybody waits for it
    const connection = await connect({
      message: (text) => this.#hears?.message(text),
      flows: (isFlowing) => this.#hears?.flows(isFlowing),
      lost: (error) => this.#onLost(error),
    });
    this.#connection = connection;
    if (this.#hears === null) {
      if (this.#isMuted) connection.mute();
      else connection.close();
      throw closedHere();
    }
    return await Promise.race([greeted, whenAborted(signal)]);
  }

  /** The server has said who it is. */
  greeted(event: Greeting): void {
    this.#refuse = null;
    this.#greet(event);
  }

  send(text: string): void {
    if (this.#connection === null) throw notConnected();
    this.#connection.send(text);
  }

  /** Hears nothing more, but leaves the connection open. */
  mute(): void {
    this.#hears = null;
    this.#isMuted = true;
    this.#connection?.mute();
  }

  close(): void {
    this.#hears = null;
    this.#isMuted = false;
    this.#connection?.close();
  }

  #onLost(error: VoiceForgeError): void {
    const [refuse, hears] = [this.#refuse, this.#hears];
    if (refuse !== null) refuse(error);
    else hears?.lost(error);
  }
}
