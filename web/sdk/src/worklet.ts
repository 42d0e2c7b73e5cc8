/** Runs in the audio thread: the track as linear16 at 16 kHz, mono, in messages of 40 ms. Built as a file of its own. */

import { TRACK_FORMAT } from "./audio_format.ts";
import { Resampler, toLinear16 } from "./resampler.ts";

/** What of the audio thread's globals is used; the DOM's types leave them out. */
declare const sampleRate: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;

/** As long as it takes to hear a phoneme: a server waits for 32 ms anyway. */
const MESSAGE_SAMPLES = 0.04 * TRACK_FORMAT.sample_rate;
/** What a block has at most after resampling: 128 samples, of 8 kHz at the least. */
const ROOM_SAMPLES = 512;

class Capture extends AudioWorkletProcessor {
  readonly #resampler = new Resampler(Math.round(sampleRate), TRACK_FORMAT.sample_rate);
  readonly #message = new Int16Array(MESSAGE_SAMPLES + ROOM_SAMPLES);
  #length = 0;

  /** Called for each block of 128 samples. */
  process([channels = []]: Float32Array[][]): boolean {
    const mono = mixed(channels);
    if (mono === null) return true; // nothing is connected yet
    const samples = this.#resampler.feed(mono);
    toLinear16(samples, this.#message, this.#length);
    this.#length += samples.length;
    if (this.#length >= MESSAGE_SAMPLES) {
      const bytes = this.#message.slice(0, this.#length).buffer;
      this.port.postMessage(bytes, [bytes]);
      this.#length = 0;
    }
    return true;
  }
}

/** The mean of the channels. */
function mixed(channels: readonly Float32Array[]): Float32Array | null {
  const first = channels[0];
  if (first === undefined || channels.length === 1) return first ?? null;
  return first.map((_, index) => channels.reduce((sum, channel) => sum + (channel[index] as number), 0) / channels.length);
}

registerProcessor("voiceforge-capture", Capture);
