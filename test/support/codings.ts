import * as zlib from "node:zlib";

const FAST = { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } };

/** Encoders by the name of their `Content-Encoding`. */
export const ENCODERS: Record<string, (bytes: Uint8Array) => Uint8Array> = {
  gzip: (bytes) => zlib.gzipSync(bytes),
  "x-gzip": (bytes) => zlib.gzipSync(bytes),
  deflate: (bytes) => zlib.deflateSync(bytes),
  "deflate without zlib's header": (bytes) => zlib.deflateRawSync(bytes),
  br: (bytes) => zlib.brotliCompressSync(bytes, FAST),
  zstd: (bytes) => zlib.zstdCompressSync(bytes),
};

/** Returns the `Content-Encoding` of an encoder. */
export function codingName(encoder: string): string {
  return encoder.split(" ")[0] ?? "";
}
