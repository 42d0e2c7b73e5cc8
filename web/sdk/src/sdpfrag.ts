/** Candidates that were found after the offer was sent, as RFC 8840 §4.4 and RFC 9725 §4.3.1 put them on the wire. */

/** One ICE candidate, by the parts of `RTCIceCandidate` that go on the wire. */
export interface Candidate {
  /** `candidate:…`, without `a=`. */
  readonly candidate: string;
  readonly sdpMid: string | null;
}

/** What identifies the ICE generation of an offer. */
export interface IceCredentials {
  readonly ufrag: string;
  readonly password: string;
  /** The first m-line's `mid`: the one that carries the bundle. */
  readonly mid: string;
}

/**
 * Reads the ICE credentials and the first `mid` of an SDP.
 *
 * @returns null where one of them is missing.
 */
export function iceCredentials(sdp: string): IceCredentials | null {
  const attribute = (name: string): string | undefined =>
    new RegExp(`^a=${name}:(\\S+)\\s*$`, "m").exec(sdp)?.[1];
  const [ufrag, password, mid] = [attribute("ice-ufrag"), attribute("ice-pwd"), attribute("mid")];
  return ufrag === undefined || password === undefined || mid === undefined ? null : { ufrag, password, mid };
}

/**
 * A body of `application/trickle-ice-sdpfrag`.
 *
 * @param candidates in the order in which they were found; those without a mid belong to the bundle's.
 * @param last whether no more candidates will follow.
 */
export function buildSdpFragment(ice: IceCredentials, candidates: readonly Candidate[], last: boolean): string {
  const byMid = new Map<string, string[]>();
  for (const { candidate, sdpMid } of candidates) {
    if (candidate === "") continue; // an end mark of the browser's own
    const mid = sdpMid ?? ice.mid;
    byMid.set(mid, [...(byMid.get(mid) ?? []), candidate]);
  }
  if (byMid.size === 0) byMid.set(ice.mid, []);
  const lines = [`a=ice-ufrag:${ice.ufrag}`, `a=ice-pwd:${ice.password}`];
  for (const [mid, found] of byMid) {
    // RFC 8840 §4.4: a pseudo m-line; its media, port and format carry no meaning, a=mid does.
    lines.push("m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${mid}`, ...found.map((line) => `a=${line}`));
    if (last) lines.push("a=end-of-candidates");
  }
  return lines.map((line) => `${line}\r\n`).join("");
}
