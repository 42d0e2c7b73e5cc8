/** Numbers as the page shows them. */

/** `mm:ss.s`, and hours before it where there are any. */
export function clockText(timeS: number): string {
  const tenths = Math.max(0, Math.floor(timeS * 10));
  const pad = (value: number): string => String(value).padStart(2, "0");
  const hours = Math.floor(tenths / 36_000);
  const time = `${pad(Math.floor(tenths / 600) % 60)}:${pad(Math.floor(tenths / 10) % 60)}.${tenths % 10}`;
  return hours > 0 ? `${hours}:${time}` : time;
}

/** Milliseconds under a second, seconds above; a dash where nothing is measured. */
export function durationText(timeS: number | null): string {
  if (timeS === null) return "–";
  return timeS < 1 ? `${Math.round(timeS * 1000)} ms` : `${timeS.toFixed(2)} s`;
}

export function percentText(share: number | null): string {
  return share === null ? "–" : `${(share * 100).toFixed(1)} %`;
}
