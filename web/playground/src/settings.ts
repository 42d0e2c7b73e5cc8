/** What a person chose, kept in this browser, and the panel to choose it in. */

import type { ClientOptions, ServerInfo, SessionConfig } from "@voiceforge/client";

const STORED_AS = "voiceforge.settings";

interface Settings {
  /** Empty leaves it to the server; so do the other empty ones. */
  language: string;
  endpointingMs: string;
  turnDetection: string;
  denoise: string;
  interims: boolean;
  deviceId: string;
  echoCancellation: boolean;
  noiseSuppression: boolean;
  autoGainControl: boolean;
  transport: string;
}

const DEFAULTS: Settings = {
  language: "",
  endpointingMs: "",
  turnDetection: "",
  denoise: "",
  interims: true,
  deviceId: "",
  echoCancellation: true,
  noiseSuppression: true,
  autoGainControl: true,
  transport: "automatic",
};

const WAYS = ["automatic", "webrtc", "websocket"] as const;

/** Which field of a session each setting is. */
const SESSION_FIELDS = {
  language: "language",
  endpointingMs: "endpointing_ms",
  turnDetection: "turn_detection",
  denoise: "denoise",
  interims: "interim_results",
} as const satisfies Partial<Record<keyof Settings, keyof SessionConfig>>;

/** Session fields that only the address can set, for tests and kiosks. */
const ADDRESS_ONLY_FIELDS = [
  "model",
  "vad_enabled",
  "vad_threshold",
  "min_confidence",
  "denoise_branch",
  "revisions",
  "turn_complete_ms",
  "turn_incomplete_ms",
  "utterance_end_ms",
] as const;

/**
 * The settings and their panel.
 *
 * Three sources, the later wins: what was kept, the page's address (not kept), what is changed in the panel. The address
 * takes the session's fields by their wire names, `transport`, and `raw=1`, which switches the browser's audio
 * processing off.
 */
export class SettingsPanel {
  readonly #form: HTMLFormElement;
  readonly #values: Settings;
  readonly #addressOnly: SessionConfig;

  /** @param onSessionChange called with what a running session is to change. */
  constructor(form: HTMLFormElement, address: URLSearchParams, onSessionChange: (changes: SessionConfig) => void) {
    this.#form = form;
    this.#values = { ...DEFAULTS, ...readStored(), ...fromAddress(address) };
    this.#addressOnly = addressOnlyFields(address);
    for (const [name, value] of Object.entries(this.#values)) this.#write(name as keyof Settings, value);
    form.addEventListener("change", ({ target }) => {
      if (!(target instanceof HTMLInputElement || target instanceof HTMLSelectElement) || !target.validity.valid) return;
      const name = target.name as keyof Settings;
      this.#read(name, target);
      localStorage.setItem(STORED_AS, JSON.stringify(this.#values));
      if (name in SESSION_FIELDS) onSessionChange(this.#sessionField(name as keyof typeof SESSION_FIELDS));
    });
  }

  get transport(): ClientOptions["transport"] {
    return WAYS.find((way) => way === this.#values.transport) ?? "automatic";
  }

  /** What the POST asks for; what is left to the server is null. */
  get session(): SessionConfig {
    const names = Object.keys(SESSION_FIELDS) as (keyof typeof SESSION_FIELDS)[];
    return Object.assign({}, this.#addressOnly, ...names.map((name) => this.#sessionField(name)));
  }

  get microphone(): MediaTrackConstraints {
    const { deviceId, echoCancellation, noiseSuppression, autoGainControl } = this.#values;
    const device = deviceId === "" ? {} : { deviceId: { exact: deviceId } };
    return { ...device, channelCount: 1, echoCancellation, noiseSuppression, autoGainControl };
  }

  /** Names the server's defaults and offers its languages. */
  describe(server: ServerInfo): void {
    const { language, endpointing_ms, turn_detection, denoise } = server.session;
    const detects = server.languages.length !== 1;
    const fallback = typeof language === "string" ? language : detects ? "detected" : server.languages[0];
    const names = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });
    const nameOf = (code: string): string => (/^[a-z]{2,3}(-[a-z0-9]+)*$/i.test(code) ? (names.of(code) ?? code) : code);
    const options = server.languages.map((code) => ({ value: code, text: nameOf(code) }));
    options.sort((one, other) => one.text.localeCompare(other.text));
    const automatic = { value: "", text: fallback === "detected" ? "Detected by itself" : `Server's setting (${nameOf(fallback ?? "")})` };
    this.#offer("language", [automatic, ...options]);
    this.#nameDefault("denoise", denoise);
    this.#nameDefault("turnDetection", turn_detection);
    this.#select("turnDetection").closest("label")!.hidden = !server.turnDetection.includes("semantic");
    // What was chosen for another server and this one does not have would be refused, with no control to change it.
    if (!server.turnDetection.includes(this.#values.turnDetection)) this.#values.turnDetection = "";
    if (typeof endpointing_ms === "number") {
      this.#form.querySelector<HTMLInputElement>("[name=endpointingMs]")!.placeholder = `Server's setting (${endpointing_ms})`;
    }
  }

  /** Offers the microphones that there are; their names are told only once one was allowed. */
  async listMicrophones(): Promise<void> {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const inputs = devices.filter(({ kind, deviceId }) => kind === "audioinput" && !["", "default"].includes(deviceId));
    const options = inputs.map(({ deviceId, label }, index) => ({ value: deviceId, text: label || `Microphone ${index + 1}` }));
    this.#offer("deviceId", [{ value: "", text: "System default" }, ...options]);
  }

  #offer(name: "language" | "deviceId", options: readonly { value: string; text: string }[]): void {
    const select = this.#select(name);
    const wanted = this.#values[name];
    const missing = options.some(({ value }) => value === wanted) ? [] : [{ value: wanted, text: wanted === "" ? "" : "(not there now)" }];
    select.replaceChildren(...[...options, ...missing].map(({ value, text }) => new Option(text, value, false, value === wanted)));
  }

  #nameDefault(name: "denoise" | "turnDetection", value: unknown): void {
    const first = this.#select(name).options[0];
    if (typeof value === "string" && first) first.text = `Server's setting (${value.replace("_", " ")})`;
  }

  #sessionField(name: keyof typeof SESSION_FIELDS): SessionConfig {
    const value = this.#values[name];
    const sent = name === "endpointingMs" && value !== "" ? Number(value) : value === "" ? null : value;
    return { [SESSION_FIELDS[name]]: sent };
  }

  #read(name: keyof Settings, control: HTMLInputElement | HTMLSelectElement): void {
    const value = control instanceof HTMLInputElement && control.type === "checkbox" ? control.checked : control.value;
    Object.assign(this.#values, { [name]: value });
  }

  #write(name: keyof Settings, value: string | boolean): void {
    const control = this.#control(name);
    if (control instanceof HTMLInputElement && typeof value === "boolean") {
      control.checked = value;
      return;
    }
    const text = String(value);
    if (control instanceof HTMLSelectElement && ![...control.options].some((option) => option.value === text)) {
      control.add(new Option(text, text));
    }
    control.value = text;
  }

  #control(name: string): HTMLInputElement | HTMLSelectElement {
    return this.#form.elements.namedItem(name) as HTMLInputElement | HTMLSelectElement;
  }

  #select(name: string): HTMLSelectElement {
    return this.#form.elements.namedItem(name) as HTMLSelectElement;
  }
}

function readStored(): Partial<Settings> {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(STORED_AS) ?? "{}");
    const entries = Object.entries(stored ?? {}).filter(([name, value]) => {
      return Object.hasOwn(DEFAULTS, name) && typeof value === typeof DEFAULTS[name as keyof Settings];
    });
    return Object.fromEntries(entries);
  } catch {
    return {};
  }
}

function fromAddress(address: URLSearchParams): Partial<Settings> {
  const chosen: Partial<Settings> = {};
  const names = ["language", "endpointing_ms", "turn_detection", "denoise"];
  const [language, endpointing, turnDetection, denoise] = names.map((name) => address.get(name));
  if (language) chosen.language = language;
  if (endpointing) chosen.endpointingMs = endpointing;
  if (turnDetection) chosen.turnDetection = turnDetection;
  if (denoise) chosen.denoise = denoise;
  const transport = address.get("transport");
  if (transport) chosen.transport = transport;
  if (address.has("interim_results")) chosen.interims = address.get("interim_results") !== "false";
  if (address.get("raw") === "1") {
    Object.assign(chosen, { echoCancellation: false, noiseSuppression: false, autoGainControl: false });
  }
  return chosen;
}

function addressOnlyFields(address: URLSearchParams): SessionConfig {
  const given = ADDRESS_ONLY_FIELDS.filter((name) => address.has(name)).map((name) => [name, address.get(name)]);
  return Object.fromEntries(given) as SessionConfig;
}
