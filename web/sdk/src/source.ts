/** The track that a client sends: the caller's, or that of a microphone which the client opens and stops. */

import { openMicrophone } from "./microphone.ts";

export class Source {
  readonly track: MediaStreamTrack;
  readonly #isOwn: boolean;

  /**
   * Takes the track, or opens the microphone.
   *
   * @param onEnded called when the device goes away; `stop` does not lead to this.
   * @throws VoiceForgeError why there is no microphone; the signal's reason where nobody wants it any more.
   */
  static async open(
    audio: MediaStreamTrack | MediaTrackConstraints,
    signal: AbortSignal,
    onEnded: () => void,
  ): Promise<Source> {
    const isOwn = !(audio instanceof MediaStreamTrack);
    const source = new Source(isOwn ? await openMicrophone(audio) : audio, isOwn);
    if (signal.aborted) {
      source.stop(); // closed while the person was being asked
      throw signal.reason;
    }
    source.track.addEventListener("ended", onEnded);
    return source;
  }

  private constructor(track: MediaStreamTrack, isOwn: boolean) {
    this.track = track;
    this.#isOwn = isOwn;
  }

  /** Lets go of the microphone; a track of the caller's is left alone. */
  stop(): void {
    if (this.#isOwn) this.track.stop();
  }
}
