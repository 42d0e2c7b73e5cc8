/** Any rate to another by a polyphase filter; no audio API, so that a worklet can use it and a test can measure it. */

/** Of the lower of both rates: up to here everything passes, telephone bandwidth and more; the filter falls behind it. */
const PASS_SHARE = 0.44;
/** Kaiser's β for 70 dB: what would fold back is below the noise of any microphone. */
const BETA = 7.0;
const STOP_DB = 70;

/** Resamples one channel, block by block; what comes out does not depend on how the input is cut. */
export class Resampler {
  readonly #up: number;
  readonly #down: number;
  /** One filter for each place of an output sample between two input samples, newest tap first. */
  readonly #phases: Float32Array[];
  readonly #taps: number;
  #history: Float32Array;
  /** Where the next output sample lies, in steps of 1/up of an input sample behind the next input sample. */
  #position = 0;

  /** @param fromHz,toHz whole numbers. */
  constructor(fromHz: number, toHz: number) {
    const common = divisor(fromHz, toHz);
    this.#up = toHz / common;
    this.#down = fromHz / common;
    const lower = Math.min(fromHz, toHz);
    const width = (0.5 - PASS_SHARE) * lower; // from the end of the pass band to half the lower rate
    // Kaiser's formula, at the rate of the input: order = (A − 8) / (2.285 · 2π · width / rate).
    this.#taps = fromHz === toHz ? 1 : Math.ceil(((STOP_DB - 8) * fromHz) / (2.285 * 2 * Math.PI * width)) + 1;
    const cutoff = ((PASS_SHARE + 0.5) / 2) * (lower / fromHz); // cycles an input sample
    this.#phases = Array.from({ length: this.#up }, (_, phase) => this.#filter(phase, cutoff));
    this.#history = new Float32Array(this.#taps - 1);
  }

  /** The samples that this block completes. */
  feed(block: Float32Array): Float32Array<ArrayBuffer> {
    const [up, down, taps] = [this.#up, this.#down, this.#taps];
    const input = new Float32Array(this.#history.length + block.length);
    input.set(this.#history);
    input.set(block, this.#history.length);
    const count = Math.max(0, Math.ceil((block.length * up - this.#position) / down));
    const output = new Float32Array(count);
    for (let index = 0; index < count; index += 1) {
      const newest = Math.floor(this.#position / up);
      const filter = this.#phases[this.#position % up] as Float32Array;
      let sum = 0;
      for (let tap = 0; tap < taps; tap += 1) sum += (filter[tap] as number) * (input[newest + taps - 1 - tap] as number);
      output[index] = sum;
      this.#position += down;
    }
    this.#position -= block.length * up;
    this.#history = input.slice(block.length);
    return output;
  }

  #filter(phase: number, cutoff: number): Float32Array {
    const taps = this.#taps;
    if (taps === 1) return new Float32Array([1]);
    const middle = (taps - 1) / 2;
    const filter = new Float32Array(taps);
    let sum = 0;
    for (let tap = 0; tap < taps; tap += 1) {
      const away = tap + phase / this.#up - middle; // in input samples
      const edge = away / (middle + 1);
      const window = Math.abs(edge) >= 1 ? 0 : bessel(BETA * Math.sqrt(1 - edge * edge)) / bessel(BETA);
      filter[tap] = window * sinc(2 * cutoff * away);
      sum += filter[tap] as number;
    }
    return filter.map((value) => value / sum); // every phase passes a constant unchanged
  }
}

/** Full scale ±1 to signed 16 bits, clipped. */
export function toLinear16(samples: Float32Array, into: Int16Array, at: number): void {
  for (let index = 0; index < samples.length; index += 1) {
    const sample = Math.max(-1, Math.min(1, samples[index] as number));
    into[at + index] = Math.round(sample * 32_767);
  }
}

function divisor(one: number, other: number): number {
  return other === 0 ? one : divisor(other, one % other);
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** The modified Bessel function of order 0, by its series. */
function bessel(x: number): number {
  let [sum, term] = [1, 1];
  for (let k = 1; term > sum * 1e-9; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
