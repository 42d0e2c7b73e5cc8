/** The newest audio that was sent, by its place in the stream, so that it can be sent again. */

/** Messages of a few milliseconds are put together up to this: a second of linear16. The server's limit is 1 MiB. */
export const MESSAGE_MAX_BYTES = 32 * 1024;

/** A piece of the stream that is still there. */
export interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * Bytes addressed by their number in the stream. What is dropped first, once there are more than `maxBytes`: the oldest.
 */
export class KeptAudio {
  readonly #maxBytes: number;
  readonly #isPackets: boolean;
  #pieces: Piece[] = [];
  #end = 0;

  /** @param isPackets whether each message has to stay as it is, as Opus packets do. */
  constructor(maxBytes: number, isPackets: boolean) {
    this.#maxBytes = maxBytes;
    this.#isPackets = isPackets;
  }

  /** The first byte that is still there; where nothing is, the next one that comes. */
  get start(): number {
    return this.#pieces[0]?.at ?? this.#end;
  }

  /** The next byte that comes. */
  get end(): number {
    return this.#end;
  }

  push(bytes: Uint8Array<ArrayBuffer>): void {
    const longest = this.#isPackets ? bytes.length : MESSAGE_MAX_BYTES;
    for (let from = 0; from < bytes.length; from += longest) {
      const piece = bytes.subarray(from, from + longest);
      this.#pieces.push({ at: this.#end, bytes: piece });
      this.#end += piece.length;
    }
    const drop = this.#pieces.findIndex((piece) => this.#end - piece.at <= this.#maxBytes);
    if (drop !== 0) this.#pieces.splice(0, drop < 0 ? this.#pieces.length : drop);
  }

  /** The next message from `position` on, which is between `start` and `end`; null where nothing is left. */
  read(position: number): Uint8Array<ArrayBuffer> | null {
    let index = this.#indexOf(position);
    const parts: Uint8Array[] = [];
    let length = 0;
    for (let piece = this.#pieces[index]; piece !== undefined; piece = this.#pieces[(index += 1)]) {
      const part = piece.at < position ? piece.bytes.subarray(position - piece.at) : piece.bytes;
      if (length > 0 && (this.#isPackets || length + part.length > MESSAGE_MAX_BYTES)) break;
      parts.push(part);
      length += part.length;
    }
    if (length === 0) return null;
    const message = new Uint8Array(length);
    let at = 0;
    for (const part of parts) {
      message.set(part, at);
      at += part.length;
    }
    return message;
  }

  /** Forgets everything; the next byte is the first of a new stream. */
  clear(): void {
    this.#pieces = [];
    this.#end = 0;
  }

  /** The first piece that ends behind `position`, by halving. */
  #indexOf(position: number): number {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const piece = this.#pieces[middle] as Piece;
      if (piece.at + piece.bytes.length <= position) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
