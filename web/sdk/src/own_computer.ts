/** Servers on the browser's own computer, which Firefox asks for pages but not for media. */

/** Of its offers (RFC 8866 §5.2 leaves the name to whoever writes it). */
const BY_FIREFOX = /^o=mozilla/m;
const ADDRESS = /^a=candidate:\S+ 1 udp \d+ (\S+) /gim;
const LOOPBACK = /^(127\.|::1$)/;

const addresses = (sdp: string): string[] => [...sdp.matchAll(ADDRESS)].map(([, address]) => address as string);

/**
 * Whether media cannot connect, whatever it is waited for: Firefox sends no packet to an address of loopback unless it has
 * candidates of its own there, which a preference alone gives it. It tells nobody, and checks for half a minute.
 *
 * @param offer with the candidates that were found.
 */
export function isOutOfReach(offer: string, answer: string): boolean {
  const theirs = addresses(answer);
  if (!BY_FIREFOX.test(offer) || theirs.length === 0) return false;
  return theirs.every((address) => LOOPBACK.test(address)) && !addresses(offer).some((address) => LOOPBACK.test(address));
}
