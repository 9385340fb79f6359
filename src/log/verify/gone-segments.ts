import { LRUCache } from "lru-cache";
import pLimit from "p-limit";

import { type ObjectStore } from "../../platform/objects/objects.ts";
import { isGone } from "../recovery/missing-objects.ts";
import { segmentKey } from "../segment.ts";

const KNOWN_MAX = 100_000;
const READS_AT_A_TIME = 16;

/** Asks the store which segments are gone, and remembers the answers. */
export class GoneSegments {
  readonly #objects: ObjectStore;
  readonly #known = new LRUCache<string, boolean>({ max: KNOWN_MAX });
  readonly #limit = pLimit(READS_AT_A_TIME);

  constructor(objects: ObjectStore) {
    this.#objects = objects;
  }

  /** Returns those of the segments whose objects are gone. Throws while the store is unavailable. */
  async among(ids: Iterable<string>): Promise<Set<string>> {
    const asked = [...new Set(ids)];
    const gone = await this.#limit.map(asked, async (id) => {
      const answer = this.#known.get(id) ?? (await isGone(this.#objects, segmentKey(id)));
      this.#known.set(id, answer);
      return answer;
    });
    return new Set(asked.filter((_id, nth) => gone[nth]));
  }
}
