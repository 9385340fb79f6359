import { AppError } from "../platform/errors.ts";
import { type Encoded, readEncoded } from "../platform/bodies/content.ts";
import { queryOf } from "../platform/http/parameters.ts";
import { parseDecimal } from "../platform/whole-numbers.ts";
import { type BatchKind } from "../log/batch-kind.ts";
import { FLAG } from "../log/record.ts";
import { walkAnalytics } from "./analytics.ts";
import { type Frames, walkFrames, walkManyFrames } from "./frames.ts";
import { walkManyWebFrames, walkWebFrames, webKindOf } from "./web-frames.ts";

/** Batch of a request. */
export type SentBatch = {
  kind: BatchKind;
  /** Bytes without any content coding. */
  content: Uint8Array;
  /** Bytes as they are stored, and FLAG.gzip if they are compressed. */
  body: Uint8Array;
  gzip: number;
};

/** Wire format of a route: how batches are read from its requests, and how their frames are checked. */
export type WireFormat = {
  /** Reads a body. Throws AppError. */
  read: typeof readEncoded;
  /** Returns the batches in a body. Throws 400. */
  batches: (request: Request, encoded: Encoded) => SentBatch[];
  /** Checks the framing of a batch. Throws FrameError. */
  walk: (batch: SentBatch) => Frames;
  /** Checks the framing of a large batch. Rejects with FrameError. */
  walkMany: (batch: SentBatch) => Promise<Frames>;
};

export const MOBILE: WireFormat = {
  read: readEncoded,
  batches: (_request, encoded) => [filled("mobile", encoded)],
  walk: ({ content }) => walkFrames(content),
  walkMany: ({ content }) => walkManyFrames(content),
};

/** Batches of the web tracker. A request of the type `visual` has two of them. */
export const WEB: WireFormat = {
  async read(...args) {
    try {
      return await readEncoded(...args);
    } catch (cause) {
      // The tracker knows 413, but not 400, for a body that cannot be inflated.
      if (cause instanceof AppError && cause.code === "invalid")
        throw new AppError("too_large", cause.message, { cause });
      throw cause;
    }
  },
  batches(request, encoded) {
    const { content } = encoded;
    if (request.headers.get("datatype") === "visual") {
      const split = splitOf(request, content.length);
      // Stored inflated: compressing them again would take three times as long as inflating did.
      return [
        plain("player", content.subarray(0, split)),
        plain("assets", content.subarray(split)),
      ];
    }
    return content.length === 0 ? [] : [whole(webKindOf(content), encoded)];
  },
  walk: ({ content, kind }) => walkWebFrames(content, kind),
  walkMany: ({ content, kind }) => walkManyWebFrames(content, kind),
};

/** JSON of the analytics SDK. */
export const ANALYTICS: WireFormat = {
  read: readEncoded,
  batches: (_request, encoded) => [filled("sdk", encoded)],
  walk: ({ content }) => walkAnalytics(content),
  walkMany: ({ content }) => Promise.try(walkAnalytics, content),
};

/** Returns the length of the first batch of two. Throws 400. */
function splitOf(request: Request, length: number): number {
  const split = Number(parseDecimal(queryOf(request)?.get("split") ?? ""));
  if (split > 0 && split < length) return split;
  throw new AppError("invalid", "split must be a whole number within the inflated body");
}

/** Returns the batch of a body that must not be empty. Throws 400. */
function filled(kind: BatchKind, encoded: Encoded): SentBatch {
  if (encoded.content.length === 0) throw new AppError("invalid", "the batch is empty");
  return whole(kind, encoded);
}

/**
 * Returns a batch that fills a body. It is stored as it was sent if every reader of segments can
 * decode it, which is without a content coding or as gzip alone.
 */
function whole(kind: BatchKind, { sent, codings, content }: Encoded): SentBatch {
  const isGzip = codings.length === 1 && codings[0] === "gzip";
  return isGzip ? { kind, content, body: sent, gzip: FLAG.gzip } : plain(kind, content);
}

function plain(kind: BatchKind, content: Uint8Array): SentBatch {
  return { kind, content, body: content, gzip: 0 };
}
