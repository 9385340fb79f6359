import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";

import type { Running } from "../harness.ts";
import { LatencyRecorder } from "../load/latency.ts";
import type { Latency, Stage } from "../load/plan.ts";
import type { Store } from "../stores.ts";
import { type Context, measureStage } from "./measure.ts";

const PUTS = 60;
const PIECE_BYTES = 65_536;

/**
 * Measures a PUT without a server in between, by the same generator at the same pace, so that the
 * generator's own share is in both figures.
 */
export async function probeSimulator(
  context: Context<unknown>,
  store: Store & { simulator: Running },
  bytes: number,
  stage: Stage,
): Promise<Latency> {
  const result = await measureStage(context, {
    phase: stage.name,
    name: "one PUT",
    subject: { ...store.simulator, projectID: 0 },
    store,
    work: { kind: "put", bytes, path: "/bench/probe" },
    connections: 2,
    stage,
  });
  return result.latency;
}

/** Measures PUTs to a real server, one at a time, through the SDK, which signs them. */
export async function probeS3({ env }: Store, bytes: number): Promise<Latency> {
  const client = new S3Client({
    endpoint: env["S3_ENDPOINT"] ?? "",
    region: env["S3_REGION"] ?? "",
    forcePathStyle: true,
    credentials: {
      accessKeyId: env["AWS_ACCESS_KEY_ID"] ?? "",
      secretAccessKey: env["AWS_SECRET_ACCESS_KEY"] ?? "",
    },
  });
  const piece = crypto.getRandomValues(new Uint8Array(PIECE_BYTES));
  const pieces = Array.from({ length: Math.ceil(bytes / PIECE_BYTES) }, () => piece);
  const body = Buffer.concat(pieces, bytes);
  const latency = new LatencyRecorder();
  for (let index = 0; index < PUTS; index++) {
    const startedAtMs = performance.now();
    const key = `bench/probe-${Bun.randomUUIDv7()}`;
    await client.send(
      new PutObjectCommand({ Bucket: env["S3_BUCKET"] ?? "", Key: key, Body: body }),
    );
    latency.recordMs(performance.now() - startedAtMs);
  }
  client.destroy();
  return latency.summary();
}
