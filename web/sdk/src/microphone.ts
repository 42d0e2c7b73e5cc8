/** Opens the microphone, or says why not. */

import { errorFromMicrophone, VoiceForgeError } from "./errors.ts";

/**
 * Opens a microphone and returns its track; the caller stops it.
 *
 * @throws VoiceForgeError `INSECURE_CONTEXT`, `MICROPHONE_DENIED`, `MICROPHONE_NOT_FOUND`, `MICROPHONE_BUSY`, `MICROPHONE_FAILED`.
 */
export async function openMicrophone(constraints: MediaTrackConstraints): Promise<MediaStreamTrack> {
  // Browsers leave `mediaDevices` out altogether where the page came over plain HTTP.
  if (!globalThis.isSecureContext || navigator.mediaDevices === undefined) {
    throw new VoiceForgeError({
      code: "INSECURE_CONTEXT",
      message: "Browsers give the microphone only to pages from HTTPS or from this computer.",
      hint: "Open this page by https:// or as http://localhost.",
      retryable: false,
    });
  }
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: constraints, video: false });
  } catch (cause) {
    throw errorFromMicrophone(cause);
  }
  const track = stream.getAudioTracks()[0];
  if (track === undefined) throw errorFromMicrophone({ name: "NotFoundError" });
  return track;
}
