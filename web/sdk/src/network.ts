/** When the network may have changed. Hints only: what matters is whether packets pass. */

interface NetworkInformation extends EventTarget {}

/** Calls back when the browser is online again, or goes by another network; the returned function ends it. */
export function watchNetwork(onChange: () => void): () => void {
  // Chromium alone tells of changes; elsewhere this is absent.
  const connection = (globalThis.navigator as { connection?: NetworkInformation } | undefined)?.connection;
  globalThis.addEventListener?.("online", onChange);
  connection?.addEventListener?.("change", onChange);
  return () => {
    globalThis.removeEventListener?.("online", onChange);
    connection?.removeEventListener?.("change", onChange);
  };
}
