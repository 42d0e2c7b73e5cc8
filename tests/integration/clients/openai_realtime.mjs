// OpenAI's npm package over a WebSocket, in node: today's shape or the legacy one.
// Arguments: the address of the API (https), `today` or `legacy`, a file of PCM (16 bit, 24 kHz, mono). Prints what it is
// told, one JSON object a line, and ends once everything that was committed is complete.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../web/package.json", import.meta.url));
const { default: OpenAI } = require("openai");

const [baseURL, shape, file] = process.argv.slice(2);
const { OpenAIRealtimeWS } = require(shape === "legacy" ? "openai/beta/realtime/ws" : "openai/realtime/ws");

const BYTES = 4800; // 100 ms
const FASTER = 4;

const client = new OpenAI({ baseURL, apiKey: "sk-any" });
const options = { rejectUnauthorized: false }; // the test's certificate is its own
const props = shape === "legacy" ? { model: "gpt-4o-transcribe", options } : { intent: "transcription", options };
const realtime = new OpenAIRealtimeWS(props, client);

const transcription = { model: "gpt-4o-transcribe", language: "en" };
const update =
  shape === "legacy"
    ? { type: "transcription_session.update", session: { input_audio_format: "pcm16", input_audio_transcription: transcription } }
    : { type: "session.update", session: { type: "transcription", audio: { input: { transcription } } } };

let isPlayed = false;
let waiting = 0;
let committed = 0;

const endIfComplete = () => {
  if (isPlayed && committed > 0 && waiting === 0) realtime.close();
};

realtime.on("error", (error) => console.log(JSON.stringify({ type: "error", message: error.message })));
realtime.on("event", (event) => {
  console.log(JSON.stringify(event));
  if (event.type === "input_audio_buffer.committed") {
    committed += 1;
    waiting += 1;
  }
  if (event.type.endsWith("transcription.completed")) waiting -= 1;
  endIfComplete();
});
realtime.on("session.created", async () => {
  realtime.send({ type: "response.create" }); // refused, and it goes on
  realtime.send(update);
  const audio = readFileSync(file);
  for (let at = 0; at < audio.length; at += BYTES) {
    realtime.send({ type: "input_audio_buffer.append", audio: audio.subarray(at, at + BYTES).toString("base64") });
    await new Promise((resolve) => setTimeout(resolve, 100 / FASTER));
  }
  isPlayed = true;
  endIfComplete();
});
