import { setImmediate } from "node:timers/promises";
import { pack } from "msgpackr";

import { type StoredBatch, type Unlisted } from "../archives/session-merge.ts";
import { SessionRecords, type SessionRecordsDeps } from "../archives/session-records.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { batchKindOf } from "../log/batch-kind.ts";
import { FLAG } from "../log/record.ts";
import { parseAnalytics } from "./analytics.ts";
import { type Message } from "./decoding.ts";
import { FrameError, walkManyFrames } from "./frames.ts";
import { decodeMessages } from "./messages.ts";
import { walkManyWebFrames } from "./web-frames.ts";
import { decodeWebHeader, decodeWebMessages } from "./web-messages.ts";

// Rows of batches that are held while they are only counted.
const COUNTED_PAGE_BATCHES = 10_000;
const JSON_PIECE_LENGTH = 64 * 1024;
// Time until the buffered part of a JSON document is flushed even if it is short: the store may be
// slow.
const JSON_PIECE_MS = 1000;

export type BatchFormat = "application/json" | "application/octet-stream" | "application/msgpack";

export type BatchSummary = {
  count: number;
  /** inflated size */
  bytes: number;
  messages: number;
  quarantined: number;
  firstAt: Date | null;
  lastAt: Date | null;
};

type Batch = { batch: StoredBatch; body: Uint8Array };
type Read = AsyncGenerator<{ batch: StoredBatch | Unlisted; body: Uint8Array | Lost }>;
/** Run of batches that cannot be read; the times are when they were received. */
type Missing = { missing: { batches: number; from: Date; to: Date } };

export type BatchOptions = {
  /** Returns the batches with malformed framing instead of the others. */
  quarantined: boolean;
  /**
   * Omits unreadable batches from a binary response instead of throwing Lost. JSON always lists
   * them.
   */
  skipMissing: boolean;
};

/**
 * Reads a session's batches as they were sent, in commit order, with a page of rows and a few
 * megabytes of objects in memory at a time.
 */
export class Batches {
  readonly #deps: SessionRecordsDeps;

  constructor(deps: SessionRecordsDeps) {
    this.#deps = deps;
  }

  async *encode(
    sessionId: bigint,
    format: BatchFormat,
    { quarantined, skipMissing }: BatchOptions,
  ): AsyncGenerator<Uint8Array> {
    const records = new SessionRecords(this.#deps, sessionId);
    const batches = records.read(records.list({ quarantined }));
    if (format === "application/json") yield* jsonDocument(batches);
    else
      for await (const { batch, body } of batches) {
        if (body instanceof Lost) {
          if (!skipMissing) throw body;
        } else if (!("lost" in batch))
          yield format === "application/msgpack"
            ? pack(describe({ batch, body }))
            : withLength(body);
      }
  }

  /** Summarizes a session's stored batches, each once. */
  async summary(sessionId: bigint): Promise<BatchSummary> {
    const [{ sources, ...sum }] = await this.#deps.sql<[BatchSummary & { sources: number }]>`
      with source as (
        select count(*) as batches, sum(bytes) as bytes, sum(messages) as messages,
          count(*) filter (where flags & ${FLAG.quarantined} <> 0) as quarantined, min(first_at) as first_at, max(last_at) as last_at
        from batches where session_id = ${sessionId} having count(*) > 0
        union all
        select batches, bytes, messages, quarantined, first_at, last_at
        from session_pieces where session_id = ${sessionId} and batches > 0
      )
      select count(*)::integer as sources, coalesce(sum(batches), 0)::integer as count,
        coalesce(sum(bytes), 0)::double precision as bytes, coalesce(sum(messages), 0)::double precision as messages,
        coalesce(sum(quarantined), 0)::integer as quarantined, min(first_at) as "firstAt", max(last_at) as "lastAt"
      from source`;
    // Only several places can have copies of one batch.
    return sources < 2 ? sum : ((await this.#counted(sessionId)) ?? sum);
  }

  /** Counts the batches one by one. Returns undefined if some are not listed. */
  async #counted(sessionId: bigint): Promise<BatchSummary | undefined> {
    const sum = { count: 0, bytes: 0, messages: 0, quarantined: 0 };
    let first = Number.POSITIVE_INFINITY;
    let last = Number.NEGATIVE_INFINITY;
    const records = new SessionRecords(this.#deps, sessionId);
    const options = { pageBatches: COUNTED_PAGE_BATCHES, readsBodies: false };
    for await (const batch of records.list(options)) {
      if ("lost" in batch) return undefined;
      sum.count++;
      sum.bytes += batch.bytes;
      sum.messages += batch.messages;
      if ((batch.flags & FLAG.quarantined) !== 0) sum.quarantined++;
      first = Math.min(first, batch.firstAt ?? first);
      last = Math.max(last, batch.lastAt ?? last);
    }
    return { ...sum, firstAt: dateOf(first), lastAt: dateOf(last) };
  }
}

function dateOf(ms: number): Date | null {
  return Number.isFinite(ms) ? new Date(ms) : null;
}

function withLength(body: Uint8Array): Uint8Array {
  const framed = Buffer.allocUnsafe(4 + body.length);
  framed.writeUInt32LE(body.length);
  framed.set(body, 4);
  return framed;
}

function describe({ batch, body }: Batch) {
  return {
    receivedAt: new Date(batch.receivedAt).toISOString(),
    late: (batch.flags & FLAG.late) !== 0,
    kind: batchKindOf(batch.flags),
    messages: batch.messages,
    body,
  };
}

/** Encodes one message at a time, because a small batch can hold hundreds of thousands. */
async function* jsonDocument(batches: Read): AsyncGenerator<Uint8Array> {
  let text = '{"batches":[';
  let separator = "";
  let sentMs = performance.now();
  for await (const entry of withGaps(batches)) {
    text += separator;
    separator = ",";
    const pieces =
      "missing" in entry ? [JSON.stringify(entry)] : jsonPieces(entry, await decodedBatch(entry));
    for (const piece of pieces) {
      text += piece;
      if (text.length < JSON_PIECE_LENGTH && performance.now() - sentMs < JSON_PIECE_MS) continue;
      yield Buffer.from(text);
      text = "";
      // Lets other requests run between the pieces.
      await setImmediate();
      sentMs = performance.now();
    }
  }
  yield Buffer.from(`${text}]}`);
}

/** Yields the batches, and between them an entry for each run of lost batches. */
async function* withGaps(batches: Read): AsyncGenerator<Batch | Missing> {
  let gap: Missing | undefined;
  for await (const { batch, body } of batches)
    if ("lost" in batch) gap = widened(gap, batch);
    else if (body instanceof Lost)
      gap = widened(gap, { batches: 1, from: batch.receivedAt, to: batch.receivedAt });
    else {
      if (gap !== undefined) yield gap;
      gap = undefined;
      yield { batch, body };
    }
  if (gap !== undefined) yield gap;
}

/**
 * Extends the time range: batches of several processes may be committed out of order of receipt.
 */
function widened(gap: Missing | undefined, more: Omit<Unlisted, "lost">): Missing {
  const from = new Date(more.from);
  const to = new Date(more.to);
  if (gap === undefined) return { missing: { batches: more.batches, from, to } };
  const { missing } = gap;
  return {
    missing: {
      batches: missing.batches + more.batches,
      from: from < missing.from ? from : missing.from,
      to: to > missing.to ? to : missing.to,
    },
  };
}

function* jsonPieces(batch: Batch, decoded: Decoded | undefined): Generator<string> {
  const { receivedAt, late, kind, body } = describe(batch);
  const { header, messages, json } = decoded ?? {};
  yield JSON.stringify({ receivedAt, late, kind, header }).slice(0, -1);
  if (messages !== undefined) {
    let separator = ',"messages":[';
    for (const message of messages) {
      yield separator + JSON.stringify(message);
      separator = ",";
    }
    yield separator === "," ? "]}" : ',"messages":[]}';
  } else if (json !== undefined) {
    yield `,"json":${json}}`;
  } else {
    // Malformed framing does not tell where a message ends.
    yield `,"body":"${Buffer.from(body).toString("base64")}"}`;
  }
}

type Decoded = {
  header?: Message["fields"];
  messages?: Iterable<Message>;
  /** JSON that the analytics SDK sent, as it came. */
  json?: string;
};

/**
 * Returns the messages of a batch, which are decoded one by one, or undefined if it is malformed. A
 * batch that another version stored may be malformed by today's rules.
 */
async function decodedBatch({ batch: { flags }, body }: Batch): Promise<Decoded | undefined> {
  const kind = batchKindOf(flags);
  if ((flags & FLAG.quarantined) !== 0 || kind === "unknown") return undefined;
  try {
    if (kind === "sdk") return { json: parseAnalytics(body).text };
    if (kind === "mobile") {
      await walkManyFrames(body);
      return { messages: decodeMessages(body) };
    }
    await walkManyWebFrames(body);
    return { header: decodeWebHeader(body), messages: decodeWebMessages(body) };
  } catch (error) {
    if (error instanceof FrameError) return undefined;
    throw error;
  }
}
