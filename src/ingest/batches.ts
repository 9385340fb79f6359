import { setImmediate } from "node:timers/promises";
import { gunzipSync } from "node:zlib";
import { pack } from "msgpackr";

import { type Sql } from "../platform/database.ts";
import { decodeMessages } from "./messages.ts";
import { type Place, type SegmentReader } from "./segment-reader.ts";
import { FLAG } from "./segment.ts";

const PAGE_ROWS = 500;
const JSON_PIECE_LENGTH = 64 * 1024;

export type BatchFormat = "application/json" | "application/octet-stream" | "application/msgpack";

export type BatchSummary = {
  count: number;
  /** bytes when inflated */
  bytes: number;
  messages: number;
  quarantined: number;
  firstAt: Date | null;
  lastAt: Date | null;
};

type BatchRow = Place & { flags: number; bytes: number; messages: number; receivedAt: Date };
type Batch = { row: BatchRow; body: Uint8Array };

/** A session's batches as they were sent, in commit order, a page of rows and a span of a segment in memory at a time. */
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
    quarantined: boolean,
  ): AsyncGenerator<Uint8Array> {
    const batches = this.#read(sessionId, quarantined);
    if (format === "application/json") yield* jsonDocument(batches);
    else
      for await (const batch of batches)
        yield format === "application/msgpack" ? pack(describe(batch)) : withLength(batch.body);
  }

  /** What is stored of a session. */
  async summary(sessionId: bigint) {
    const [row] = await this.#sql<[BatchSummary]>`
      select count(*)::integer as count, coalesce(sum(bytes), 0)::double precision as bytes,
        coalesce(sum(messages), 0)::double precision as messages,
        count(*) filter (where flags & ${FLAG.quarantined} <> 0)::integer as quarantined,
        min(first_at) as "firstAt", max(last_at) as "lastAt"
      from batches where session_id = ${sessionId}`;
    return row;
  }

  async *#read(sessionId: bigint, quarantined: boolean): AsyncGenerator<Batch> {
    for await (const { place, body } of this.#reader.read(this.#rows(sessionId, quarantined)))
      yield {
        row: place,
        body:
          (place.flags & FLAG.gzip) === 0
            ? body
            : gunzipSync(body, { maxOutputLength: place.bytes }),
      };
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
    messages: row.messages,
    body,
  };
}

/** Message by message: a small batch can hold hundreds of thousands. */
async function* jsonDocument(batches: AsyncGenerator<Batch>): AsyncGenerator<Uint8Array> {
  let text = '{"batches":[';
  let isFirst = true;
  for await (const batch of batches) {
    text += isFirst ? "" : ",";
    isFirst = false;
    for (const piece of jsonPieces(batch)) {
      text += piece;
      if (text.length < JSON_PIECE_LENGTH) continue;
      yield Buffer.from(text);
      text = "";
      // Other requests get their turn between the pieces.
      await setImmediate();
    }
  }
  yield Buffer.from(`${text}]}`);
}

function* jsonPieces(batch: Batch): Generator<string> {
  const { receivedAt, late, body } = describe(batch);
  yield JSON.stringify({ receivedAt, late }).slice(0, -1);
  if ((batch.row.flags & FLAG.quarantined) === 0) {
    let separator = ',"messages":[';
    for (const message of decodeMessages(body)) {
      yield separator + JSON.stringify(message);
      separator = ",";
    }
    yield separator === "," ? "]}" : ',"messages":[]}';
  } else {
    // There are no messages that could be told apart.
    yield `,"body":"${Buffer.from(body).toString("base64")}"}`;
  }
}
