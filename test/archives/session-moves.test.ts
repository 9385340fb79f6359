import { beforeAll, describe, expect, test } from "bun:test";

import { type Origin } from "../../src/archives/piece-index.ts";
import { byOrigin } from "../../src/archives/piece-reader.ts";
import { type SessionRecordsDeps, SessionRecords } from "../../src/archives/session-records.ts";
import { segmentKey } from "../../src/log/segment.ts";
import { Lost } from "../../src/platform/objects/read-faults.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import {
  type Made,
  type Stored,
  archiveBatches,
  landingOf,
  makeArchive,
  rowsOf,
  swap,
} from "../support/archived.ts";
import { aBatch } from "../support/batches.ts";
import { FaultyObjects } from "../support/faulty-objects.ts";
import { Random } from "../support/random.ts";

const BATCHES = 24;
const PAGE_BATCHES = 4;
const SEED_COUNT = process.env["TEST_LONG"] === undefined ? 5 : 40;
const SEEDS = Array.from({ length: SEED_COUNT }, (_, seed) => seed);
const MOVES_MAX = 60;

const app = TestApp.forTests();

/** Moves batches between segments and archives at random, as often as it is asked to. */
class Mover {
  readonly #session: TestSession;
  readonly #random: Random;
  /** Rows of the batches as they were stored, by place; undefined if segments go. */
  readonly #rows: Map<string, string> | undefined;
  #landing: Stored[];
  #made: Made[];
  readonly #stored = new Map<Made, Stored[]>();
  #last = Promise.resolve();
  moves = 0;

  private constructor(
    session: TestSession,
    random: Random,
    { landing, made, rows }: { landing: Stored[]; made: Made[]; rows?: Map<string, string> },
  ) {
    this.#session = session;
    this.#random = random;
    this.#landing = landing;
    this.#made = made;
    this.#rows = rows;
  }

  /** `stored`: what the archives hold that the session has already. */
  static async of(
    session: TestSession,
    random: Random,
    stored: Map<Made, Stored[]>,
    { movesBack }: { movesBack: boolean },
  ): Promise<Mover> {
    const landing = await landingOf(app, session);
    const texts = await rowsOf(app, session);
    const rows = new Map(landing.map(({ batch }, nth) => [placeOf(batch), texts[nth] ?? ""]));
    const made = [...stored.keys()];
    const mover = new Mover(session, random, { landing, made, ...(movesBack && { rows }) });
    for (const [one, batches] of stored) mover.#stored.set(one, batches);
    return mover;
  }

  async move(): Promise<void> {
    if (this.moves === MOVES_MAX) return;
    this.moves++;
    // One after the other, because reads may be.
    this.#last = this.#last.then(async () => await this.#moveNow());
    await this.#last;
  }

  async #moveNow(): Promise<void> {
    const moves = [
      async () => await this.#archive(),
      async () => await this.#regroup(),
      async () => await this.#moveBack(),
    ];
    await moves[this.#random.integer(0, moves.length - 1)]?.();
  }

  async #archive(): Promise<void> {
    const chosen = this.#landing.filter(() => this.#random.chance(0.4));
    if (chosen.length === 0) return;
    const made = await this.#make(chosen);
    await swap(app, this.#session, { made: [made], moved: chosen.map(({ batch }) => batch) });
    this.#landing = this.#landing.filter((one) => !chosen.includes(one));
    this.#made.push(made);
    if (this.#rows !== undefined) return;
    for (const { batch } of chosen) await app.objects.remove(segmentKey(batch.segmentId));
  }

  /** Merges some archives, and divides what they have anew. */
  async #regroup(): Promise<void> {
    const gone = this.#made.filter(() => this.#random.chance(0.6));
    const groups = Map.groupBy(this.#inside(gone), () => this.#random.integer(0, 1));
    const made = await Promise.all([...groups.values()].map(async (one) => await this.#make(one)));
    await swap(app, this.#session, { made, gone });
    await this.#end(gone);
    this.#made.push(...made);
  }

  async #moveBack(): Promise<void> {
    if (this.#rows === undefined) return;
    const gone = this.#made.filter(() => this.#random.chance(0.3));
    const stored = this.#inside(gone);
    const back = stored.map(({ batch }) => this.#rows?.get(placeOf(batch)) ?? "");
    await swap(app, this.#session, { gone, back });
    await this.#end(gone);
    this.#landing.push(...stored);
  }

  #inside(archives: Made[]): Stored[] {
    const stored = archives.flatMap((one) => this.#stored.get(one) ?? []);
    const sorted = stored.toSorted((a, b) => byOrigin(a.batch, b.batch));
    const first = new Map(sorted.toReversed().map((one) => [one.batch.hash, one]));
    return sorted.filter((one) => first.get(one.batch.hash) === one);
  }

  async #make(stored: Stored[]): Promise<Made> {
    const made = await makeArchive(app, this.#session, stored);
    this.#stored.set(made, stored);
    return made;
  }

  async #end(gone: Made[]): Promise<void> {
    this.#made = this.#made.filter((one) => !gone.includes(one));
    for (const { key } of gone) if (this.#random.chance(0.7)) await app.objects.remove(key);
  }
}

function placeOf({ segmentId, offset }: Origin): string {
  return `${segmentId} ${offset}`;
}

async function aSession(random: Random): Promise<TestSession> {
  const session = await app.aSession();
  for (let nth = 0; nth < BATCHES; nth++)
    await app.append(
      session,
      aBatch({ messages: 1, bytes: random.integer(60, 900), salt: `${nth}` }),
    );
  return session;
}

/** Reads a session while `move` is called before each read of an object, and after each batch. */
async function readWhile(
  session: TestSession,
  move: () => Promise<void>,
  options: { listsFirst: boolean },
): Promise<string[]> {
  const faults = new FaultyObjects();
  const deps: SessionRecordsDeps = { sql: app.sql, objects: faults.wrap(app.objects) };
  faults.beforeRead = move;
  const records = new SessionRecords(deps, BigInt(session.sessionID));
  const { listsFirst } = options;
  const list = records.list({ pageBatches: PAGE_BATCHES, readsBodies: !listsFirst });
  const read: string[] = [];
  for await (const { batch, body } of records.read(
    listsFirst ? await Array.fromAsync(list) : list,
  )) {
    if (body instanceof Lost || "lost" in batch) read.push("lost");
    else read.push(`${placeOf(batch)} ${Bun.hash.xxHash3(body)}`);
    await move();
  }
  return read;
}

function expected(stored: Stored[]): string[] {
  return stored.map(({ batch }) => `${placeOf(batch)} ${batch.hash}`);
}

describe.each([
  ["listed and read at once", false],
  ["listed before they are read", true],
])("batches that move meanwhile are read once and in order, %s,", (_how, listsFirst) => {
  let sessions: TestSession[];
  beforeAll(async () => {
    sessions = await Promise.all(SEEDS.map(async (seed) => await aSession(new Random(seed))));
  });

  test.each(SEEDS)("back and forth, seed %d", async (seed) => {
    const session = sessions[seed] ?? (await aSession(new Random(seed)));
    const random = new Random(seed);
    const stored = await landingOf(app, session);
    const mover = await Mover.of(session, random, new Map(), { movesBack: true });
    const move = async () => {
      if (random.chance(0.3)) await mover.move();
    };
    for (let round = 0; round < 2; round++)
      expect(await readWhile(session, move, { listsFirst })).toEqual(expected(stored));
    expect(mover.moves).toBeGreaterThan(10);
  });

  test.each(SEEDS)(
    "into archives while their segments go, some sent twice, seed %d",
    async (seed) => {
      const random = new Random(seed);
      const session = await aSession(random);
      const all = await landingOf(app, session);
      const first = all.filter(() => random.chance(0.3));
      const isFirst = (nth: number) => first.some((one) => one === all[nth]);
      const made = await archiveBatches(app, session, { which: isFirst });
      for (const { body } of first) await app.append(session, body);
      expect(await landingOf(app, session)).toHaveLength(BATCHES);
      const mover = await Mover.of(session, random, new Map([[made, first]]), { movesBack: false });
      const move = async () => {
        if (random.chance(0.3)) await mover.move();
      };
      for (let round = 0; round < 2; round++)
        expect(await readWhile(session, move, { listsFirst })).toEqual(expected(all));
    },
  );
});
