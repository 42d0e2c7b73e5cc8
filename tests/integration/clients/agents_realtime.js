// OpenAI's agents SDK in a page. It is bundled for the test; the test calls `listen` and reads what is kept here.
import { OpenAIRealtimeWebRTC } from "@openai/agents-realtime";

window.told = [];
window.items = {};
window.errors = [];

window.listen = async (baseUrl, apiKey, initialSessionConfig) => {
  const transport = new OpenAIRealtimeWebRTC({ baseUrl });
  window.transport = transport;
  transport.on("*", (event) => window.told.push(event));
  transport.on("item_update", (item) => (window.items[item.itemId] = item));
  transport.on("error", (error) => window.errors.push(error));
  await transport.connect({ apiKey, model: "gpt-4o-transcribe", initialSessionConfig });
  return transport.callId;
};

// The SDK asks for a conversation unless it is told otherwise; `providerData` is its way to say so.
window.transcriptionOnly = {
  tracing: null,
  providerData: {
    type: "transcription",
    model: undefined,
    output_modalities: undefined,
    audio: { input: { transcription: { model: "gpt-4o-transcribe", language: "en" }, turn_detection: { type: "server_vad" } } },
  },
};
