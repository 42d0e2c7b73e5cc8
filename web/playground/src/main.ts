/** The page that the server shows: one button, and what was said. */

import {
  fetchServerInfo,
  Transcript,
  VoiceForgeClient,
  VoiceForgeError,
  WordLatency,
  type ConnectionState,
  type Resumed,
  type ServerEvent,
  type ServerInfo,
  type TransportName,
} from "@voiceforge/client";

import { byId, byTestId } from "./dom.ts";
import { durationText, percentText } from "./format.ts";
import { AccessKey } from "./key.ts";
import { LevelMeter } from "./level_meter.ts";
import { Notice, type Told } from "./notice.ts";
import { Progress } from "./progress.ts";
import { save, type Format } from "./save.ts";
import { SettingsPanel } from "./settings.ts";
import { TranscriptView } from "./transcript_view.ts";

const STATS_INTERVAL_MS = 2_000;
/** After this long without the faintest noise a microphone is muted or dead. */
const SILENT_MICROPHONE_MS = 5_000;
/** Finals that a screen reader may still be reading; older ones leave the announcer. */
const ANNOUNCED_FINALS = 4;

const STATE_TEXT: Readonly<Record<ConnectionState, string>> = {
  idle: "Ready",
  connecting: "Connecting…",
  connected: "Listening",
  interrupted: "Interrupted",
  resuming: "Resuming…",
  closing: "Finishing…",
  closed: "Stopped",
};

const WAY_TEXT: Readonly<Record<TransportName, string>> = { webrtc: "WebRTC", websocket: "WebSocket" };
/** Less than this nobody misses. */
const WORTH_TELLING_S = 0.5;

const address = new URLSearchParams(location.search);
const transcript = new Transcript();
const notice = new Notice();
const progress = new Progress();
const meter = new LevelMeter(byId("level", HTMLCanvasElement));
const talk = byId("talk", HTMLButtonElement);
const talkLabel = byId("talk-label", HTMLElement);
const clear = byId("clear", HTMLButtonElement);
const welcome = byId("welcome", HTMLElement);
const announcer = byId("announcer", HTMLElement);
const state = byTestId("state");
const stateText = state.querySelector(".state-text") as HTMLElement;
const saveButtons = [...document.querySelectorAll<HTMLButtonElement>("[data-format]")];
const settingsDialog = byId("settings", HTMLDialogElement);
const view = new TranscriptView(transcript, {
  scroller: byId("scroller", HTMLElement),
  list: byId("transcript", HTMLElement),
  earlier: byId("earlier", HTMLButtonElement),
  later: byId("later", HTMLButtonElement),
  latest: byId("latest", HTMLButtonElement),
});
const settings = new SettingsPanel(byId("settings-form", HTMLFormElement), address, (changes) => {
  if (client?.state === "connected") client.configure(changes);
});

const key = new AccessKey((isThere) => {
  byTestId("key-state").textContent = isThere ? "A key is in use." : "No key is in use.";
  byTestId("key-forget").hidden = !isThere;
});

let client: VoiceForgeClient | null = null;
let server: Promise<ServerInfo> = fetchServerInfo("api/v1/config", key.value);

async function start(): Promise<void> {
  notice.hide();
  progress.hide();
  const made = new VoiceForgeClient({
    url: "whip",
    token: key.value,
    config: settings.session,
    audio: settings.microphone,
    transport: settings.transport ?? "automatic",
  });
  client = made;
  const latency = new WordLatency();
  let rttS = 0;
  let statsTimer: ReturnType<typeof setInterval> | undefined;

  made.on("state", (now) => showState(now, made.transport));
  made.on("resumed", (resumed) => progress.tell(resumedText(resumed)));
  made.on("event", (event) => {
    if (event.type === "interim" || event.type === "final") {
      latency.observe(event, rttS);
      byTestId("latency").textContent = durationText(latency.medianS);
    }
    showEvent(event);
  });
  made.on("error", (error) => notice.show(error, "error"));
  made.on("warning", (error) => {
    if (error.code === "UDP_BLOCKED") progress.tell(`${error.message} ${error.hint}`);
    // After a long break the server has much to hear at once; that is no trouble of the person's.
    else if (error.code === "AUDIO_AHEAD") progress.tell("Catching up…");
    else notice.show(error, "warning");
  });
  made.on("closed", ({ reason }) => {
    clearInterval(statsTimer);
    meter.detach();
    client = null;
    progress.hide();
    const told = ENDED_BY_SERVER[reason];
    if (told !== undefined) notice.show(told, "warning");
    showWhatCanBeDone();
  });

  transcript.startSession();
  view.followNewest();
  try {
    await made.connect();
  } catch (error) {
    await showFailure(error);
    return;
  }
  if (made.audioTrack !== null) meter.attach(made.audioTrack);
  void settings.listMicrophones();
  statsTimer = setInterval(async () => {
    const stats = await made.stats();
    rttS = stats.rttS ?? rttS;
    byTestId("rtt").textContent = durationText(stats.rttS);
    byTestId("loss").textContent = percentText(stats.lossRatio);
    watchForSilence();
  }, STATS_INTERVAL_MS);
}

/** By the reason of `closed`; of other ends an error has told before, or the person's own hand. */
const ENDED_BY_SERVER: Readonly<Record<string, Told>> = {
  shutdown: { code: "SHUTDOWN", message: "The server is shutting down.", hint: "All that was said is here; start again in a while." },
  timeout: { code: "TIMEOUT", message: "The server heard nothing for too long.", hint: "Start again to go on." },
  session_max: { code: "SESSION_MAX", message: "The session has lasted as long as one may.", hint: "Start again to go on." },
};

const SILENT_MICROPHONE = {
  code: "MICROPHONE_SILENT",
  message: "The microphone gives no sound.",
  hint: "Check whether it is muted, or choose another in the settings.",
};

function watchForSilence(): void {
  if (meter.silentForMs > SILENT_MICROPHONE_MS) notice.show(SILENT_MICROPHONE, "warning");
  else if (notice.code === SILENT_MICROPHONE.code) notice.hide();
}

async function showFailure(error: unknown): Promise<void> {
  if (!(error instanceof VoiceForgeError)) throw error;
  if (error.code === "CLOSED") return; // by the person's own hand
  if (error.status !== 401) return notice.show(error, "error");
  const why = key.value === "" ? "This server asks for one." : error.message;
  key.forget();
  if (!(await key.ask(why))) return notice.show(error, "error");
  void describeAnew();
  await start();
}

function resumedText({ lostAudioS }: Resumed): string {
  if (lostAudioS !== null && lostAudioS < WORTH_TELLING_S) return "Connected again. Nothing was lost.";
  const howMuch = lostAudioS === null ? "" : ` for about ${Math.round(lostAudioS)} s`;
  return `Connected again. What was said meanwhile${howMuch} was not heard.`;
}

function showEvent(event: ServerEvent): void {
  if (event.type === "speech_started") state.dataset["speech"] = "";
  if (event.type === "speech_stopped") delete state.dataset["speech"];
  const changed = transcript.apply(event);
  if (changed === null) return;
  view.update(changed);
  showWhatCanBeDone();
  if (changed.isFinal && changed.text !== "") announce(changed.text);
}

/** Only finals are read out: interims would be read over and over. */
function announce(text: string): void {
  const line = document.createElement("p");
  line.textContent = text;
  announcer.append(line);
  while (announcer.childElementCount > ANNOUNCED_FINALS) announcer.firstElementChild?.remove();
}

function showState(now: ConnectionState, way: TransportName | null): void {
  state.dataset["state"] = now;
  const wayMark = byTestId("transport");
  // WebRTC is what is expected; only what differs is worth a mark.
  wayMark.hidden = way !== "websocket" || now === "closed";
  if (way !== null) wayMark.textContent = WAY_TEXT[way];
  if (now === "resuming") progress.show("The connection was lost. Resuming… What was said so far is kept.");
  delete state.dataset["speech"];
  stateText.textContent = STATE_TEXT[now];
  const running = now !== "idle" && now !== "closed";
  talk.dataset["testid"] = running ? "stop" : "start";
  talk.disabled = now === "closing";
  talkLabel.textContent = running ? "Stop" : "Start";
  document.title = running ? "● VoiceForge" : "VoiceForge";
  showWhatCanBeDone();
}

function showWhatCanBeDone(): void {
  const empty = transcript.utterances.every((utterance) => utterance.text === "");
  for (const button of saveButtons) button.disabled = empty;
  clear.disabled = empty;
  welcome.hidden = !empty;
}

/** What is said just now is not final yet; once nothing more will come, it is all that there is. */
function savable(): ReturnType<Transcript["utterances"]["slice"]> {
  return transcript.utterances.filter((utterance) => utterance.isFinal || client === null);
}

talk.addEventListener("click", () => {
  if (client === null) void start();
  else void client.close();
});

clear.addEventListener("click", () => {
  transcript.clear();
  view.rebuild();
  showWhatCanBeDone();
  talk.focus();
});

for (const button of saveButtons) {
  button.addEventListener("click", () => save(savable(), button.dataset["format"] as Format));
}

byId("open-settings", HTMLButtonElement).addEventListener("click", () => {
  void settings.listMicrophones();
  settingsDialog.showModal();
});

settingsDialog.addEventListener("click", ({ target }) => {
  if (target === settingsDialog) settingsDialog.close(); // beside the panel
});

byId("key-change", HTMLButtonElement).addEventListener("click", async () => {
  if (await key.ask()) void describeAnew();
});

byId("key-forget", HTMLButtonElement).addEventListener("click", () => key.forget());

navigator.mediaDevices?.addEventListener("devicechange", () => void settings.listMicrophones());
addEventListener("pagehide", () => client?.abort());

async function describeServer(): Promise<void> {
  const info = await server;
  settings.describe(info);
  byTestId("server").textContent = [info.model, info.version && `v${info.version}`].filter(Boolean).join(" · ");
}

/** With another key the server may tell more. */
async function describeAnew(): Promise<void> {
  server = fetchServerInfo("api/v1/config", key.value);
  await describeServer();
}

void describeServer();
if (address.get("autostart") === "1") void start();
