import { open } from "node:fs/promises";
import { join } from "node:path";

import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";

import { announce } from "../helper.ts";

/** Baseline, the simplest server for images: parses the form, stores every file, and answers. */
const folder = process.env["DATA_DIR"] ?? ".";
const bucket = process.env["S3_BUCKET"];

const s3 =
  bucket === undefined
    ? undefined
    : new S3Client({
        region: process.env["S3_REGION"] ?? "us-east-1",
        forcePathStyle: true,
        ...(process.env["S3_ENDPOINT"] && { endpoint: process.env["S3_ENDPOINT"] }),
      });

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  maxRequestBodySize: 2 ** 30,
  idleTimeout: 120,
  fetch: async (request) => {
    const form = await request.formData();
    for (const value of form.values()) if (typeof value !== "string") await store(value);
    return new Response();
  },
});
announce(server.port);

async function store(file: File): Promise<void> {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (s3 !== undefined) {
    await s3.send(
      new PutObjectCommand({ Bucket: bucket, Key: `images/${file.name}`, Body: bytes }),
    );
    return;
  }
  await using handle = await open(join(folder, file.name), "w");
  await handle.writeFile(bytes);
  await handle.sync();
}
