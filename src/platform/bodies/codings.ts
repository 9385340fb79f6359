import { AppError } from "../errors.ts";

const NAMES = new Map([
  ["gzip", "gzip"],
  ["x-gzip", "gzip"],
  ["deflate", "deflate"],
  ["br", "br"],
  ["zstd", "zstd"],
] as const);
const ACCEPTED = "gzip, deflate, br, zstd";
// Content codings per body at most: real clients never compress twice, and a chain would multiply
// how much a decompression bomb grows.
const CODINGS_MAX = 2;
const GZIP_MAGIC = [0x1f, 0x8b];

export type Coding = "gzip" | "deflate" | "br" | "zstd";

/**
 * Returns the content codings of the body, the last applied first. Throws 415 with the supported
 * codings.
 */
export function codingsOf({ headers }: Request): Coding[] {
  const header = headers.get("content-encoding");
  if (header === null) return [];
  // Fast path for the value that SDKs send.
  if (header === "gzip") return ["gzip"];
  const names = header
    .toLowerCase()
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "" && name !== "identity");
  if (names.length > CODINGS_MAX) throw unsupported(`over ${CODINGS_MAX} content codings`);
  return names.map(codingOf).toReversed();
}

/**
 * Returns whether the bytes begin with the gzip magic number, which no batch, form or JSON text
 * begins with.
 */
export function beginsLikeGzip(bytes: Uint8Array): boolean {
  return bytes[0] === GZIP_MAGIC[0] && bytes[1] === GZIP_MAGIC[1];
}

function codingOf(name: string): Coding {
  for (const [known, coding] of NAMES) if (known === name) return coding;
  throw unsupported(`the content coding ${JSON.stringify(name.slice(0, 64))}`);
}

function unsupported(what: string): AppError {
  return new AppError("unsupported_coding", `${what} is not supported`, {
    headers: { "accept-encoding": ACCEPTED },
  });
}
