import * as zlib from "node:zlib";

const FAST = { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } };

/** Bytes as a client sends them with `Content-Encoding`, by the name that it gives the coding. */
export const ENCODERS: Record<string, (bytes: Uint8Array) => Uint8Array> = {
  gzip: (bytes) => zlib.gzipSync(bytes),
  "x-gzip": (bytes) => zlib.gzipSync(bytes),
  deflate: (bytes) => zlib.deflateSync(bytes),
  "deflate without zlib's header": (bytes) => zlib.deflateRawSync(bytes),
  br: (bytes) => zlib.brotliCompressSync(bytes, FAST),
  zstd: (bytes) => zlib.zstdCompressSync(bytes),
};

/** The header of one of those. */
export function codingName(encoder: string): string {
  return encoder.split(" ")[0] ?? "";
}
