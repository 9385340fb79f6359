import { type KeyObject, verify } from "node:crypto";

import { type Queryable, type Sql } from "../platform/database/database.ts";
import { AppError } from "../platform/errors.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { type Build, buildColumns, objectKey } from "./build.ts";
import { type ReceivedBuild, receiveBuild } from "./build-form.ts";
import { type BuildGarbage, keep, replaced } from "./garbage.ts";
import { type Offers } from "./offers.ts";
import { type BuildChange, DEFAULT_CHANNEL } from "./schema.ts";
import { isSkippable } from "./version.ts";

export type BuildsDeps = {
  sql: Sql;
  objects: ObjectStore;
  garbage: BuildGarbage;
  offers: Offers;
  metrics: Metrics;
};
export type BuildsOptions = {
  bytesMax: number;
  /** If set, every build must be signed. */
  publicKey: KeyObject | undefined;
};

/** Publishes builds, and changes who is offered them. */
export class Builds {
  readonly #deps: BuildsDeps;
  readonly #options: BuildsOptions;

  constructor(deps: BuildsDeps, options: BuildsOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /** Lists builds in the order in which their versions were first published. */
  async list(): Promise<Build[]> {
    const { sql } = this.#deps;
    return await sql<Build[]>`select ${buildColumns(sql)} from builds order by id`;
  }

  /**
   * Publishes the build of a form; resolves once it is stored whole and offered. Until then the
   * previous build is offered.
   */
  async publish(request: Request): Promise<Build> {
    const { sql, objects, garbage, offers, metrics } = this.#deps;
    using upload = await garbage.begin();
    const { objectId, signal } = upload;
    try {
      const received = await receiveBuild(request, {
        bytesMax: this.#options.bytesMax,
        store: async (chunks) => await objects.upload(objectKey(objectId), chunks, signal),
      });
      this.#checkSignature(received.file.sha256, received.change.signature ?? "");
      const build = await sql.begin(async (transaction) => {
        await keep(transaction, objectId);
        return await upsert(transaction, objectId, received);
      });
      metrics.updatePublishes.inc();
      metrics.updatePublishBytes.inc(build.bytes);
      await offers.changed();
      return build;
    } catch (error) {
      await garbage.discard(objectId);
      throw error;
    }
  }

  /** Throws 404. */
  async change(id: number, change: BuildChange): Promise<Build> {
    const { sql, offers } = this.#deps;
    const build = await sql.begin(async (transaction) => {
      const [present] = await transaction<Build[]>`
        select ${buildColumns(transaction)} from builds where id = ${id} for update`;
      if (present === undefined) throw new AppError("not_found", "no such build");
      if (change.signature !== undefined) this.#checkSignature(present.sha256, change.signature);
      return await update(transaction, { ...present, ...change });
    });
    await offers.changed();
    return build;
  }

  #checkSignature(sha256: string, signature: string): void {
    const { publicKey } = this.#options;
    if (publicKey === undefined) return;
    const isValid =
      signature !== "" &&
      verify(null, Buffer.from(sha256, "hex"), publicKey, Buffer.from(signature, "base64"));
    if (!isValid)
      throw new AppError(
        "invalid",
        "signature is not that of the build's SHA-256 by the key of UPDATE_PUBLIC_KEY",
      );
  }
}

/**
 * Inserts or replaces a build. A version that is published again keeps its id, its count and fields
 * that the form omits, but never a signature of other bytes.
 */
async function upsert(sql: Queryable, objectId: string, received: ReceivedBuild): Promise<Build> {
  const { version, targetAbi, file, change } = received;
  const { notes, ...others } = change;
  const fresh = { ...file, objectId, skipped: isSkippable(version), signature: "", ...others };
  const [inserted] = await insert(sql, {
    id: 0,
    uploads: 0n,
    version,
    targetAbi,
    notes: notes ?? "",
    channel: DEFAULT_CHANNEL,
    rollout: 100,
    withdrawn: false,
    floorPerAbi: false,
    ...fresh,
  });
  if (inserted !== undefined) return inserted;
  const [present] = await sql<[Build]>`
    select ${buildColumns(sql)} from builds where version = ${version} and target_abi = ${targetAbi} for update`;
  await replaced(sql, present.objectId);
  return await update(sql, { ...present, ...fresh, notes: notes ?? present.notes });
}

/** Inserts nothing if the version exists; waits for a transaction that is just inserting it. */
async function insert(sql: Queryable, build: Omit<Build, "publishedAt">): Promise<Build[]> {
  return await sql<Build[]>`
    insert into builds (version, target_abi, name, notes, bytes, md5, sha256, object_id, skipped, channel, rollout, withdrawn,
      floor_per_abi, signature)
    values (${build.version}, ${build.targetAbi}, ${build.name}, ${build.notes}, ${build.bytes}, ${build.md5}, ${build.sha256},
      ${build.objectId}, ${build.skipped}, ${build.channel}, ${build.rollout}, ${build.withdrawn}, ${build.floorPerAbi},
      ${build.signature})
    on conflict (version, target_abi) do nothing returning ${buildColumns(sql)}`;
}

async function update(sql: Queryable, build: Build): Promise<Build> {
  const [updated] = await sql<[Build]>`
    update builds set name = ${build.name}, notes = ${build.notes}, bytes = ${build.bytes}, md5 = ${build.md5},
      sha256 = ${build.sha256}, object_id = ${build.objectId}, skipped = ${build.skipped}, channel = ${build.channel},
      rollout = ${build.rollout}, withdrawn = ${build.withdrawn}, floor_per_abi = ${build.floorPerAbi}, signature = ${build.signature},
      revision = nextval('build_revisions')
    where id = ${build.id} returning ${buildColumns(sql)}`;
  return updated;
}
