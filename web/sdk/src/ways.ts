/** Which ways to a server are tried, and in which order. */

import type { Addresses } from "./addresses.ts";
import { credentialOf } from "./credentials.ts";
import type { VoiceForgeError } from "./errors.ts";
import { fault, notConnected } from "./faults.ts";
import type { ClientOptions, TransportName } from "./options.ts";
import type { Transport } from "./transport.ts";
import { WebRtc } from "./webrtc.ts";
import { WebSocketWay } from "./websocket.ts";

/** With `automatic`: where media gets through it connects within a second or two, by a TURN server too. */
const MEDIA_PATIENCE_MS = 6_000;

/** What says that WebRTC does not work here, and that a WebSocket may. */
const BLOCKED: ReadonlySet<string> = new Set(["ICE_FAILED", "NO_UDP_PORT", "CONNECT_TIMEOUT", "WEBRTC_MISSING"]);

/** The first way to try, and the one after it where that is blocked. */
export function waysOf({ transport = "webrtc", audioFormat }: ClientOptions): readonly [TransportName, TransportName?] {
  if (audioFormat !== undefined || transport === "websocket") return ["websocket"];
  return transport === "automatic" ? ["webrtc", "websocket"] : ["webrtc"];
}

export const isBlocked = (error: VoiceForgeError): boolean => BLOCKED.has(error.code);

export interface Means {
  readonly addresses: Addresses;
  /** Null where the program brings the audio. */
  readonly track: MediaStreamTrack | null;
  /** Something to know that does not end the session. */
  readonly warn: (error: VoiceForgeError) => void;
}

/** @throws VoiceForgeError `NOT_CONNECTED` where there is nothing to send by WebRTC. */
export function wayBy(name: TransportName, options: ClientOptions, { addresses, track, warn }: Means): Transport {
  const { config, token, iceServers, audioFormat = {}, workletUrl } = options;
  const shared = { addresses, config, credential: () => credentialOf(token) };
  if (name === "websocket") {
    const onDropped = (lostS: number): void => warn(tooSlow(lostS));
    return new WebSocketWay({ ...shared, track, format: audioFormat, workletUrl, onDropped });
  }
  if (track === null) throw notConnected();
  const patienceMs = options.transport === "automatic" ? MEDIA_PATIENCE_MS : null;
  return new WebRtc({ ...shared, track, iceServers, patienceMs });
}

function tooSlow(lostS: number): VoiceForgeError {
  const hint = "What was said meanwhile is missing; all times stay true.";
  return fault("AUDIO_DROPPED", `The connection is too slow: ${lostS.toFixed(1)} s of audio were dropped.`, hint, true);
}
