/** The way by WebRTC: audio by RTP, events by a data channel, set up by WHIP (RFC 9725). */

import { withQuery, type Addresses } from "./addresses.ts";
import type { ReadyEvent, ResumedEvent } from "./events.ts";
import { fault } from "./faults.ts";
import { whenAborted } from "./limited.ts";
import type { ClientOptions, SessionConfig } from "./options.ts";
import { Peer } from "./peer.ts";
import { fetchServerInfo } from "./server_info.ts";
import { bytesReceived, readStats, type ConnectionStats, type StatsSample } from "./stats.ts";
import type { Connection, Hears, Transport } from "./transport.ts";
import { createSession, deleteSession, type WhipSession } from "./whip.ts";

/** A server that says nothing of it, and does not refuse, keeps sessions for so long. */
const DEFAULT_WINDOW_S = 30;

export interface WebRtcOptions {
  readonly addresses: Addresses;
  readonly track: MediaStreamTrack;
  readonly config: SessionConfig | undefined;
  readonly iceServers: ClientOptions["iceServers"];
  /** Gets what a new session is opened with. */
  readonly credential: () => Promise<string | undefined>;
  /** As `PeerOptions.patienceMs`, for the first connection. */
  readonly patienceMs: number | null;
}

export class WebRtc implements Transport {
  readonly name = "webrtc";
  readonly #options: WebRtcOptions;
  #windowS: number | null = DEFAULT_WINDOW_S;
  #peer: Peer | null = null;
  #whip: WhipSession | null = null;
  #token: string | undefined;
  #iceServers: RTCIceServer[] = [];
  #sample: StatsSample | null = null;
  #hasEnded = false;

  constructor(options: WebRtcOptions) {
    this.#options = options;
  }

  get windowS(): number | null {
    return this.#whip === null ? null : this.#windowS;
  }

  async connect(after: number | null, hears: Hears, signal: AbortSignal): Promise<Connection> {
    if (typeof RTCPeerConnection === "undefined") {
      throw fault("WEBRTC_MISSING", "This browser has no WebRTC.", "Use a WebSocket, or another browser.");
    }
    const { addresses, config, track, credential } = this.#options;
    const isNew = after === null || this.#whip === null;
    if (isNew) this.#token = await credential();
    await Promise.race([this.#renewIceServers(signal), whenAborted(signal)]);
    const url = isNew ? withQuery(addresses.whip, config ?? {}) : withQuery(this.#whip!.resource, { after });
    const [token, iceServers] = [this.#token, this.#iceServers];
    const peer = new Peer({ track, iceServers, token, patienceMs: isNew ? this.#options.patienceMs : null }, hears);
    try {
      await peer.negotiate(async (offer) => {
        const whip = await createSession(url, offer, token, signal);
        if (this.#hasEnded) void deleteSession(whip.resource, token); // while the answer was on its way
        this.#whip = whip;
        return whip;
      }, signal);
    } catch (error) {
      peer.close();
      throw error;
    }
    this.#peer = peer;
    this.#sample = null; // another connection counts from 0
    return peer;
  }

  greeted(event: ReadyEvent | ResumedEvent): number | null {
    if (event.resume !== undefined) this.#windowS = event.resume?.window_s ?? null;
    return 0;
  }

  async flushed(): Promise<void> {}

  async stats(): Promise<ConnectionStats> {
    const { stats, sample } = readStats(await this.#report(), this.#sample);
    this.#sample = sample;
    return stats;
  }

  async received(): Promise<number | null> {
    return bytesReceived(await this.#report());
  }

  end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#whip !== null) void deleteSession(this.#whip.resource, this.#token);
  }

  async #report(): Promise<Record<string, unknown>[]> {
    const report = await this.#peer?.pc.getStats();
    return report === undefined ? [] : [...(report as unknown as Map<string, Record<string, unknown>>).values()];
  }

  /** Credentials of TURN servers expire; where none can be had now, the old ones may still do. */
  async #renewIceServers(signal: AbortSignal): Promise<void> {
    const { iceServers, addresses } = this.#options;
    if (Array.isArray(iceServers)) {
      this.#iceServers = iceServers;
      return;
    }
    const fetched = iceServers === undefined ? this.#told(addresses, signal) : iceServers();
    this.#iceServers = (await fetched.catch(() => null)) ?? this.#iceServers;
  }

  async #told(addresses: Addresses, signal: AbortSignal): Promise<RTCIceServer[] | null> {
    const { iceServers } = await fetchServerInfo(addresses.config, this.#token, signal);
    return iceServers.length > 0 ? iceServers : null;
  }
}
