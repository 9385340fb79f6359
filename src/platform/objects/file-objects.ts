import type { Stats } from "node:fs";
import {
  access,
  constants,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rm,
  stat,
  statfs,
  unlink,
} from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

import { codeOf } from "../errors.ts";
import { DurableWriter, writeDurably } from "./durable-file.ts";
import { checkKey, checkRange } from "./object-keys.ts";
import { ObjectConflict, ObjectDamaged, ObjectMissing, type ObjectStore } from "./objects.ts";
import { abortable } from "../streams.ts";

// No key part begins with a dot, so this folder can hold no object.
const TEMPORARY = ".tmp";
// Error codes of a file that no retry will read.
const UNREADABLE = new Set(["EIO", "EISDIR", "EUCLEAN", "EBADMSG", "ELOOP", "ENOTDIR"]);
const TEMPORARY_AGE_MAX_MS = 60 * 60 * 1000;
const FREE_BYTES_MIN = 64 * 2 ** 20;
const FOLDERS_KNOWN_MAX = 1000;
const PROBE = "Written to see whether the disk takes writes.\n";

/**
 * Object store in a folder. An object's name appears only once its bytes are on the disk, because
 * it is a link to a file that was synced before.
 */
export class FileObjects implements ObjectStore {
  readonly name = "files";
  readonly freePuts = true;
  readonly #root: string;
  readonly #temporary: string;
  readonly #writer = new DurableWriter();
  /** Folders that are durable, so that a PUT need not create them again. */
  readonly #folders = new Map<string, Promise<void>>();

  private constructor(root: string) {
    this.#root = root;
    this.#temporary = join(root, TEMPORARY);
  }

  /**
   * Creates the folder if it is missing, or rejects without `create`, and removes old temporary
   * files of killed writers.
   */
  static async open(folder: string, { create = true } = {}): Promise<FileObjects> {
    const objects = new FileObjects(resolve(folder));
    if (!create && !(await objects.#isThere())) throw objects.#away();
    const made = await mkdir(objects.#temporary, { recursive: true });
    if (made !== undefined)
      for (let path = objects.#temporary; path.length >= made.length; path = dirname(path))
        await syncFolder(dirname(path));
    await objects.#sweep();
    return objects;
  }

  async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    checkKey(key);
    const path = join(this.#root, key);
    const temporary = join(this.#temporary, Bun.randomUUIDv7());
    const write = async () => await this.#writer.write(temporary, body);
    const created = await this.#create(path, temporary, write, signal);
    if (!created && !(await readFile(path)).equals(body)) throw taken(path);
  }

  async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    checkKey(key);
    const path = join(this.#root, key);
    const temporary = join(this.#temporary, uploadOf(key) + Bun.randomUUIDv7());
    const write = async () =>
      await writeDurably(temporary, async (file) => {
        for await (const chunk of signal ? abortable(chunks, signal) : chunks)
          await file.writeFile(chunk);
      });
    if (!(await this.#create(path, temporary, write, signal))) throw taken(path);
  }

  async read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkKey(key);
    checkRange(start, end);
    signal?.throwIfAborted();
    let bytes: Uint8Array;
    try {
      bytes = await Bun.file(join(this.#root, key)).slice(start, end).bytes();
    } catch (error) {
      if (isMissing(error)) throw await this.#missing(key);
      if (UNREADABLE.has(codeOf(error))) throw damaged(key, start, end, new Uint8Array(0), error);
      throw error;
    }
    if (bytes.length !== end - start) throw damaged(key, start, end, bytes);
    return bytes;
  }

  async body(key: string, start: number, end: number): Promise<Blob> {
    checkKey(key);
    checkRange(start, end);
    const path = join(this.#root, key);
    const stats = await unlessMissing<Stats | undefined>(stat(path), undefined);
    if (stats === undefined) throw await this.#missing(key);
    if (stats.size < end) throw damaged(key, start, end, new Uint8Array(0));
    return Bun.file(path).slice(start, end);
  }

  async remove(key: string): Promise<void> {
    checkKey(key);
    const path = join(this.#root, key);
    // Temporary files first: an upload that ends meanwhile becomes an object, removed next.
    for (const name of await readdir(this.#temporary))
      if (name.startsWith(uploadOf(key)))
        await unlessMissing(unlink(join(this.#temporary, name)), undefined);
    await unlessMissing(unlink(path), undefined);
    // Make the removal durable: nobody would repeat it if a crash brought the object back.
    await unlessMissing(syncFolder(dirname(path)), undefined);
  }

  list(prefix: string, after = ""): AsyncGenerator<{ key: string; bytes: number }> {
    return this.#walk("", prefix, after);
  }

  async ping(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    await access(this.#root, constants.W_OK);
    await access(this.#temporary, constants.W_OK);
    const { bavail, bsize } = await statfs(this.#root);
    if (bavail * bsize < FREE_BYTES_MIN)
      throw new Error(`files: less than ${FREE_BYTES_MIN / 2 ** 20} MiB are free in ${this.#root}`);
  }

  async probe(signal?: AbortSignal): Promise<void> {
    await this.ping(signal);
    const temporary = join(this.#temporary, Bun.randomUUIDv7());
    try {
      await writeDurably(temporary, async (file) => await file.writeFile(PROBE));
    } finally {
      await rm(temporary, { force: true });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /**
   * Distinguishes a missing object from an unmounted disk, which says nothing about a single
   * object.
   */
  async #missing(key: string): Promise<Error> {
    return (await this.#isThere()) ? new ObjectMissing(key) : this.#away();
  }

  async #isThere(): Promise<boolean> {
    return await access(this.#temporary).then(
      () => true,
      () => false,
    );
  }

  #away(): Error {
    return new Error(`files: ${this.#root} is gone`);
  }

  /** Returns false if the object exists: a hard link never replaces a file, even in a race. */
  async #create(
    path: string,
    temporary: string,
    write: () => Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    signal?.throwIfAborted();
    const folder = dirname(path);
    await this.#ensure(folder);
    let created = true;
    try {
      await write();
      signal?.throwIfAborted();
      await link(temporary, path);
    } catch (error) {
      if (isMissing(error)) this.#folders.clear();
      if (codeOf(error) !== "EEXIST") throw error;
      created = false;
    } finally {
      await rm(temporary, { force: true });
    }
    // Sync even if the object existed: its writer may have been killed before this step.
    await syncFolder(folder);
    return created;
  }

  /** Creates a folder and its parents, but not the root, whose disk may be unmounted. */
  #ensure(folder: string): Promise<void> {
    if (folder === this.#root) return Promise.resolve();
    const known = this.#folders.get(folder);
    if (known) return known;
    if (this.#folders.size >= FOLDERS_KNOWN_MAX) this.#folders.clear();
    const made = this.#ensure(dirname(folder)).then(() => makeFolder(folder));
    this.#folders.set(folder, made);
    made.catch(() => this.#folders.delete(folder));
    return made;
  }

  async *#walk(
    folder: string,
    prefix: string,
    after: string,
  ): AsyncGenerator<{ key: string; bytes: number }> {
    for (const name of await this.#names(folder)) {
      const key = folder + name;
      if (key <= after && !(key.endsWith("/") && after.startsWith(key))) continue;
      if (key.endsWith("/")) {
        if (key.startsWith(prefix) || prefix.startsWith(key)) yield* this.#walk(key, prefix, after);
      } else if (key.startsWith(prefix)) {
        const stats = await unlessMissing<Stats | undefined>(
          stat(join(this.#root, key)),
          undefined,
        );
        if (stats) yield { key, bytes: stats.size };
      }
    }
  }

  /** Returns the names in a folder in the order of whole keys: folders end with a slash. */
  async #names(folder: string): Promise<string[]> {
    const reading = readdir(join(this.#root, folder), { withFileTypes: true });
    const entries = await (folder === "" ? reading : unlessMissing(reading, []));
    return entries
      .filter(({ name }) => !name.startsWith("."))
      .map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name))
      .toSorted();
  }

  async #sweep(): Promise<void> {
    const before = Date.now() - TEMPORARY_AGE_MAX_MS;
    for (const name of await readdir(this.#temporary)) {
      const path = join(this.#temporary, name);
      const stats = await unlessMissing<Stats | undefined>(stat(path), undefined);
      if (stats && stats.mtimeMs < before) await rm(path, { force: true });
    }
  }
}

/** Returns the prefix of an upload's temporary files, by which `remove` finds them. */
function uploadOf(key: string): string {
  return `${Bun.SHA256.hash(key, "hex")}-`;
}

function damaged(
  key: string,
  start: number,
  end: number,
  bytes: Uint8Array,
  cause?: unknown,
): ObjectDamaged {
  return new ObjectDamaged(
    `files: ${key} does not have the whole range ${start} to ${end}`,
    bytes,
    cause === undefined ? {} : { cause },
  );
}

function taken(path: string): ObjectConflict {
  return new ObjectConflict(`files: other bytes are stored as ${path}`);
}

async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST") throw error;
  }
  await syncFolder(dirname(path));
}

/** Makes the names in a folder durable. */
async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

async function unlessMissing<T>(result: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await result;
  } catch (error) {
    if (isMissing(error)) return otherwise;
    throw error;
  }
}

function isMissing(error: unknown): boolean {
  return codeOf(error) === "ENOENT";
}
