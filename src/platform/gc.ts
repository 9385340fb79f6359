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
 * Counts bytes of bodies that are no longer needed, and runs the garbage collector every 20
 * MiB, which takes a few milliseconds. Left alone, JavaScriptCore lets several times the live heap
 * pile up before it collects: 600 MB instead of 200 MB under full load.
 */
export function discarded(length: number): void {
  bytes += length;
  if (bytes < COLLECT_BYTES) return;
  bytes = 0;
  setImmediate(() => Bun.gc(true));
}
