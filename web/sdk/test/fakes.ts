/** A browser and a server in one process, as far as the client looks at them. */

type Init = RequestInit & { method: string };

export interface Request {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
}

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

class FakePeerConnection extends EventTarget {
  static readonly made: FakePeerConnection[] = [];
  readonly channel = new FakeChannel();
  iceGatheringState = "new";
  connectionState = "new";
  localDescription: { sdp: string } | null = null;
  closed = false;

  constructor() {
    super();
    FakePeerConnection.made.push(this);
  }
  addTransceiver(): void {}
  createDataChannel(): FakeChannel {
    return this.channel;
  }
  async setLocalDescription(): Promise<void> {
    this.localDescription = { sdp: "v=0\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n" };
  }
  async setRemoteDescription(): Promise<void> {}
  close(): void {
    this.closed = true;
  }
}

/** Stands in for the globals of a browser; `restore` puts the old ones back. */
export class FakeBrowser {
  readonly requests: Request[] = [];
  readonly microphone = new FakeTrack();
  /** What the next POST is answered with. */
  answer = (): Response =>
    new Response("v=0\r\n", { status: 201, headers: { Location: "/whip/secret", ETag: '"1"' } });
  #seq = 0;
  readonly #before = new Map<string, PropertyDescriptor | undefined>();

  constructor() {
    FakePeerConnection.made.length = 0;
    this.#set("RTCPeerConnection", FakePeerConnection);
    this.#set("MediaStreamTrack", FakeTrack);
    this.#set("isSecureContext", true);
    this.#set("navigator", { mediaDevices: { getUserMedia: async () => ({ getAudioTracks: () => [this.microphone] }) } });
    this.#set("fetch", async (url: URL, init: Init) => {
      this.requests.push({ method: init.method, url: String(url), headers: init.headers as Record<string, string> });
      return init.method === "POST" ? this.answer() : new Response(null, { status: 204 });
    });
  }

  get pc(): FakePeerConnection {
    const pc = FakePeerConnection.made.at(-1);
    if (pc === undefined) throw new Error("nothing connects yet");
    return pc;
  }

  get methods(): string[] {
    return this.requests.map(({ method }) => method);
  }

  /** Lets what is promised happen. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
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
    this.#seq += 1;
    const data = JSON.stringify({ type, session_id: "s", seq: this.#seq, ...fields });
    this.pc.channel.dispatchEvent(new MessageEvent("message", { data }));
  }

  /** Leaves out the next `count` events. */
  loses(count: number): void {
    this.#seq += count;
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
