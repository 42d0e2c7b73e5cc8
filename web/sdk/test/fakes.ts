/** A browser and a server in one process, as far as the client looks at them. */

type Init = RequestInit & { method: string };

export interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
}

/** A refusal in the server's own words. */
export function refusal(status: number, code: string, retryAfterS?: number): Response {
  const headers = retryAfterS === undefined ? {} : { "Retry-After": String(retryAfterS) };
  return Response.json({ error: { code, message: "No.", hint: "Ask.", retryable: status >= 429 } }, { status, headers });
}

const created = (sdp: string): Response =>
  new Response(sdp, { status: 201, headers: { Location: "/whip/secret", ETag: '"1"' } });

export class FakeTrack extends EventTarget {
  stopped = false;
  stop(): void {
    this.stopped = true;
  }
}

class FakeChannel extends EventTarget {
  readonly label = "transcripts";
  binaryType = "blob";
  readyState = "connecting";
  readonly sent: { type: string; config?: object }[] = [];
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
}

export class FakePeerConnection extends EventTarget {
  static readonly made: FakePeerConnection[] = [];
  static offer = "";
  readonly channel = new FakeChannel();
  iceGatheringState = "new";
  connectionState = "new";
  localDescription: { sdp: string } | null = null;
  closed = false;

  readonly configuration: RTCConfiguration;

  constructor(configuration: RTCConfiguration) {
    super();
    this.configuration = configuration;
    FakePeerConnection.made.push(this);
  }
  addTransceiver(): void {}
  createDataChannel(): FakeChannel {
    return this.channel;
  }
  async setLocalDescription(): Promise<void> {
    this.localDescription = { sdp: FakePeerConnection.offer };
  }
  /** What came, in bytes. */
  received = 0;
  async getStats(): Promise<Map<string, object>> {
    return new Map([["pair", { type: "candidate-pair", nominated: true, bytesReceived: this.received }]]);
  }
  async setRemoteDescription(): Promise<void> {}
  close(): void {
    this.closed = true;
  }
}

/** An audio thread, as far as pages see it. */
class FakeWorkletNode {
  static port: { onmessage: ((event: { data: ArrayBuffer }) => void) | null } = { onmessage: null };
  readonly port = FakeWorkletNode.port;
}

class FakeAudioContext extends EventTarget {
  readonly state = "running";
  readonly audioWorklet = { addModule: async (): Promise<void> => undefined };
  createMediaStreamSource(): object {
    return { connect: () => undefined, disconnect: () => undefined };
  }
  async close(): Promise<void> {}
}

type Sent = string | Uint8Array;

export class FakeSocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSED = 3;
  static readonly made: FakeSocket[] = [];
  readonly url: string;
  binaryType = "blob";
  readyState = FakeSocket.CONNECTING;
  bufferedAmount = 0;
  closedWith: number | null = null;
  readonly sent: Sent[] = [];

  constructor(url: URL) {
    super();
    this.url = String(url);
    FakeSocket.made.push(this);
  }
  send(data: Sent): void {
    this.sent.push(data);
  }
  close(code = 1005): void {
    this.closedWith = code;
    this.readyState = FakeSocket.CLOSED;
  }

  /** The types of the messages, in order. */
  get texts(): string[] {
    return this.sent.filter((data) => typeof data === "string").map((text) => JSON.parse(text).type);
  }
  /** All audio, one byte after another. */
  get audio(): number[] {
    return this.sent.flatMap((data) => (typeof data === "string" ? [] : [...data]));
  }
  opens(): void {
    this.readyState = FakeSocket.OPEN;
    this.dispatchEvent(new Event("open"));
  }
  breaks(code = 1006): void {
    this.readyState = FakeSocket.CLOSED;
    this.dispatchEvent(Object.assign(new Event("close"), { code }));
  }
}

/** Stands in for the globals of a browser; `restore` puts the old ones back. */
export class FakeBrowser {
  /** But for those for `/api/v1/config`. */
  readonly requests: Request[] = [];
  /** What the browser tells of the network. */
  readonly network = new EventTarget();
  iceServers: object[] = [];
  nowMs = 0;
  readonly microphone = new FakeTrack();
  /** What the next POST is answered with. */
  answer = (): Response => created("v=0\r\n");
  /** What a plain GET is answered with. */
  asked = (): Response => refusal(426, "UPGRADE_REQUIRED");
  seq = 0;
  readonly #before = new Map<string, PropertyDescriptor | undefined>();

  constructor() {
    FakePeerConnection.made.length = 0;
    FakePeerConnection.offer = "v=0\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n";
    FakeSocket.made.length = 0;
    this.#set("WebSocket", FakeSocket);
    this.#set("AudioContext", FakeAudioContext);
    this.#set("AudioWorkletNode", FakeWorkletNode);
    this.#set("MediaStream", class {});
    this.#set("performance", { now: () => this.nowMs });
    this.#set("RTCPeerConnection", FakePeerConnection);
    this.#set("MediaStreamTrack", FakeTrack);
    this.#set("isSecureContext", true);
    const mediaDevices = { getUserMedia: async () => ({ getAudioTracks: () => [this.microphone] }) };
    this.#set("navigator", { connection: this.network, mediaDevices });
    this.#set("fetch", async (url: URL, init: Init) => {
      if (String(url).endsWith("/api/v1/config")) return Response.json({ ice_servers: this.iceServers });
      this.requests.push({ method: init.method, url: String(url), headers: init.headers as Record<string, string> });
      return init.method === "POST" ? this.answer() : init.method === "GET" ? this.asked() : new Response(null, { status: 204 });
    });
  }

  /** From now on sessions are made with this answer. */
  answersWith(sdp: string): void {
    this.answer = () => created(sdp);
  }

  get pc(): FakePeerConnection {
    const pc = FakePeerConnection.made.at(-1);
    if (pc === undefined) throw new Error("nothing connects yet");
    return pc;
  }

  get peers(): readonly FakePeerConnection[] {
    return FakePeerConnection.made;
  }

  /** What the next peer connections offer. */
  set offer(sdp: string) {
    FakePeerConnection.offer = sdp;
  }

  get socket(): FakeSocket {
    const socket = FakeSocket.made.at(-1);
    if (socket === undefined) throw new Error("nothing connects yet");
    return socket;
  }

  get methods(): string[] {
    return this.requests.map(({ method }) => method);
  }

  /** Lets what is promised happen. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
  }

  gathered(): void {
    this.pc.iceGatheringState = "complete";
    this.pc.dispatchEvent(new Event("icegatheringstatechange"));
  }

  opened(): void {
    this.pc.channel.readyState = "open";
    this.pc.channel.dispatchEvent(new Event("open"));
  }

  says(type: string, fields: object = {}): void {
    this.seq += 1;
    const data = JSON.stringify({ type, session_id: "s", seq: this.seq, ...fields });
    const carrier = FakeSocket.made.at(-1) ?? this.pc.channel;
    carrier.dispatchEvent(new MessageEvent("message", { data }));
  }

  /** Leaves out the next `count` events. */
  loses(count: number): void {
    this.seq += count;
  }

  /** The worklet has 40 ms of the microphone. */
  hears(data: ArrayBuffer): void {
    FakeWorkletNode.port.onmessage?.({ data });
  }

  becomes(connectionState: string): void {
    this.pc.connectionState = connectionState;
    this.pc.dispatchEvent(new Event("connectionstatechange"));
  }

  restore(): void {
    for (const [name, descriptor] of this.#before) {
      if (descriptor === undefined) delete (globalThis as Record<string, unknown>)[name];
      else Object.defineProperty(globalThis, name, descriptor);
    }
  }

  #set(name: string, value: unknown): void {
    this.#before.set(name, Object.getOwnPropertyDescriptor(globalThis, name));
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  }
}
