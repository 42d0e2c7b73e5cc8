/** What a server says of itself before anybody connects. */

/** Absent parts are empty: an older server, or one that tells less. */
export interface ServerInfo {
  readonly version: string | null;
  readonly model: string | null;
  /** Codes such as `en`; empty where not told. */
  readonly languages: readonly string[];
  readonly iceServers: RTCIceServer[];
  /** The session's defaults, in the wire's own names. */
  readonly session: Readonly<Record<string, unknown>>;
}

const NOTHING_TOLD: ServerInfo = { version: null, model: null, languages: [], iceServers: [], session: {} };

/** Fetches `/api/v1/config`. A server without it is no failure: everything has a default. */
export async function fetchServerInfo(url: string | URL, token?: string): Promise<ServerInfo> {
  try {
    const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(url, { headers });
    return response.ok ? readServerInfo(await response.json()) : NOTHING_TOLD;
  } catch {
    return NOTHING_TOLD;
  }
}

/** Reads the body of `/api/v1/config`; what has not the expected type counts as absent. */
export function readServerInfo(body: unknown): ServerInfo {
  if (typeof body !== "object" || body === null) return NOTHING_TOLD;
  const { version, model, languages, ice_servers, session } = body as Record<string, unknown>;
  return {
    version: typeof version === "string" ? version : null,
    model: typeof model === "string" ? model : null,
    languages: Array.isArray(languages) ? languages.filter((code) => typeof code === "string") : [],
    iceServers: Array.isArray(ice_servers) ? ice_servers.filter((server) => typeof server === "object" && server !== null) : [],
    session: typeof session === "object" && session !== null ? (session as Record<string, unknown>) : {},
  };
}
