/** What the browser measured of the connection, from `RTCPeerConnection.getStats`. */

export interface ConnectionStats {
  /** Round trip to the server in seconds, by RTCP where it is known, else by ICE; null until measured. */
  readonly rttS: number | null;
  /** Share of packets lost on the way to the server since its last report, 0 to 1; null until it reports. */
  readonly lossRatio: number | null;
  /** Packets lost since the connection began. */
  readonly packetsLost: number | null;
  /** Jitter that the server sees, in seconds. */
  readonly jitterS: number | null;
  /** Bits of audio sent a second since the sample before; null for the first. */
  readonly bitrateBps: number | null;
}

/** What is known where nothing can be measured. */
export const NO_STATS: ConnectionStats = { rttS: null, lossRatio: null, packetsLost: null, jitterS: null, bitrateBps: null };

/** A point to measure the bit rate from. */
export interface StatsSample {
  readonly atMs: number;
  readonly bytesSent: number;
}

type Entry = Readonly<Record<string, unknown>>;

/**
 * Reads one report.
 *
 * @param entries the report's values.
 * @param before the sample that the call before returned.
 */
export function readStats(
  entries: Iterable<Entry>,
  before: StatsSample | null,
): { stats: ConnectionStats; sample: StatsSample | null } {
  let iceRttS: number | null = null;
  let remote: Entry = {};
  let sample: StatsSample | null = null;
  for (const entry of entries) {
    const type = entry["type"];
    if (type === "candidate-pair" && entry["nominated"] === true) iceRttS = number(entry["currentRoundTripTime"]);
    if (type === "remote-inbound-rtp" && entry["kind"] === "audio") remote = entry;
    if (type === "outbound-rtp" && entry["kind"] === "audio") {
      const [atMs, bytesSent] = [number(entry["timestamp"]), number(entry["bytesSent"])];
      if (atMs !== null && bytesSent !== null) sample = { atMs, bytesSent };
    }
  }
  return {
    stats: {
      rttS: number(remote["roundTripTime"]) ?? iceRttS,
      lossRatio: number(remote["fractionLost"]),
      packetsLost: number(remote["packetsLost"]),
      jitterS: number(remote["jitter"]),
      bitrateBps: bitrate(before, sample),
    },
    sample,
  };
}

/** Bytes that came by the path in use, whatever they say; null while there is none. */
export function bytesReceived(entries: Iterable<Entry>): number | null {
  for (const entry of entries) {
    if (entry["type"] === "candidate-pair" && entry["nominated"] === true) return number(entry["bytesReceived"]);
  }
  return null;
}

function bitrate(before: StatsSample | null, now: StatsSample | null): number | null {
  if (before === null || now === null || now.atMs <= before.atMs) return null;
  return (8 * 1000 * (now.bytesSent - before.bytesSent)) / (now.atMs - before.atMs);
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
