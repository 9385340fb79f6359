import pLimit from "p-limit";

import { type ObjectStore } from "../platform/objects/objects.ts";
import { type Build, objectKey } from "./build.ts";

const PART_BYTES = 8 * 2 ** 20;
const PARTS_AT_A_TIME = 4;

type Entry = { build: Build; whole: Promise<Blob> };

/**
 * Holds builds of S3 in memory once a client has asked for them, because Bun drops the
 * `Content-Length` of streams (oven-sh/bun#10507). All downloads of a build share its bytes. Only
 * builds that are offered are held, so that clients cannot fill the memory with all old ones.
 */
export class BuildCache {
  readonly #objects: ObjectStore;
  readonly #isOffered: (build: Build) => boolean;
  readonly #bytesMax: number;
  readonly #entries = new Map<string, Entry>();

  constructor(objects: ObjectStore, isOffered: (build: Build) => boolean, bytesMax: number) {
    this.#objects = objects;
    this.#isOffered = isOffered;
    this.#bytesMax = bytesMax;
  }

  /**
   * Returns the build's bytes; undefined if it is not offered or there is no room for it. Throws as
   * `read` of the object store does.
   */
  async whole(build: Build): Promise<Blob | undefined> {
    const entry = this.#entries.get(build.objectId) ?? this.#add(build);
    return await entry?.whole;
  }

  #add(build: Build): Entry | undefined {
    for (const [id, { build: old }] of this.#entries)
      if (!this.#isOffered(old)) this.#entries.delete(id);
    const held = this.#entries
      .values()
      .reduce((bytes, { build: { bytes: more } }) => bytes + more, 0);
    if (!this.#isOffered(build) || held + build.bytes > this.#bytesMax) return undefined;
    const entry = { build, whole: this.#read(build) };
    this.#entries.set(build.objectId, entry);
    entry.whole.catch(() => this.#entries.delete(build.objectId));
    return entry;
  }

  async #read({ objectId, bytes }: Build): Promise<Blob> {
    const whole = new Uint8Array(bytes);
    const starts = Array.from(
      { length: Math.ceil(bytes / PART_BYTES) },
      (_, nth) => nth * PART_BYTES,
    );
    const failure = new AbortController();
    const limit = pLimit(PARTS_AT_A_TIME);
    await limit.map(starts, async (start) => {
      // Reads no more after a failure. The entry is deleted only when all reads have ended, so that
      // no download starts them again before.
      if (failure.signal.aborted) return;
      try {
        const end = Math.min(start + PART_BYTES, bytes);
        whole.set(await this.#objects.read(objectKey(objectId), start, end, failure.signal), start);
      } catch (error) {
        failure.abort(error);
      }
    });
    failure.signal.throwIfAborted();
    return new Blob([whole]);
  }
}
