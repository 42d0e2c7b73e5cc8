/** Hands the transcript to the person as a file. */

import { toJson, toSrt, toText, toVtt, type Utterance } from "@voiceforge/client";

const FORMATS = {
  txt: { write: toText, type: "text/plain" },
  srt: { write: toSrt, type: "application/x-subrip" },
  vtt: { write: toVtt, type: "text/vtt" },
  json: { write: toJson, type: "application/json" },
};

export type Format = keyof typeof FORMATS;

/** Downloads `utterances`; the file is named after the moment of saving. */
export function save(utterances: readonly Utterance[], format: Format): void {
  const { write, type } = FORMATS[format];
  const url = URL.createObjectURL(new Blob([write(utterances)], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `voiceforge-${localStamp(new Date())}.${format}`;
  link.click();
  URL.revokeObjectURL(url);
}

function localStamp(now: Date): string {
  const pad = (value: number): string => String(value).padStart(2, "0");
  return `${now.getFullYear()}-${pad(now.getMonth() + 1)}-${pad(now.getDate())}-${pad(now.getHours())}${pad(now.getMinutes())}`;
}
