import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { type Queryable, type Sql } from "../platform/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Line, parseLine } from "./import-line.ts";
import { insertNumbers, replaceNumbers } from "./properties.ts";

// Small enough for each statement to end long before its time limit, and for other writers not to wait long for the rows.
const CHUNK_DEVICES_MAX = 10_000;
const CHUNK_CHARACTERS_MAX = 8 * 2 ** 20;
// One connection of PostgreSQL uses one core.
const WRITERS = 2;
/** So many of the refused lines are told in full. */
export const PROBLEMS_MAX = 100;

/** `devices` counts good lines, `bad` refused ones; blank lines are only in `lines`. */
export type ImportProgress = { lines: number; devices: number; bad: number };
export type ImportProblem = { line: number; reason: string };
export type ImportResult = ImportProgress & { problems: ImportProblem[] };

/**
 * Makes or changes one device for each line of JSON, as if the lines were applied one after the other: properties are added to those
 * that a device has. Wrong lines are skipped and told. What was imported before an error stays.
 */
export async function importDevices(
  sql: Sql,
  lines: AsyncIterable<string>,
  onProgress: (progress: ImportProgress) => void,
): Promise<ImportResult> {
  const problems: ImportProblem[] = [];
  const writer = new Writer(sql, onProgress);
  let chunk = new Chunk();
  let number = 0;
  try {
    for await (const text of lines) {
      number++;
      const reason = chunk.add(text);
      if (reason !== undefined && problems.length < PROBLEMS_MAX)
        problems.push({ line: number, reason });
      if (!chunk.isFull()) continue;
      await writer.write(chunk);
      chunk = new Chunk();
    }
    await writer.write(chunk);
  } finally {
    // Also when the lines end in an error: nothing is written after that is told.
    await writer.finish();
  }
  // The planner must know at once what the devices are like.
  await sql`analyze devices, device_numbers`;
  return { ...writer.counts, problems };
}

class Chunk {
  readonly devices = new Map<string, Line>();
  readonly counts = { lines: 0, devices: 0, bad: 0 };
  #characters = 0;

  isFull(): boolean {
    return this.devices.size >= CHUNK_DEVICES_MAX || this.#characters >= CHUNK_CHARACTERS_MAX;
  }

  /** Returns what is wrong with the line, if anything. */
  add(text: string): string | undefined {
    this.counts.lines++;
    if (text.trim() === "") return undefined;
    this.#characters += text.length;
    try {
      this.#merge(parseLine(text));
      this.counts.devices++;
      return undefined;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.counts.bad++;
      return error.message;
    }
  }

  #merge(line: Line): void {
    const before = this.devices.get(line.externalId);
    if (before !== undefined) line.properties = new Map([...before.properties, ...line.properties]);
    this.devices.set(line.externalId, line);
  }

  sharesDevice(other: Chunk): boolean {
    for (const id of this.devices.keys()) if (other.devices.has(id)) return true;
    return false;
  }
}

/** Writes some chunks at a time, but those that have a device in common one after the other. */
class Writer {
  readonly #sql: Sql;
  readonly #onProgress: (progress: ImportProgress) => void;
  readonly #written: ImportProgress = { lines: 0, devices: 0, bad: 0 };
  readonly #writing = new Map<Chunk, Promise<void>>();

  constructor(sql: Sql, onProgress: (progress: ImportProgress) => void) {
    this.#sql = sql;
    this.#onProgress = onProgress;
  }

  /** Resolves when there is room for the next one. Throws the error of one before it. */
  async write(chunk: Chunk): Promise<void> {
    for (const [other, written] of this.#writing) if (other.sharesDevice(chunk)) await written;
    const written = this.#write(chunk);
    // Its error is thrown where it is waited for.
    written.catch(() => undefined);
    this.#writing.set(chunk, written);
    if (this.#writing.size >= WRITERS) await Promise.race(this.#writing.values());
  }

  get counts(): ImportProgress {
    return { ...this.#written };
  }

  /** Waits for what is being written. Throws the error of any of it. */
  async finish(): Promise<void> {
    const settled = await Promise.allSettled(this.#writing.values());
    const failed = settled.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #write(chunk: Chunk): Promise<void> {
    await writeChunk(this.#sql, chunk);
    this.#writing.delete(chunk);
    const { lines, devices, bad } = chunk.counts;
    this.#written.lines += lines;
    this.#written.devices += devices;
    this.#written.bad += bad;
    this.#onProgress({ ...this.#written });
  }
}

async function writeChunk(sql: Sql, chunk: Chunk): Promise<void> {
  if (chunk.devices.size === 0) return;
  await sql.begin(async (tx) => {
    // Nobody is told that a chunk is stored: the statement after the last one waits for the disk.
    await tx`set local synchronous_commit = off`;
    await stage(tx, chunk);
    const changed = await upsertStaged(tx);
    if (hasRemovals(chunk))
      await tx`
        update devices set properties = jsonb_strip_nulls(devices.properties)
        from written where devices.id = written.id and devices.properties @? '$.* ? (@ == null)'`;
    await insertNumbers(tx, tx`(select * from written where fresh) as given`);
    if (changed) await replaceNumbers(tx, tx`(select * from written where not fresh) as given`);
  });
}

/** Tells whether devices were there before. Those that stay as they were are left alone. */
async function upsertStaged(tx: Queryable): Promise<boolean> {
  await tx`
    create temporary table written (id bigint, properties jsonb, fresh boolean) on commit drop`;
  const [row] = await tx<[{ changed: boolean }]>`
    with upserted as (
      insert into devices as d (external_id, push_token, send_platform, device_platform, properties)
      select * from staged
      -- In one order everywhere, so that two imports cannot deadlock over the same rows.
      order by external_id
      on conflict (external_id) do update set push_token = excluded.push_token,
        send_platform = excluded.send_platform, device_platform = excluded.device_platform,
        properties = d.properties || excluded.properties,
        token_set_at = case when d.push_token = excluded.push_token then d.token_set_at else now() end,
        token_invalid = d.token_invalid and d.push_token = excluded.push_token
      where (d.push_token, d.send_platform, d.device_platform, d.properties) is distinct from
        (excluded.push_token, excluded.send_platform, excluded.device_platform, d.properties || excluded.properties)
      returning id, properties, xmax = 0 as fresh
    ), written as (
      insert into written select * from upserted
    )
    select coalesce(bool_or(not fresh), false) as changed from upserted`;
  return row.changed;
}

function hasRemovals(chunk: Chunk): boolean {
  for (const { properties } of chunk.devices.values())
    for (const value of properties.values()) if (value === null) return true;
  return false;
}

async function stage(tx: Queryable, chunk: Chunk): Promise<void> {
  await tx`
    create temporary table staged (external_id text, push_token text, send_platform smallint,
      device_platform smallint, properties jsonb) on commit drop`;
  const rows = await tx`copy staged from stdin`.writable();
  await pipeline(Readable.from(copyText(chunk)), rows);
}

const COPY_BUFFER_CHARACTERS = 65_536;

function* copyText(chunk: Chunk): Generator<string> {
  let text = "";
  for (const line of chunk.devices.values()) {
    const properties = JSON.stringify(Object.fromEntries(line.properties));
    text += `${escape(line.externalId)}\t${escape(line.pushToken)}\t${line.sendPlatform}\t${line.devicePlatform}\t${escape(properties)}\n`;
    if (text.length < COPY_BUFFER_CHARACTERS) continue;
    yield text;
    text = "";
  }
  yield text;
}

const ESCAPES = new Map([
  ["\\", "\\\\"],
  ["\t", "\\t"],
  ["\n", "\\n"],
  ["\r", "\\r"],
]);

/** As PostgreSQL's text format for COPY wants it. */
function escape(text: string): string {
  return text.replaceAll(/[\\\t\n\r]/g, (character) => ESCAPES.get(character) ?? character);
}
