import { ListMultipartUploadsCommand } from "@aws-sdk/client-s3";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { FileObjects } from "../../src/platform/objects/file-objects.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { openClient } from "../../src/platform/objects/s3-client.ts";
import { S3Objects, type S3Options } from "../../src/platform/objects/s3-objects.ts";
import { s3Server } from "./s3-server.ts";

/** An empty store, the options to open it again, and a list of its unfinished uploads. */
export type StoreFixture<Opened> = AsyncDisposable & {
  open: Opened;
  store: ObjectStore;
  unfinished: () => Promise<unknown[]>;
};

export async function* chunksOf(bytes: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

export async function aFileStore(): Promise<StoreFixture<string>> {
  const open = await mkdtemp(join(tmpdir(), "floodgate-uploads-"));
  return {
    open,
    store: await FileObjects.open(open),
    unfinished: async () => await readdir(join(open, ".tmp")),
    [Symbol.asyncDispose]: async () => await rm(open, { recursive: true, force: true }),
  };
}

export async function anS3Store(): Promise<StoreFixture<S3Options & { endpoint: string }>> {
  const server = await s3Server();
  const bucket = `test-${Bun.randomUUIDv7()}`;
  await server.createBucket(bucket);
  const open = { ...server, bucket, prefix: "floodgate/" };
  const store = new S3Objects(open);
  const client = openClient(open);
  return {
    open,
    store,
    unfinished: async () =>
      (await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }))).Uploads ?? [],
    [Symbol.asyncDispose]: async () => {
      client.destroy();
      await store[Symbol.asyncDispose]();
    },
  };
}
