import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { type Queryable, type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Line, parseLine } from "./import-line.ts";
import { PROPERTIES_BYTES_MAX, insertNumbers, replaceNumbers, tooLarge } from "./properties.ts";

// Small enough that each statement ends long before its time limit, and other writers do not wait long.
const CHUNK_DEVICES_MAX = 10_000;
const CHUNK_CHARACTERS_MAX = 8 * 2 ** 20;
// Each connection of PostgreSQL uses one core.
const WRITERS = 2;
/** Limit of refused lines that are reported in full. */
export const PROBLEMS_MAX = 100;

/** `devices` counts good lines, `bad` refused ones; blank lines are only in `lines`. */
export type ImportProgress = { lines: number; devices: number; bad: number };
export type ImportProblem = { line: number; reason: string };
export type ImportResult = ImportProgress & { problems: ImportProblem[] };

/**
 * Creates or changes one device for each line of JSON, as if one line were applied after the other.
 * Properties are added to those that a device has. Skips wrong lines and reports them. Keeps the
 * devices that were imported before an error.
 */
export async function importDevices(
  sql: Sql,
  lines: AsyncIterable<string | AppError>,
  onProgress: (progress: ImportProgress) => void,
): Promise<ImportResult> {
  const problems = new Problems();
  const writer = new Writer(sql, problems, onProgress);
  let chunk = new Chunk(problems);
  let number = 0;
  try {
    for await (const line of lines) {
      number++;
      chunk.add(number, line);
      if (!chunk.isFull()) continue;
      await writer.write(chunk);
      chunk = new Chunk(problems);
    }
    await writer.write(chunk);
  } finally {
    // After an error, too, the caller must not see writes that come later.
    await writer.finish();
  }
  // The planner needs the statistics for searches right after the import.
  await sql`analyze devices, device_numbers`;
  return { ...writer.counts, problems: problems.first };
}

/** Collects refused lines: malformed ones, and those whose properties would become too large. */
class Problems {
  readonly #all: ImportProblem[] = [];

  add(line: number, error: AppError): void {
    if (this.#all.length < PROBLEMS_MAX) this.#all.push({ line, reason: error.message });
  }

  get first(): ImportProblem[] {
    return this.#all.toSorted((a, b) => a.line - b.line);
  }
}

type NumberedLine = Line & { number: number };
/** Lines by external id, in their order. */
type LinesByDevice = Map<string, [NumberedLine, ...NumberedLine[]]>;

class Chunk {
  readonly devices: LinesByDevice = new Map();
  readonly counts = { lines: 0, devices: 0, bad: 0 };
  readonly #problems: Problems;
  #characters = 0;

  constructor(problems: Problems) {
    this.#problems = problems;
  }

  isFull(): boolean {
    return this.counts.devices >= CHUNK_DEVICES_MAX || this.#characters >= CHUNK_CHARACTERS_MAX;
  }

  /** Adds a line by its text, or as refused by its error. */
  add(number: number, text: string | AppError): void {
    this.counts.lines++;
    if (typeof text === "string" && text.trim() === "") return;
    try {
      if (typeof text !== "string") throw text;
      this.#characters += text.length;
      const line = { ...parseLine(text), number };
      const known = this.devices.get(line.external_id);
      if (known === undefined) this.devices.set(line.external_id, [line]);
      else known.push(line);
      this.counts.devices++;
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      this.counts.bad++;
      this.#problems.add(number, error);
    }
  }

  sharesDevice(other: Chunk): boolean {
    for (const id of this.devices.keys()) if (other.devices.has(id)) return true;
    return false;
  }
}

/** Writes several chunks at a time, but those that share a device one after the other. */
class Writer {
  readonly #sql: Sql;
  readonly #problems: Problems;
  readonly #onProgress: (progress: ImportProgress) => void;
  readonly #written: ImportProgress = { lines: 0, devices: 0, bad: 0 };
  readonly #writing = new Map<Chunk, Promise<void>>();

  constructor(sql: Sql, problems: Problems, onProgress: (progress: ImportProgress) => void) {
    this.#sql = sql;
    this.#problems = problems;
    this.#onProgress = onProgress;
  }

  /** Writes a chunk. Waits until there is room for the next one. Throws the error of an earlier one. */
  async write(chunk: Chunk): Promise<void> {
    for (const [other, written] of this.#writing) if (other.sharesDevice(chunk)) await written;
    const written = this.#write(chunk);
    // The error is thrown where the chunk is awaited.
    written.catch(() => undefined);
    this.#writing.set(chunk, written);
    if (this.#writing.size >= WRITERS) await Promise.race(this.#writing.values());
  }

  get counts(): ImportProgress {
    return { ...this.#written };
  }

  /** Waits for all writes. Throws the first error of any of them. */
  async finish(): Promise<void> {
    const settled = await Promise.allSettled(this.#writing.values());
    const failed = settled.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #write(chunk: Chunk): Promise<void> {
    const refused = await writeDevices(this.#sql, chunk.devices);
    this.#writing.delete(chunk);
    for (const { number } of refused) this.#problems.add(number, tooLarge());
    const { lines, devices, bad } = chunk.counts;
    this.#written.lines += lines;
    this.#written.devices += devices - refused.length;
    this.#written.bad += bad + refused.length;
    this.#onProgress({ ...this.#written });
  }
}

/** Writes devices. Returns the lines that would make the properties of their device too large. */
async function writeDevices(sql: Sql, devices: LinesByDevice): Promise<NumberedLine[]> {
  const tooLargeIds = await tryWrite(sql, devices);
  if (tooLargeIds.length === 0) return [];
  const refused: NumberedLine[] = [];
  const others = new Map(devices);
  for (const id of tooLargeIds) {
    const known = devices.get(id) ?? [];
    others.delete(id);
    if (known.length === 1) refused.push(...known);
    // Some of the lines may fit.
    else
      for (const line of known) refused.push(...(await writeDevices(sql, new Map([[id, [line]]]))));
  }
  return [...refused, ...(await writeDevices(sql, others))];
}

class TooLarge extends Error {
  override readonly name = "TooLarge";
  readonly ids: string[];

  constructor(ids: string[]) {
    super("properties of devices would become too large");
    this.ids = ids;
  }
}

/** Writes all devices or none. If none, returns the ids of those whose properties would become too large. */
async function tryWrite(sql: Sql, devices: LinesByDevice): Promise<string[]> {
  if (devices.size === 0) return [];
  const merged = [...devices.values()].map(merge);
  try {
    await sql.begin(async (tx) => {
      // No chunk is acknowledged; the statement after the last chunk waits for the disk.
      await tx`set local synchronous_commit = off`;
      await stage(tx, merged);
      const { changed, large } = await upsertStaged(tx);
      if (hasRemovals(merged))
        await tx`
          update devices set properties = jsonb_strip_nulls(devices.properties)
          from written where devices.id = written.id and devices.properties @? '$.* ? (@ == null)'`;
      if (large) await checkSizes(tx);
      await insertNumbers(tx, tx`(select * from written where fresh) as given`);
      if (changed) await replaceNumbers(tx, tx`(select * from written where not fresh) as given`);
    });
    return [];
  } catch (error) {
    if (error instanceof TooLarge) return error.ids;
    throw error;
  }
}

/** Merges lines of one device as if they were applied one after the other. */
function merge([first, ...more]: [Line, ...Line[]]): Line {
  const last = more.at(-1);
  if (last === undefined) return first;
  const lines = [first, ...more];
  return { ...last, properties: new Map(lines.flatMap(({ properties }) => [...properties])) };
}

/**
 * Upserts the staged devices, but leaves unchanged ones alone. Returns whether known devices were
 * changed, and whether a device may have become too large.
 */
async function upsertStaged(tx: Queryable): Promise<{ changed: boolean; large: boolean }> {
  await tx`
    create temporary table written (id bigint, properties jsonb, fresh boolean) on commit drop`;
  const [row] = await tx<[{ changed: boolean; large: boolean }]>`
    with upserted as (
      insert into devices as d (id, external_id, push_token, send_platform, device_platform, properties)
      overriding system value
      -- Known devices keep their id, so that the import consumes none for them.
      select case when known.id is null then nextval((select pg_get_serial_sequence('devices', 'id')::regclass)) else known.id end,
        staged.*
      from staged left join devices known on known.external_id = staged.external_id
      -- Every writer locks devices in this order, so that no two of them can deadlock.
      order by staged.external_id
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
    select coalesce(bool_or(not fresh), false) as changed,
      coalesce(bool_or(octet_length(properties::text) > ${PROPERTIES_BYTES_MAX}), false) as large
    from upserted`;
  return row;
}

/** Checks the rows just written, which the transaction has locked. Throws TooLarge. */
async function checkSizes(tx: Queryable): Promise<void> {
  const rows = await tx<{ id: string }[]>`
    select external_id as id from written join devices using (id)
    where octet_length(jsonb_strip_nulls(written.properties)::text) > ${PROPERTIES_BYTES_MAX}`;
  if (rows.length > 0) throw new TooLarge(rows.map(({ id }) => id));
}

function hasRemovals(lines: Line[]): boolean {
  return lines.some(({ properties }) => properties.values().some((value) => value === null));
}

async function stage(tx: Queryable, lines: Line[]): Promise<void> {
  await tx`
    create temporary table staged (external_id text, push_token text, send_platform smallint,
      device_platform smallint, properties jsonb) on commit drop`;
  const rows = await tx`copy staged from stdin`.writable();
  await pipeline(Readable.from(copyText(lines)), rows);
}

const COPY_BUFFER_CHARACTERS = 65_536;

function* copyText(lines: Line[]): Generator<string> {
  let text = "";
  for (const line of lines) {
    const properties = JSON.stringify(Object.fromEntries(line.properties));
    text += `${escape(line.external_id)}\t${escape(line.push_token)}\t${line.send_platform}\t${line.device_platform}\t${escape(properties)}\n`;
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

/** Escapes text for PostgreSQL's text format of COPY. */
function escape(text: string): string {
  return text.replaceAll(/[\\\t\n\r]/g, (character) => ESCAPES.get(character) ?? character);
}
