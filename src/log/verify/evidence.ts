import { type Sql } from "../../platform/database/database.ts";
import { retryOutages } from "../../platform/database/retry-outages.ts";
import { type ObjectStore } from "../../platform/objects/objects.ts";
import { isGone } from "../recovery/missing-objects.ts";
import { inPages } from "../../platform/streams.ts";
import { segmentIdOf, segmentKey } from "../segment.ts";

const PAGE_OBJECTS = 1000;

/** Returns the key of some object that the store has and a row names, if there is one. */
export type FindKnown = () => Promise<string | undefined>;

/**
 * Evidence that objects are gone, and not the whole store: it still has an object that a row names.
 * An unmounted disk whose folder was created anew, or another bucket, has none.
 */
export class Evidence {
  readonly #objects: ObjectStore;
  readonly #finders: FindKnown[];
  #key: string | undefined;

  constructor(objects: ObjectStore, finders: FindKnown[]) {
    this.#objects = objects;
    this.#finders = finders;
  }

  /** Throws if there is no evidence at this moment. */
  async demand(): Promise<void> {
    if (this.#key !== undefined && !(await isGone(this.#objects, this.#key))) return;
    for (const find of this.#finders) {
      this.#key = await find();
      if (this.#key !== undefined) return;
    }
    throw new Error(
      "nothing is taken out, because the store has none of the objects that PostgreSQL knows: is it the right one, is its disk mounted?",
    );
  }
}

/** Finds a segment that the store lists and that has a row. */
export async function findKnownSegment(
  sql: Sql,
  objects: ObjectStore,
): Promise<string | undefined> {
  for await (const page of inPages(objects.list("segments/"), PAGE_OBJECTS)) {
    const ids = page.map(({ key }) => segmentIdOf(key)).filter((id) => id !== undefined);
    const [row] = await retryOutages(
      async () =>
        await sql<{ id: string }[]>`
        select id from segments where id = any(${ids}) and not deleted limit 1`,
    );
    if (row !== undefined) return segmentKey(row.id);
  }
  return undefined;
}
