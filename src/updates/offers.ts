import { type Bus } from "../platform/bus/bus.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Service, repeat } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { Snapshot } from "../platform/snapshot.ts";
import { type Build, buildColumns } from "./build.ts";
import { isIn } from "./rollout.ts";
import { DEFAULT_CHANNEL } from "./schema.ts";
import { type ReadVersion, byVersion, isForced, isOlder, readVersion } from "./version.ts";

const CHANNEL = "builds";
const REFRESH_MS = 2000;
// A change must be seen within a second even while messages on the bus may be lost.
const UNHEARD_MS = 500;
const COUNTS_MS = 10_000;

/**
 * A client that checks for updates; it sees only its channel, and rollouts that include its device.
 */
export type Client = { version: string; channel: string; device: string | undefined };

/** A published build; `nameChangedAt` is when the newest build under its file name last changed. */
type PublishedBuild = Build & { nameChangedAt: Date };
type Candidate = { build: PublishedBuild; version: ReadVersion };

/**
 * Published builds, the greatest version first. `revision` combines the number and the sum of all
 * builds' revisions, including withdrawn ones, to detect changes.
 */
type Published = {
  all: Candidate[];
  forced: Candidate[];
  revision: string;
  readMs: number;
};
const NOTHING: Published = { all: [], forced: [], revision: "", readMs: 0 };

/**
 * Keeps the builds that are not withdrawn in memory. A change by any process arrives within a
 * second.
 */
export class Offers implements Service {
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

  async start(signal: AbortSignal): Promise<void> {
    await this.#published.start(signal);
    const refresh = () => this.#published.refresh();
    repeat(UNHEARD_MS, signal, () => {
      if (!this.#bus.hearsAll) refresh();
    });
    this.#bus.subscribe([CHANNEL], { message: refresh, missed: refresh });
  }

  /**
   * Must be called after a change is committed: tells other processes, and resolves when this one
   * offers the change. Never rejects, because the change itself has succeeded.
   */
  async changed(): Promise<void> {
    this.#bus.publish(CHANNEL, 0);
    await this.#published.again().catch(() => this.#published.refresh());
  }

  /**
   * Returns the newest build for the client, and whether the client may skip it. Falls back to the
   * default channel if the client's channel has no build for it. Throws 404 if that has none
   * either.
   */
  offer(client: Client): { build: Build; skipped: boolean } {
    const present = readVersion(client.version);
    const offer =
      this.#offerOf(client, present) ??
      this.#offerOf({ ...client, channel: DEFAULT_CHANNEL }, present);
    if (offer === undefined) throw new AppError("not_found", "record not found");
    return offer;
  }

  #offerOf({ channel, device }: Client, present: ReadVersion) {
    const { all, forced } = this.#published.value;
    const isVisible = (build: Build) =>
      build.channel === channel &&
      build.rollout > 0 &&
      (build.rollout === 100 || (device !== undefined && isIn(build.id, device, build.rollout)));
    const newest = all.find(({ build: one }) => one.targetAbi === present.abi && isVisible(one));
    if (newest === undefined) return undefined;
    const floor = forced.find(
      ({ build: one }) => (!one.floorPerAbi || one.targetAbi === present.abi) && isVisible(one),
    );
    const isBelow = floor !== undefined && isForced(floor.version, present);
    // A client is never forced to downgrade.
    const mayForce = !isOlder(newest.version, present);
    const { build } = newest;
    return { build, skipped: !(mayForce && (isBelow || !build.skipped)) };
  }

  /** Returns whether any client may be offered the build: no newer one is rolled out to all. */
  isOffered({ objectId, targetAbi, channel }: Build): boolean {
    const rivals = this.#published.value.all
      .map(({ build }) => build)
      .filter((one) => one.targetAbi === targetAbi && one.channel === channel);
    const first = rivals.findIndex((one) => one.rollout === 100);
    const offered = first === -1 ? rivals : rivals.slice(0, first + 1);
    return offered.some((one) => one.objectId === objectId && one.rollout > 0);
  }

  /** Returns the build that a link leads to. Throws 404. */
  async find(wanted: {
    name: string;
    version?: string;
    targetAbi?: string;
  }): Promise<PublishedBuild> {
    const look = () =>
      this.#published.value.all
        .map(({ build }) => build)
        .filter(
          ({ name, version, targetAbi }) =>
            name === wanted.name &&
            (wanted.version === undefined || version === wanted.version) &&
            (wanted.targetAbi === undefined || targetAbi === wanted.targetAbi),
        )
        // Object ids ascend with time; a build that was published again keeps its own, older id.
        .reduce<PublishedBuild | undefined>(
          (newest, one) => (newest && newest.objectId > one.objectId ? newest : one),
          undefined,
        );
    const known = look();
    if (known !== undefined) return known;
    await this.#published.again();
    const found = look();
    if (found === undefined) throw new AppError("not_found", "no such file");
    return found;
  }
}

/** Reads all builds, but only if one has changed, or after COUNTS_MS for the counts of uploads. */
async function selectPublished(sql: Sql, before: Published): Promise<Published> {
  const readMs = performance.now();
  const [{ revision }] = await sql<[{ revision: string }]>`
    select concat_ws(' ', count(*), sum(revision)) as revision from builds`;
  if (revision === before.revision && readMs - before.readMs < COUNTS_MS) return before;
  const builds = await sql<PublishedBuild[]>`
    select ${buildColumns(sql)}, (select changed_at from build_names where build_names.name = builds.name) as "nameChangedAt"
    from builds where not withdrawn order by id desc`;
  const all = builds
    .map((build) => ({ build, version: readVersion(build.version) }))
    .toSorted((one, other) => byVersion(one.version, other.version));
  return { all, forced: all.filter(({ build }) => !build.skipped), revision, readMs };
}
