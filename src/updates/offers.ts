import { type Bus } from "../platform/bus.ts";
import { type Sql } from "../platform/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Log } from "../platform/log.ts";
import { Snapshot } from "../platform/snapshot.ts";
import { type Build, buildColumns } from "./build.ts";
import { isIn } from "./rollout.ts";
import { type ReadVersion, isForced, readVersion } from "./version.ts";

const CHANNEL = "builds";
// Where the bus is away, a change must still be seen within a second.
const REFRESH_MS = 500;
const COUNTS_MS = 10_000;

/** Who asks: builds of other channels and of a rollout that the device is not in do not exist for it. */
export type Client = { version: string; channel: string; device: string | undefined };

/** Newest first. `revision` tells how many there are and the sum of theirs, withdrawn ones included. */
type Published = {
  all: Build[];
  forced: { build: Build; version: ReadVersion }[];
  revision: string;
  readMs: number;
};
const NOTHING: Published = { all: [], forced: [], revision: "", readMs: 0 };

/** The builds that are not withdrawn, as this process last read them; a change on any process is here within a second. */
export class Offers implements Disposable {
  readonly #bus: Bus;
  readonly #published: Snapshot<Published>;

  constructor({ sql, bus, log }: { sql: Sql; bus: Bus; log: Log }) {
    this.#bus = bus;
    this.#published = new Snapshot({
      name: "builds",
      empty: NOTHING,
      read: async () => await selectPublished(sql, this.#published.value),
      everyMs: REFRESH_MS,
      log,
    });
  }

  async watch(): Promise<void> {
    await this.#published.watch();
    const refresh = () => this.#published.refresh();
    this.#bus.subscribe([CHANNEL], { message: refresh, missed: refresh });
  }

  [Symbol.dispose](): void {
    this.#published[Symbol.dispose]();
  }

  /** To be called once a change is committed: tells the others, and resolves when this process offers it. Never fails, as the change has not. */
  async changed(): Promise<void> {
    this.#bus.publish(CHANNEL, 0);
    await this.#published.again().catch(() => this.#published.refresh());
  }

  /** The newest build for the client, and whether it must take it. Throws 404 when there is none. */
  offer({ version, channel, device }: Client): { build: Build; skipped: boolean } {
    const present = readVersion(version);
    const { all, forced } = this.#published.value;
    const isVisible = (build: Build) =>
      build.channel === channel &&
      build.rollout > 0 &&
      (build.rollout === 100 || (device !== undefined && isIn(build.id, device, build.rollout)));
    const build = all.find((one) => one.targetAbi === present.abi && isVisible(one));
    if (build === undefined) throw new AppError("not_found", "record not found");
    const floor = forced.find(
      ({ build: one }) => (!one.floorPerAbi || one.targetAbi === present.abi) && isVisible(one),
    );
    const isBelow = floor !== undefined && isForced(floor.version, present);
    return { build, skipped: build.skipped && !isBelow };
  }

  /** Whether anybody may be offered it: none is newer that everybody gets. */
  isOffered({ id, objectId, targetAbi, channel }: Build): boolean {
    const { all } = this.#published.value;
    const rivals = all.filter((one) => one.targetAbi === targetAbi && one.channel === channel);
    return (
      rivals.some((one) => one.objectId === objectId && one.rollout > 0) &&
      !rivals.some((one) => one.id > id && one.rollout === 100)
    );
  }

  /** The build of a link. Throws 404. */
  async find(wanted: { name: string; version?: string; targetAbi?: string }): Promise<Build> {
    const look = () =>
      this.#published.value.all
        .filter(
          ({ name, version, targetAbi }) =>
            name === wanted.name &&
            (wanted.version === undefined || version === wanted.version) &&
            (wanted.targetAbi === undefined || targetAbi === wanted.targetAbi),
        )
        // Object ids rise with time: a build that was published again is newer than its own id.
        .reduce<Build | undefined>(
          (newest, one) => (newest && newest.objectId > one.objectId ? newest : one),
          undefined,
        );
    const known = look();
    if (known !== undefined) return known;
    await this.#published.again();
    const found = look();
    if (found === undefined) throw new AppError("not_found", "record not found");
    return found;
  }
}

/** All builds, notes included, are read only when one has changed, and now and then for the counts of their uploads. */
async function selectPublished(sql: Sql, before: Published): Promise<Published> {
  const readMs = performance.now();
  const [{ revision }] = await sql<[{ revision: string }]>`
    select concat_ws(' ', count(*), sum(revision)) as revision from builds`;
  if (revision === before.revision && readMs - before.readMs < COUNTS_MS) return before;
  const all = await sql<Build[]>`
    select ${buildColumns(sql)} from builds where not withdrawn order by id desc`;
  const forced = all
    .filter(({ skipped }) => !skipped)
    .map((build) => ({ build, version: readVersion(build.version) }));
  return { all, forced, revision, readMs };
}
