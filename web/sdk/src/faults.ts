/** Failures that the client itself notices, each in one place. */

import { VoiceForgeError, wireError } from "./errors.ts";
import type { WireError } from "./events.ts";

export function fault(code: string, message: string, hint: string, retryable = false, cause?: unknown): VoiceForgeError {
  return new VoiceForgeError({ code, message, hint, retryable }, { cause });
}

export const closedHere = (): VoiceForgeError =>
  fault("CLOSED", "The client was closed.", "Make a new one to connect again.");

export const notConnected = (): VoiceForgeError =>
  fault("NOT_CONNECTED", "There is no connection to the server.", "Wait for `ready`.");

export const alreadyUsed = (): VoiceForgeError =>
  fault("ALREADY_USED", "This client has connected before.", "Make a new one.");

export const noAudioFormat = (): VoiceForgeError =>
  fault("NO_AUDIO_FORMAT", "This client sends a track.", "Give it an `audioFormat` instead.");

export const malformedEvent = (): VoiceForgeError =>
  fault("MALFORMED_EVENT", "The server sent what is no event.", "Update this client.");

export function microphoneLost(): VoiceForgeError {
  const hint = "Connect it again, or choose another in the settings, then start again.";
  return fault("MICROPHONE_LOST", "The microphone went away.", hint, true);
}

/** @param cause how WebRTC failed. */
export function udpBlocked(cause: unknown): VoiceForgeError {
  const hint = "It goes over a WebSocket instead.";
  return fault("UDP_BLOCKED", "Audio does not get through by WebRTC here.", hint, false, cause);
}

export const connectionLost = (): VoiceForgeError =>
  fault("CONNECTION_LOST", "The connection to the server was lost.", "Start again.", true);

export function timedOut(limitMs: number): VoiceForgeError {
  const hint = "Where UDP is blocked on the way, a WebSocket or a TURN server gets through.";
  return fault("CONNECT_TIMEOUT", `No connection within ${Math.round(limitMs / 1000)} s.`, hint, true);
}

export function unreachableMedia(): VoiceForgeError {
  const hint = "Use a WebSocket, or open the server's UDP ports to this browser, or configure a TURN server.";
  return fault("ICE_FAILED", "The server answers, but audio does not get through to it.", hint, true);
}

/** The code of `unreachableMedia`, for programs may do the same about it. */
export function mediaOnOwnComputer(): VoiceForgeError {
  const hint = "Use a WebSocket, or let the server listen on an address of the network too.";
  return fault("ICE_FAILED", "Firefox sends no audio by WebRTC to a server on its own computer.", hint);
}

export function unexpected(cause: unknown): VoiceForgeError {
  const told = cause instanceof Error ? cause.message : String(cause);
  return fault("CLIENT_FAILED", `The browser could not connect: ${told}`, "Try another browser.", false, cause);
}

/** What the server told in an event. */
export function serverError(told: WireError): VoiceForgeError {
  const unnamed = { code: "UNKNOWN_ERROR", message: "The server reported an error.", hint: "", retryable: false };
  return new VoiceForgeError(wireError(told, unnamed) ?? unnamed);
}

/** Any failure as one that can be told. */
export const toldOf = (cause: unknown): VoiceForgeError => (cause instanceof VoiceForgeError ? cause : unexpected(cause));
