import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

import { type Queryable, type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Line, parseLine } from "./import-line.ts";
import { PROPERTIES_BYTES_MAX, insertNumbers, replaceNumbers, tooLarge } from "./properties.ts";

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
    // Also when the lines end in an error: nothing is written after that is told.
    await writer.finish();
  }
  // The planner must know at once what the devices are like.
  await sql`analyze devices, device_numbers`;
  return { ...writer.counts, problems: problems.first };
}

/** Lines that were refused: those that cannot be read, and those that a device cannot take. */
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
/** What is said of each device, in the order of the lines. */
type Said = Map<string, [NumberedLine, ...NumberedLine[]]>;

class Chunk {
  readonly devices: Said = new Map();
  readonly counts = { lines: 0, devices: 0, bad: 0 };
  readonly #problems: Problems;
  #characters = 0;

  constructor(problems: Problems) {
    this.#problems = problems;
  }

  isFull(): boolean {
    return this.counts.devices >= CHUNK_DEVICES_MAX || this.#characters >= CHUNK_CHARACTERS_MAX;
  }

  /** The text of a line, or why there is none. */
  add(number: number, text: string | AppError): void {
    this.counts.lines++;
    if (typeof text === "string" && text.trim() === "") return;
    try {
      if (typeof text !== "string") throw text;
      this.#characters += text.length;
      const line = { ...parseLine(text), number };
      const said = this.devices.get(line.externalId);
      if (said === undefined) this.devices.set(line.externalId, [line]);
      else said.push(line);
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

/** Writes some chunks at a time, but those that have a device in common one after the other. */
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

/** Returns the lines that were refused, because the properties of their device would have become too large. */
async function writeDevices(sql: Sql, devices: Said): Promise<NumberedLine[]> {
  const tooLargeIds = await tryWrite(sql, devices);
  if (tooLargeIds.length === 0) return [];
  const refused: NumberedLine[] = [];
  const others = new Map(devices);
  for (const id of tooLargeIds) {
    const said = devices.get(id) ?? [];
    others.delete(id);
    if (said.length === 1) refused.push(...said);
    // Some of them may do.
    else
      for (const line of said) refused.push(...(await writeDevices(sql, new Map([[id, [line]]]))));
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

/** Writes all, or nothing: then returns those whose properties would become too large. */
async function tryWrite(sql: Sql, devices: Said): Promise<string[]> {
  if (devices.size === 0) return [];
  const merged = [...devices.values()].map(merge);
  try {
    await sql.begin(async (tx) => {
      // Nobody is told that a chunk is stored: the statement after the last one waits for the disk.
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

/** As if one came after the other. */
function merge([first, ...more]: [Line, ...Line[]]): Line {
  const last = more.at(-1);
  if (last === undefined) return first;
  const lines = [first, ...more];
  return { ...last, properties: new Map(lines.flatMap(({ properties }) => [...properties])) };
}

/** Tells whether devices were there before, and whether one may now be too large. Those that stay as they were are left alone. */
async function upsertStaged(tx: Queryable): Promise<{ changed: boolean; large: boolean }> {
  await tx`
    create temporary table written (id bigint, properties jsonb, fresh boolean) on commit drop`;
  const [row] = await tx<[{ changed: boolean; large: boolean }]>`
    with upserted as (
      insert into devices as d (id, external_id, push_token, send_platform, device_platform, properties)
      overriding system value
      -- Who is known has an id: one that the sequence gave for nothing would be lost.
      select case when known.id is null then nextval((select pg_get_serial_sequence('devices', 'id')::regclass)) else known.id end,
        staged.*
      from staged left join devices known on known.external_id = staged.external_id
      -- In one order everywhere, so that two imports cannot deadlock over the same rows.
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

/** Throws TooLarge. Looks at what was written: while it is, nobody else changes it. */
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
