/** ICE candidates around an offer that is sent once: waits a little, and sends the rest after it. */

import type { Candidate } from "./sdpfrag.ts";

/** Host candidates take some milliseconds; an ICE server that does not answer would take 5 to 40 seconds. */
const GATHERING_MS = 1_000;

type Send = (candidates: readonly Candidate[], last: boolean) => Promise<boolean>;

/** Follows the gathering of one peer connection. Make it before `setLocalDescription`. */
export class LateCandidates {
  readonly #pc: RTCPeerConnection;
  #following = false;
  #queue: Candidate[] = [];
  #gatheredAll = false;
  #send: Send | null = null;
  #sending = false;

  constructor(pc: RTCPeerConnection) {
    this.#pc = pc;
    pc.addEventListener("icecandidate", ({ candidate }) => {
      if (!this.#following) return; // the offer itself carries it
      if (candidate === null) this.#gatheredAll = true;
      else this.#queue.push({ candidate: candidate.candidate, sdpMid: candidate.sdpMid });
      void this.#flush();
    });
  }

  /** The offer with the candidates that are there when gathering ends, or after a second. */
  async offer(): Promise<string> {
    await new Promise<void>((resolve) => {
      if (this.#pc.iceGatheringState === "complete") return resolve();
      const timer = setTimeout(resolve, GATHERING_MS);
      this.#pc.addEventListener("icegatheringstatechange", () => {
        if (this.#pc.iceGatheringState !== "complete") return;
        clearTimeout(timer);
        resolve();
      });
    });
    this.#following = this.#pc.iceGatheringState !== "complete";
    return this.#pc.localDescription?.sdp ?? "";
  }

  /** From now on candidates can be sent; `send` says whether the server takes them. */
  async sendBy(send: Send): Promise<void> {
    this.#send = send;
    await this.#flush();
  }

  async #flush(): Promise<void> {
    if (this.#sending) return; // one request at a time: their order is part of the protocol
    this.#sending = true;
    while (this.#send !== null && (this.#queue.length > 0 || this.#gatheredAll)) {
      const [found, last] = [this.#queue, this.#gatheredAll];
      this.#queue = [];
      this.#gatheredAll = false;
      // A server that does not trickle, or that is gone: the candidates of the offer have to do.
      const taken = await this.#send(found, last).catch(() => false);
      if (!taken || last) this.#send = null;
    }
    this.#sending = false;
  }
}
