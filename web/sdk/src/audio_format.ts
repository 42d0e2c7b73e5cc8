/** What the encodings of a stream of bytes come to: how much a second is, and what silence looks like. */

import type { AudioFormat } from "./options.ts";

/** What a track is sent as: what the server's models hear. */
export const TRACK_FORMAT = { encoding: "linear16", sample_rate: 16_000 } as const satisfies AudioFormat;

/** Sent audio is kept for so long: the server's window, what it had not yet settled before, and as much again. */
const KEPT_S = 60;
/** Where bytes do not tell time: 60 s of 256 kbit/s, more than a browser records with. */
const KEPT_BYTES = 2 * 1024 * 1024;
/** Rates of telephones, where none is told. */
const TELEPHONE_HZ = 8_000;

const PLAIN: Readonly<Record<string, { width: number; silence: number; rate?: number }>> = {
  linear16: { width: 2, silence: 0 },
  linear32: { width: 4, silence: 0 },
  float32: { width: 4, silence: 0 },
  mulaw: { width: 1, silence: 0xff, rate: TELEPHONE_HZ },
  alaw: { width: 1, silence: 0xd5, rate: TELEPHONE_HZ },
};

/** What follows from a format. */
export interface Layout {
  /** Null where bytes do not tell time. */
  readonly bytesPerS: number | null;
  /** The byte that is silence; null where silence cannot be written. */
  readonly silence: number | null;
  readonly isPackets: boolean;
  readonly keptBytes: number;
}

export function layoutOf(format: AudioFormat): Layout {
  const plain = format.encoding === undefined ? undefined : PLAIN[format.encoding];
  const rate = format.sample_rate ?? plain?.rate;
  if (plain === undefined || rate === undefined) {
    return { bytesPerS: null, silence: null, isPackets: format.encoding === "opus", keptBytes: KEPT_BYTES };
  }
  const bytesPerS = plain.width * rate * (format.channels ?? 1);
  return { bytesPerS, silence: plain.silence, isPackets: false, keptBytes: KEPT_S * bytesPerS };
}
