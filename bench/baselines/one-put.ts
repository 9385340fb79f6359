import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";

import { announce } from "../helper.ts";

/**
 * Baseline, the simplest server for batches: an object for each, acknowledged when it is stored.
 * `tuned` replaces the SDK's HTTP client, which has 50 sockets, by Bun's fetch, the fastest setting
 * found.
 */
const tuned = process.argv[2] === "tuned";
const bucket = process.env["S3_BUCKET"] ?? "bench";

const s3 = new S3Client({
  region: process.env["S3_REGION"] ?? "us-east-1",
  forcePathStyle: true,
  ...(process.env["S3_ENDPOINT"] && { endpoint: process.env["S3_ENDPOINT"] }),
  ...(tuned && {
    requestHandler: new FetchHttpHandler(),
    requestChecksumCalculation: "WHEN_REQUIRED",
  }),
});

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: async (request) => {
    const Key = `batches/${Bun.randomUUIDv7()}`;
    try {
      await s3.send(new PutObjectCommand({ Bucket: bucket, Key, Body: await request.bytes() }));
      return new Response();
    } catch {
      return new Response(null, { status: 503, headers: { "Retry-After": "1" } });
    }
  },
});
announce(server.port);
