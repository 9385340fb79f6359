import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { type S3Config } from "../platform/config/config.ts";
import { UsageError, codeOf } from "../platform/errors.ts";
import { writeDurably } from "../platform/objects/durable-file.ts";

const S3_URL = /^s3:\/\/([\w][\w.-]{2,62})(?:\/(.*))?$/;
const ANY_URL = /^[a-z][\w+.-]*:\/\//i;
/** Name of a file that is being written. */
const PART = /^\..+\.part$/;

/** Place that files are written to, each as a whole: a file has its name only once it is complete. */
export interface ExportTarget extends AsyncDisposable {
  /** Writes a file, also if there is one under that key. */
  write: (key: string, chunks: AsyncIterable<Uint8Array>) => Promise<void>;
}

/**
 * Opens a folder, or `s3://bucket/prefix` with the endpoint and the keys that are configured. Throws
 * UsageError if it is neither.
 */
export async function openTarget(out: string, s3: S3Config | undefined): Promise<ExportTarget> {
  const [, bucket, prefix = ""] = S3_URL.exec(out) ?? [];
  if (bucket !== undefined) return await bucketTarget({ ...s3, bucket, prefix });
  if (out === "" || ANY_URL.test(out))
    throw new UsageError(`"${out}" is neither a folder nor s3://bucket/prefix`);
  try {
    await mkdir(out, { recursive: true });
  } catch (cause) {
    throw new UsageError(`"${out}" is not a folder, or cannot be made one: ${codeOf(cause)}`, {
      cause,
    });
  }
  return new Folder(out);
}

class Folder implements ExportTarget {
  readonly #root: string;
  readonly #swept = new Set<string>();

  constructor(root: string) {
    this.#root = root;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const path = join(this.#root, key);
    const folder = dirname(path);
    await this.#sweep(folder);
    const part = join(folder, `.${basename(path)}.${crypto.randomUUID()}.part`);
    try {
      await writeDurably(part, async (file) => {
        for await (const chunk of chunks) await file.writeFile(chunk);
      });
      await rename(part, path);
    } finally {
      await rm(part, { force: true });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** Makes the folder, and removes what a run that was killed has left in it. */
  async #sweep(folder: string): Promise<void> {
    if (this.#swept.has(folder)) return;
    await mkdir(folder, { recursive: true });
    for (const name of await readdir(folder)) if (PART.test(name)) await rm(join(folder, name));
    this.#swept.add(folder);
  }
}

async function bucketTarget(options: S3Config & { prefix: string }): Promise<ExportTarget> {
  // The AWS SDK takes 16 MB, which no other command needs with files.
  const { S3Objects } = await import("../platform/objects/s3-objects.ts");
  const store = new S3Objects(options);
  return {
    async write(key, chunks) {
      // An upload replaces nothing, and one that was cut off has left its parts.
      await store.remove(key);
      await store.upload(key, chunks);
    },
    [Symbol.asyncDispose]: async () => await store[Symbol.asyncDispose](),
  };
}
