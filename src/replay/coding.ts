import { Readable, pipeline } from "node:stream";
import { constants, createGzip, createZstdCompress } from "node:zlib";
import Negotiator from "negotiator";

import { AppError } from "../platform/errors.ts";

const CODINGS = ["zstd", "gzip", "identity"] as const;
export type ReplayCoding = (typeof CODINGS)[number];

// The fastest levels: files are composed while somebody waits.
const GZIP = { level: constants.Z_BEST_SPEED };
const ZSTD = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };

/** Returns the content coding that a client likes best, or `identity` if it may. Throws 406. */
export function codingFor({ headers }: Request, { plain }: { plain: boolean }): ReplayCoding {
  const given = headers.get("accept-encoding") ?? undefined;
  const negotiator = new Negotiator({ headers: { "accept-encoding": given } });
  const accepted = negotiator.encodings(CODINGS);
  const best = plain && accepted.includes("identity") ? "identity" : accepted[0];
  const coding = CODINGS.find((one) => one === best);
  if (coding === undefined)
    throw new AppError("not_acceptable", `only ${CODINGS.join(", ")} are available`);
  return coding;
}

/** Compresses the chunks as they come. */
export async function* encoded(
  chunks: AsyncGenerator<Uint8Array>,
  coding: ReplayCoding,
): AsyncGenerator<Uint8Array> {
  if (coding === "identity") {
    yield* chunks;
    return;
  }
  const engine = coding === "gzip" ? createGzip(GZIP) : createZstdCompress(ZSTD);
  const pieces: AsyncIterable<Uint8Array> = engine;
  // The callback is required; errors are thrown by whoever reads the engine.
  pipeline(Readable.from(chunks), engine, () => undefined);
  yield* pieces;
}
