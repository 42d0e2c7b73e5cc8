/** The HTTP half of WHIP (RFC 9725): create, trickle, delete. */

import { errorFromResponse, VoiceForgeError } from "./errors.ts";
import { bearer, request } from "./http.ts";
import { buildSdpFragment, type Candidate, type IceCredentials } from "./sdpfrag.ts";

/** The session resource that a POST made. */
export interface WhipSession {
  readonly answer: string;
  /** Absolute. It is a secret: who knows it can end the session. */
  readonly resource: URL;
  /** Null where the server does not say, which means that it takes no further candidates. */
  readonly etag: string | null;
}

/**
 * Sends the offer (RFC 9725 §4.2).
 *
 * @throws VoiceForgeError what the server refused, `SERVER_UNREACHABLE` or `INVALID_ANSWER`; the signal's reason as it is.
 */
export async function createSession(
  endpoint: URL,
  offer: string,
  token: string | undefined,
  signal: AbortSignal,
): Promise<WhipSession> {
  const headers = { "Content-Type": "application/sdp", Accept: "application/sdp, application/json", ...bearer(token) };
  const response = await request(endpoint, { method: "POST", body: offer, headers, signal });
  const body = await response.text();
  if (!response.ok) throw errorFromResponse(response.status, body, response.headers.get("Retry-After"));
  const location = response.headers.get("Location");
  if (response.status !== 201 || location === null || !body.startsWith("v=0")) {
    throw new VoiceForgeError({
      code: "INVALID_ANSWER",
      message: "The server's answer is not that of a WHIP endpoint.",
      hint: "Check the address, and that a proxy in between passes the Location header on.",
      retryable: false,
    });
  }
  // Relative to where redirects led, not to where the request began.
  const resource = new URL(location, response.url || endpoint);
  return { answer: body, resource, etag: response.headers.get("ETag") };
}

/**
 * Sends candidates that were found late (RFC 9725 §4.3.1).
 *
 * @returns whether the server took them; one that does not trickle says so, and the connection may work all the same.
 */
export async function trickle(
  session: WhipSession,
  ice: IceCredentials,
  candidates: readonly Candidate[],
  last: boolean,
  token: string | undefined,
): Promise<boolean> {
  if (session.etag === null) return false;
  const response = await request(session.resource, {
    method: "PATCH",
    body: buildSdpFragment(ice, candidates, last),
    headers: { "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": session.etag, ...bearer(token) },
  });
  return response.ok;
}

/** Ends the session (RFC 9725 §4.2; by its WebSocket's address likewise). Survives the page being closed; a server that is gone needs no telling. */
export async function deleteSession(resource: URL, token: string | undefined): Promise<void> {
  try {
    await fetch(resource, { method: "DELETE", keepalive: true, headers: bearer(token) });
  } catch {
    // The server's own watchdog ends a session whose client it cannot reach.
  }
}
