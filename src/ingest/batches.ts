import { setImmediate } from "node:timers/promises";
import { pack } from "msgpackr";

import { type Sql } from "../platform/database/database.ts";
import { Lost } from "../platform/objects/read-faults.ts";
import { type Place, type SegmentReader, batchBody } from "../log/segment-reader.ts";
import { batchKindOf } from "../log/batch-kind.ts";
import { FLAG } from "../log/record.ts";
import { parseAnalytics } from "./analytics.ts";
import { type Message } from "./decoding.ts";
import { FrameError, walkManyFrames } from "./frames.ts";
import { decodeMessages } from "./messages.ts";
import { walkManyWebFrames } from "./web-frames.ts";
import { decodeWebHeader, decodeWebMessages } from "./web-messages.ts";

const PAGE_ROWS = 500;
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

type BatchRow = Place & { flags: number; bytes: number; messages: number; receivedAt: Date };
type Batch = { row: BatchRow; body: Uint8Array };
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
 * Reads a session's batches as they were sent, in commit order, with a page of rows and a span of a
 * segment in memory at a time.
 */
export class Batches {
  readonly #sql: Sql;
  readonly #reader: SegmentReader;

  constructor(sql: Sql, reader: SegmentReader) {
    this.#sql = sql;
    this.#reader = reader;
  }

  async *encode(
    sessionId: bigint,
    format: BatchFormat,
    { quarantined, skipMissing }: BatchOptions,
  ): AsyncGenerator<Uint8Array> {
    const batches = this.#read(sessionId, quarantined);
    if (format === "application/json") yield* jsonDocument(batches);
    else
      for await (const { row, body } of batches) {
        if (!(body instanceof Lost))
          yield format === "application/msgpack" ? pack(describe({ row, body })) : withLength(body);
        else if (!skipMissing) throw body;
      }
  }

  /** Summarizes a session's stored batches. */
  async summary(sessionId: bigint) {
    const [row] = await this.#sql<[BatchSummary]>`
      select count(*)::integer as count, coalesce(sum(bytes), 0)::double precision as bytes,
        coalesce(sum(messages), 0)::double precision as messages,
        count(*) filter (where flags & ${FLAG.quarantined} <> 0)::integer as quarantined,
        min(first_at) as "firstAt", max(last_at) as "lastAt"
      from batches where session_id = ${sessionId}`;
    return row;
  }

  async *#read(
    sessionId: bigint,
    quarantined: boolean,
  ): AsyncGenerator<{ row: BatchRow; body: Uint8Array | Lost }> {
    const rows = this.#rows(sessionId, quarantined);
    const options = { decode: batchBody, about: { session: String(sessionId) } };
    for await (const { place, body } of this.#reader.read(rows, options))
      yield { row: place, body };
  }

  async *#rows(sessionId: bigint, quarantined: boolean): AsyncGenerator<BatchRow> {
    let after = { segmentId: "00000000-0000-0000-0000-000000000000", offset: 0 };
    for (;;) {
      const rows = await selectPage(this.#sql, sessionId, quarantined, after);
      yield* rows;
      const last = rows.at(-1);
      if (last === undefined || rows.length < PAGE_ROWS) return;
      after = last;
    }
  }
}

async function selectPage(
  sql: Sql,
  sessionId: bigint,
  quarantined: boolean,
  after: { segmentId: string; offset: number },
): Promise<BatchRow[]> {
  return await sql<BatchRow[]>`
    select segment_id as "segmentId", "offset", length, bytes, flags, messages, received_at as "receivedAt"
    from batches
    where session_id = ${sessionId} and (segment_id, "offset") > (${after.segmentId}, ${after.offset})
      and (flags & ${FLAG.quarantined} <> 0) = ${quarantined}
    order by segment_id, "offset" limit ${PAGE_ROWS}`;
}

function withLength(body: Uint8Array): Uint8Array {
  const framed = Buffer.allocUnsafe(4 + body.length);
  framed.writeUInt32LE(body.length);
  framed.set(body, 4);
  return framed;
}

function describe({ row, body }: Batch) {
  return {
    receivedAt: row.receivedAt.toISOString(),
    late: (row.flags & FLAG.late) !== 0,
    kind: batchKindOf(row.flags),
    messages: row.messages,
    body,
  };
}

/** Encodes one message at a time, because a small batch can hold hundreds of thousands. */
async function* jsonDocument(
  batches: AsyncGenerator<{ row: BatchRow; body: Uint8Array | Lost }>,
): AsyncGenerator<Uint8Array> {
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
async function* withGaps(
  batches: AsyncGenerator<{ row: BatchRow; body: Uint8Array | Lost }>,
): AsyncGenerator<Batch | Missing> {
  let gap: Missing | undefined;
  for await (const { row, body } of batches)
    if (body instanceof Lost) gap = widened(gap, row.receivedAt);
    else {
      if (gap !== undefined) yield gap;
      gap = undefined;
      yield { row, body };
    }
  if (gap !== undefined) yield gap;
}

/**
 * Extends the time range: batches of several processes may be committed out of order of receipt.
 */
function widened(gap: Missing | undefined, receivedAt: Date): Missing {
  if (gap === undefined) return { missing: { batches: 1, from: receivedAt, to: receivedAt } };
  const { batches, from, to } = gap.missing;
  return {
    missing: {
      batches: batches + 1,
      from: receivedAt < from ? receivedAt : from,
      to: receivedAt > to ? receivedAt : to,
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
async function decodedBatch({ row: { flags }, body }: Batch): Promise<Decoded | undefined> {
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
