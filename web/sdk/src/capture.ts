/** A track as bytes: linear16 at 16 kHz, from a worklet, so that a busy page loses nothing. */

import { fault } from "./faults.ts";

/** Built beside this module; pages with a strict policy allow no code from anywhere else. */
const WORKLET = "./voiceforge-worklet.js";
const PROCESSOR = "voiceforge-capture";

/** Listens to a track until it is closed. The track stays the caller's. */
export class Capture {
  readonly #context: AudioContext;
  readonly #source: MediaStreamAudioSourceNode;
  readonly #node: AudioWorkletNode;

  /**
   * Begins to listen.
   *
   * @param onAudio called with 40 ms at a time.
   * @param workletUrl where the worklet lies; absent: beside this module.
   * @throws VoiceForgeError `WORKLET_FAILED`.
   */
  static async open(
    track: MediaStreamTrack,
    onAudio: (bytes: Uint8Array<ArrayBuffer>) => void,
    workletUrl: string | URL = new URL(WORKLET, import.meta.url),
  ): Promise<Capture> {
    // At the hardware's own rate: not every browser resamples a track into a context of another.
    const context = new AudioContext({ latencyHint: "interactive" });
    try {
      await context.audioWorklet.addModule(workletUrl);
      return new Capture(context, track, onAudio);
    } catch (cause) {
      void context.close();
      const hint = "Check that `voiceforge-worklet.js` lies beside the client, or say where by `workletUrl`.";
      throw fault("WORKLET_FAILED", "The audio cannot be read in this browser.", hint, false, cause);
    }
  }

  private constructor(context: AudioContext, track: MediaStreamTrack, onAudio: (bytes: Uint8Array<ArrayBuffer>) => void) {
    this.#context = context;
    this.#source = context.createMediaStreamSource(new MediaStream([track]));
    this.#node = new AudioWorkletNode(context, PROCESSOR, { numberOfInputs: 1, numberOfOutputs: 0 });
    this.#node.port.onmessage = ({ data }: MessageEvent<ArrayBuffer>) => onAudio(new Uint8Array(data));
    this.#source.connect(this.#node);
    // Held back until a gesture, or by a telephone call: it goes on as soon as the browser lets it.
    context.addEventListener("statechange", () => this.#goOn());
    this.#goOn();
  }

  close(): void {
    this.#node.port.onmessage = null;
    this.#source.disconnect();
    void this.#context.close();
  }

  #goOn(): void {
    const { state } = this.#context;
    if (state !== "running" && state !== "closed") void this.#context.resume().catch(() => undefined);
  }
}
