/** What a server says of itself before anybody connects. */

import { bearer } from "./http.ts";

/** Absent parts are empty: an older server, or one that tells less. */
export interface ServerInfo {
  readonly version: string | null;
  readonly model: string | null;
  /** Codes such as `en`; empty where not told. */
  readonly languages: readonly string[];
  /** What may end an utterance: `silence`, and `semantic` where the server has the model; empty where not told. */
  readonly turnDetection: readonly string[];
  readonly iceServers: RTCIceServer[];
  /** The session's defaults, in the wire's own names. */
  readonly session: Readonly<Record<string, unknown>>;
}

const NOTHING_TOLD: ServerInfo = {
  version: null,
  model: null,
  languages: [],
  turnDetection: [],
  iceServers: [],
  session: {},
};

/** Fetches `/api/v1/config`. A server without it is no failure: everything has a default. */
export async function fetchServerInfo(url: string | URL, token?: string, signal?: AbortSignal): Promise<ServerInfo> {
  try {
    const response = await fetch(url, { headers: bearer(token), signal: signal ?? null });
    return response.ok ? readServerInfo(await response.json()) : NOTHING_TOLD;
  } catch {
    return NOTHING_TOLD;
  }
}

/** Reads the body of `/api/v1/config`; what has not the expected type counts as absent. */
export function readServerInfo(body: unknown): ServerInfo {
  if (typeof body !== "object" || body === null) return NOTHING_TOLD;
  const { version, model, languages, turn_detection, ice_servers, session } = body as Record<string, unknown>;
  return {
    version: typeof version === "string" ? version : null,
    model: typeof model === "string" ? model : null,
    languages: strings(languages),
    turnDetection: strings(turn_detection),
    iceServers: Array.isArray(ice_servers) ? ice_servers.filter((server) => typeof server === "object" && server !== null) : [],
    session: typeof session === "object" && session !== null ? (session as Record<string, unknown>) : {},
  };
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}
