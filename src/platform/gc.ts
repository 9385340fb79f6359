/**
 * Frees the memory of bytes that nobody reads any more, instead of waiting for the collector. Does
 * nothing if they share their buffer with other bytes.
 */
export function release({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && byteLength > 0 && buffer.byteLength === byteLength)
    buffer.transfer(0);
}

const COLLECT_BYTES = 20 * 2 ** 20;

let bytes = 0;

/**
 * Counts bytes of bodies that were read and are no longer needed, and collects them now and then. Left alone, JavaScriptCore lets
 * several times the live heap pile up before it does: 600 MB instead of 200 under full load. A collection takes a few milliseconds.
 */
export function discarded(length: number): void {
  bytes += length;
  if (bytes < COLLECT_BYTES) return;
  bytes = 0;
  setImmediate(() => Bun.gc(true));
}
