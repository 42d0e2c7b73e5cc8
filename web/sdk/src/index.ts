/** The browser client of VoiceForge. */

export { VoiceForgeClient } from "./client.ts";
export type {
  AudioFormat,
  ClientEvents,
  ClientOptions,
  Closing,
  ConnectionState,
  Resumed,
  SessionConfig,
  TransportName,
} from "./options.ts";
export { errorFromResponse, VoiceForgeError } from "./errors.ts";
export * from "./events.ts";
export { toJson, toSrt, toText, toVtt } from "./exporters.ts";
export { alignWords, type Segment } from "./align.ts";
export { WordLatency } from "./latency.ts";
export type { Gap } from "./sequence.ts";
export { fetchServerInfo, type ServerInfo } from "./server_info.ts";
export type { ConnectionStats } from "./stats.ts";
export { Transcript, type Superseded, type Utterance } from "./transcript.ts";
