import { readBody } from "./body.ts";
import { type Coding, beginsLikeGzip, codingsOf } from "./codings.ts";
import { AppError } from "../errors.ts";
import { type Chunks, beginning, inflateChunks, inflateWhole } from "./inflate.ts";

const GZIP_MAGIC_BYTES = 2;

export type Encoded = {
  /** The body as it was sent. */
  sent: Uint8Array;
  /** Content codings that were removed, in this order. */
  codings: Coding[];
  content: Uint8Array;
};

/** Returns the body without its content codings. Throws like `readEncoded`. */
export async function readContent(
  request: Request,
  bytesMax: number,
  hold?: (bytes: number) => void,
): Promise<Uint8Array> {
  return (await readEncoded(request, bytesMax, hold)).content;
}

/**
 * Returns the body as it was sent and without its content codings; recognizes gzip even without a
 * header. `hold` is called with byte counts as by `readBody`. Throws 415 for unknown codings, 413
 * if more than `bytesMax` is sent or would be inflated, 400 if the body is truncated or corrupt,
 * and what `readBody` throws.
 */
export async function readEncoded(
  request: Request,
  bytesMax: number,
  hold?: (bytes: number) => void,
): Promise<Encoded> {
  const codings = codingsOf(request);
  const sent = await readBody(request, bytesMax, hold);
  if (sent.length === 0) return { sent, codings: [], content: sent };
  let content = sent;
  for (const coding of codings) content = await inflateWhole(coding, content, bytesMax);
  if (!beginsLikeGzip(content)) return { sent, codings, content };
  try {
    const inflated = await inflateWhole("gzip", content, bytesMax);
    return { sent, codings: [...codings, "gzip"], content: inflated };
  } catch (error) {
    // Without a header the gzip magic may be a coincidence: keep the body as it is.
    if (error instanceof AppError && error.code === "invalid") return { sent, codings, content };
    throw error;
  }
}

/**
 * Returns the chunks of the body without its content codings; `sent` are those that arrive.
 * Iterating throws 413 only if more than `bytesMax` would be inflated. A chunk belongs to the
 * consumer, who may `release` it.
 */
export async function contentChunks(
  request: Request,
  bytesMax: number,
  sent: Chunks,
): Promise<Chunks> {
  let chunks = sent;
  for (const coding of codingsOf(request)) chunks = inflateChunks(coding, chunks, bytesMax);
  const { head, all } = await beginning(chunks, GZIP_MAGIC_BYTES);
  return beginsLikeGzip(head) ? inflateChunks("gzip", all, bytesMax) : all;
}
