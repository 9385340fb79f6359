import { type Sql } from "../platform/database/database.ts";
import { retryOutages } from "../platform/database/retry-outages.ts";
import { ObjectDamaged, ObjectMissing, type ObjectStore } from "../platform/objects/objects.ts";
import { isGone } from "../log/recovery/missing-objects.ts";
import { type Evidence } from "../log/verify/evidence.ts";
import { type State } from "../log/verify/finding.ts";
import { type Build, buildColumns, objectKey } from "./build.ts";

const PART_BYTES = 8 * 2 ** 20;
const GONE = "the object is gone";

type Deps = { sql: Sql; objects: ObjectStore };
type Problem = { state: State; reason: string };

export type BuildFinding = Problem & {
  what: "build";
  id: number;
  version: string;
  targetABI: string;
  name: string;
  key: string;
};

/**
 * Checks that the objects of builds are there, and unless `quick` that their bytes are those that
 * were published. Calls `onBuild` for each.
 */
export async function* verifyBuilds(
  { sql, objects }: Deps,
  { quick, onBuild }: { quick: boolean; onBuild: () => void },
): AsyncGenerator<BuildFinding> {
  for (const build of await selectBuilds(sql)) {
    onBuild();
    let problem = await presence(objects, build);
    if (!quick) problem ??= await compare(objects, build);
    // A build that was published again meanwhile has another object.
    if (problem !== undefined && (await isNamed(sql, build))) yield describe(build, problem);
  }
}

/** Takes out the builds whose objects are gone, and yields them. */
export async function* takeOutBuilds(
  { sql, objects }: Deps,
  evidence: Evidence,
): AsyncGenerator<BuildFinding> {
  for (const build of await selectBuilds(sql)) {
    const problem = await presence(objects, build);
    if (problem === undefined) continue;
    await evidence.demand();
    const { id, objectId } = build;
    const { count } = await retryOutages(
      async () => await sql`delete from builds where id = ${id} and object_id = ${objectId}`,
    );
    if (count > 0) yield describe(build, problem);
  }
}

/** Finds a build whose object the store has. */
export async function findKnownBuild({ sql, objects }: Deps): Promise<string | undefined> {
  for (const { objectId } of await selectBuilds(sql))
    if (!(await isGone(objects, objectKey(objectId)))) return objectKey(objectId);
  return undefined;
}

/** Reads all builds at once, as serving processes do: there are few. */
async function selectBuilds(sql: Sql): Promise<Build[]> {
  return await retryOutages(
    async () => await sql<Build[]>`select ${buildColumns(sql)} from builds order by id`,
  );
}

async function isNamed(sql: Sql, { id, objectId }: Build): Promise<boolean> {
  const rows = await retryOutages(
    async () => await sql`select 1 from builds where id = ${id} and object_id = ${objectId}`,
  );
  return rows.length > 0;
}

async function presence(objects: ObjectStore, { objectId }: Build): Promise<Problem | undefined> {
  return (await isGone(objects, objectKey(objectId)))
    ? { state: "missing", reason: GONE }
    : undefined;
}

async function compare(
  objects: ObjectStore,
  { objectId, bytes, sha256 }: Build,
): Promise<Problem | undefined> {
  const hasher = new Bun.CryptoHasher("sha256");
  try {
    for (let start = 0; start < bytes; start += PART_BYTES) {
      const end = Math.min(start + PART_BYTES, bytes);
      hasher.update(await objects.read(objectKey(objectId), start, end));
    }
  } catch (error) {
    if (error instanceof ObjectDamaged) return { state: "damaged", reason: error.message };
    if (error instanceof ObjectMissing) return { state: "missing", reason: GONE };
    throw error;
  }
  if (hasher.digest("hex") === sha256) return undefined;
  return { state: "damaged", reason: "its SHA-256 is not that of the build" };
}

function describe(build: Build, problem: Problem): BuildFinding {
  const { id, version, targetAbi: targetABI, name, objectId } = build;
  return { what: "build", id, version, targetABI, name, key: objectKey(objectId), ...problem };
}
