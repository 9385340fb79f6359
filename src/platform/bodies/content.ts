import { bodyChunks, readBody } from "./body.ts";
import { type Coding, beginsLikeGzip, codingsOf } from "./codings.ts";
import { AppError } from "../errors.ts";
import { beginning, inflateChunks, inflateWhole } from "./inflate.ts";
import { discarded } from "../gc.ts";

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
 * Yields the body without its content codings as it arrives; throws 413 only if more than
 * `bytesMax` would be inflated.
 */
export async function* contentChunks(
  request: Request,
  bytesMax: number,
): AsyncGenerator<Uint8Array> {
  let chunks = counted(bodyChunks(request.body));
  for (const coding of codingsOf(request)) chunks = inflateChunks(coding, chunks, bytesMax);
  const { head, all } = await beginning(chunks, GZIP_MAGIC_BYTES);
  yield* beginsLikeGzip(head) ? inflateChunks("gzip", all, bytesMax) : all;
}

async function* counted(chunks: AsyncGenerator<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    yield chunk;
    // Half: a stream holds nothing beside its chunks, so more of them may pile up.
    discarded(chunk.length / 2);
  }
}
