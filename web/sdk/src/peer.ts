/** One peer connection, from its offer to its end. */

import { closedHere, connectionLost, mediaOnOwnComputer, notConnected, unreachableMedia } from "./faults.ts";
import { LateCandidates } from "./late_candidates.ts";
import { whenAborted } from "./limited.ts";
import { isOutOfReach } from "./own_computer.ts";
import { iceCredentials } from "./sdpfrag.ts";
import type { Connection, Hears } from "./transport.ts";
import { trickle, type WhipSession } from "./whip.ts";

/** The data channel's name, whichever side makes it. */
const CHANNEL = "transcripts";

export interface PeerOptions {
  readonly track: MediaStreamTrack;
  readonly iceServers: RTCIceServer[];
  readonly token: string | undefined;
  /** How long after the answer the media may take to connect; null leaves that to the browser, which waits for 15 to 30 s. */
  readonly patienceMs: number | null;
}

/** Sends a track, and carries messages on its data channel. */
export class Peer implements Connection {
  readonly pc: RTCPeerConnection;
  readonly #options: PeerOptions;
  #hears: Hears | null;
  #channel: RTCDataChannel | null = null;
  #patience: ReturnType<typeof setTimeout> | undefined;

  constructor(options: PeerOptions, hears: Hears) {
    this.#options = options;
    this.#hears = hears;
    this.pc = new RTCPeerConnection({ iceServers: options.iceServers, bundlePolicy: "max-bundle" });
    this.pc.addEventListener("connectionstatechange", () => this.#onState());
    this.pc.addEventListener("datachannel", ({ channel }) => channel.label === CHANNEL && this.#listenTo(channel));
  }

  get isOpen(): boolean {
    return this.#channel?.readyState === "open";
  }

  /**
   * Offers, and takes the answer.
   *
   * @param post sends the offer.
   * @throws what `post` throws, and the signal's reason.
   */
  async negotiate(post: (offer: string) => Promise<WhipSession>, signal: AbortSignal): Promise<WhipSession> {
    const aborted = whenAborted(signal);
    this.pc.addTransceiver(this.#options.track, { direction: "sendonly" });
    this.#listenTo(this.pc.createDataChannel(CHANNEL));
    const candidates = new LateCandidates(this.pc);
    await Promise.race([this.pc.setLocalDescription(), aborted]);
    const offer = await Promise.race([candidates.offer(), aborted]);
    const whip = await post(offer);
    if (this.#hears === null) throw closedHere();
    if (this.#options.iceServers.length === 0 && isOutOfReach(offer, whip.answer)) throw mediaOnOwnComputer();
    await this.pc.setRemoteDescription({ type: "answer", sdp: whip.answer });
    const ice = iceCredentials(offer);
    const { token, patienceMs } = this.#options;
    if (ice !== null) void candidates.sendBy((found, last) => trickle(whip, ice, found, last, token));
    if (patienceMs !== null && this.pc.connectionState !== "connected") {
      this.#patience = setTimeout(() => this.#lost(unreachableMedia()), patienceMs);
    }
    return whip;
  }

  send(text: string): void {
    if (this.#channel?.readyState !== "open") throw notConnected();
    this.#channel.send(text);
  }

  mute(): void {
    clearTimeout(this.#patience);
    this.#hears = null;
  }

  close(): void {
    this.mute();
    this.#channel = null;
    this.pc.close();
  }

  #listenTo(channel: RTCDataChannel): void {
    channel.binaryType = "arraybuffer";
    channel.addEventListener("open", () => (this.#channel = channel));
    channel.addEventListener("message", ({ data }: MessageEvent<string | ArrayBuffer>) =>
      this.#hears?.message(typeof data === "string" ? data : new TextDecoder().decode(data)),
    );
    channel.addEventListener("close", () => {
      if (this.#channel === channel) this.#lost(connectionLost());
    });
  }

  #onState(): void {
    const state = this.pc.connectionState;
    if (state === "connected") clearTimeout(this.#patience);
    if (state === "failed") this.#lost(this.#channel === null ? unreachableMedia() : connectionLost());
    else if (state === "disconnected" || state === "connected") this.#hears?.flows(state === "connected");
  }

  #lost(error: Parameters<Hears["lost"]>[0]): void {
    const hears = this.#hears;
    this.mute();
    hears?.lost(error);
  }
}
