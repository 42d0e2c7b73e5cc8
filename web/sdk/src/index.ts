/** The browser client of VoiceForge. */

export {
  VoiceForgeClient,
  type ClientEvents,
  type ClientOptions,
  type Closing,
  type ConnectionState,
  type SessionConfig,
} from "./client.ts";
export { errorFromResponse, VoiceForgeError } from "./errors.ts";
export * from "./events.ts";
export { toJson, toSrt, toText, toVtt } from "./exporters.ts";
export { alignWords, type Segment } from "./align.ts";
export { WordLatency } from "./latency.ts";
export type { Gap } from "./sequence.ts";
export { fetchServerInfo, type ServerInfo } from "./server_info.ts";
export type { ConnectionStats } from "./stats.ts";
export { Transcript, type Superseded, type Utterance } from "./transcript.ts";
