/** Where a server's doors are, and what stands in their queries. */

/** The doors of one server. */
export class Addresses {
  readonly whip: URL;
  readonly #base: URL;

  /** @param url the server, or its WHIP endpoint; relative to the page where there is one. */
  constructor(url: string | URL) {
    const given = new URL(url, globalThis.document?.baseURI);
    const isWhip = /(^|\/)whip$/.test(given.pathname);
    this.#base = new URL(given);
    this.#base.search = "";
    this.#base.hash = "";
    if (isWhip) this.#base.pathname = given.pathname.slice(0, -"whip".length);
    else if (!given.pathname.endsWith("/")) this.#base.pathname += "/";
    this.whip = isWhip ? given : this.#at("whip");
  }

  get config(): URL {
    return this.#at("api/v1/config");
  }

  get tokens(): URL {
    return this.#at("api/v1/tokens");
  }

  /** By `http:`; a socket's own scheme comes from `asSocket`. */
  get stream(): URL {
    return this.#at("ws/v1/transcribe");
  }

  /** A session's own address, by the path that the server names; a proxy may have put a prefix before it. */
  session(path: string): URL {
    return this.#at(`ws/v1/transcribe/${path.split("/").at(-1)}`);
  }

  #at(path: string): URL {
    return new URL(path, this.#base);
  }
}

/** The same address for a WebSocket. */
export function asSocket(url: URL): URL {
  const made = new URL(url);
  made.protocol = url.protocol === "https:" || url.protocol === "wss:" ? "wss:" : "ws:";
  return made;
}

/** The address with fields in its query; what is absent or null is left out. */
export function withQuery(url: URL, fields: object): URL {
  const made = new URL(url);
  for (const [name, value] of Object.entries(fields)) {
    if (value !== undefined && value !== null) made.searchParams.set(name, written(value));
  }
  return made;
}

/** A URL has no lists and no objects: commas, and JSON. */
function written(value: unknown): string {
  return typeof value === "object" && !Array.isArray(value) ? JSON.stringify(value) : String(value);
}
