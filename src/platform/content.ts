import { bodyChunks, readBody } from "./body.ts";
import { type Coding, beginsLikeGzip, codingsOf } from "./codings.ts";
import { AppError } from "./errors.ts";
import { beginning, inflateChunks, inflateWhole } from "./inflate.ts";
import { originalOf } from "./rewritten.ts";

const GZIP_MAGIC_BYTES = 2;

export type Encoded = {
  /** as it came */
  sent: Uint8Array;
  /** what was taken off, in that order */
  codings: Coding[];
  content: Uint8Array;
};

/** The body without its content codings. Throws what `readEncoded` throws. */
export async function readContent(
  request: Request,
  bytesMax: number,
  hold?: (bytes: number) => void,
): Promise<Uint8Array> {
  return (await readEncoded(request, bytesMax, hold)).content;
}

/**
 * The body as it was sent, and without its content codings; gzip is also recognised where no header tells of it. `hold` is told of
 * bytes as by `readBody`. Throws 415 for codings that are not known, 413 when more than `bytesMax` is sent or comes out, 400 when it is
 * not whole, and what `readBody` throws.
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
    // Nobody said that it is gzip, so it need not be.
    if (error instanceof AppError && error.code === "invalid") return { sent, codings, content };
    throw error;
  }
}

/** The same as it arrives; throws 413 only when more than `bytesMax` would come out. */
export async function* contentChunks(
  request: Request,
  bytesMax: number,
): AsyncGenerator<Uint8Array> {
  let chunks = bodyChunks(originalOf(request).body);
  for (const coding of codingsOf(request)) chunks = inflateChunks(coding, chunks, bytesMax);
  const { head, all } = await beginning(chunks, GZIP_MAGIC_BYTES);
  yield* beginsLikeGzip(head) ? inflateChunks("gzip", all, bytesMax) : all;
}
