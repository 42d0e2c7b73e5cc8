// A WebRTC client of another make: @roamhq/wrtc sends two tracks of one call over WHIP, at the pace of speech.
// Arguments: the WHIP address, then one file of PCM (16 bit, 48 kHz, mono) a track. Prints one JSON object a line:
// {"location", "link", "tracks"} once answered, {"state"} as it changes. Ends with a DELETE when all is said.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../web/package.json", import.meta.url));
const { RTCPeerConnection, MediaStream, nonstandard } = require("@roamhq/wrtc");

const RATE = 48000;
const SAMPLES = RATE / 100; // the library takes 10 ms at a time
const TAIL_S = 1.0;

const [address, metadata, ...files] = process.argv.slice(2);
const say = (what) => console.log(JSON.stringify(what));

const pc = new RTCPeerConnection({ iceServers: [] });
const sources = files.map((file) => {
  const bytes = readFileSync(file);
  return { sink: new nonstandard.RTCAudioSource(), pcm: new Int16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1) };
});
const stream = new MediaStream();
const tracks = sources.map(({ sink }) => sink.createTrack());
for (const track of tracks) pc.addTrack(track, stream);
const connected = new Promise((resolve, reject) => {
  pc.onconnectionstatechange = () => {
    say({ state: pc.connectionState });
    if (pc.connectionState === "connected") resolve();
    if (pc.connectionState === "failed") reject(new Error("the call failed"));
  };
});
await pc.setLocalDescription(await pc.createOffer());
await new Promise((resolve) => {
  if (pc.iceGatheringState === "complete") resolve();
  pc.onicegatheringstatechange = () => pc.iceGatheringState === "complete" && resolve();
});
const response = await fetch(address, {
  method: "POST",
  headers: { "Content-Type": "application/sdp", "X-VoiceForge-Metadata": metadata },
  body: pc.localDescription.sdp,
});
if (response.status !== 201) throw new Error(`${response.status} ${await response.text()}`);
const location = new URL(response.headers.get("Location"), address).href;
await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
say({ location, link: response.headers.get("Link"), tracks: tracks.map((track) => track.id) });
await connected;

const longest = Math.max(...sources.map(({ pcm }) => pcm.length)) + TAIL_S * RATE;
const started = performance.now();
for (let at = 0; at < longest; at += SAMPLES) {
  for (const { sink, pcm } of sources) {
    const samples = new Int16Array(SAMPLES);
    samples.set(pcm.subarray(at, at + SAMPLES));
    sink.onData({ samples, sampleRate: RATE, bitsPerSample: 16, channelCount: 1, numberOfFrames: SAMPLES });
  }
  const due = started + ((at + SAMPLES) / RATE) * 1000;
  if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
}
await fetch(location, { method: "DELETE" });
pc.close();
process.exit(0);
