import { GetObjectCommand, HeadObjectCommand, type S3Client } from "@aws-sdk/client-s3";

import { S3Failure, within } from "./s3-deadline.ts";

const REFUSES_HEAD = new Set([403, 405, 501]);

/** Returns the size of an object. If the store refuses HEAD, asks for its first byte instead. */
export async function objectSize(
  client: S3Client,
  target: { Bucket: string; Key: string },
  { ms, signal }: { ms: number; signal: AbortSignal | undefined },
): Promise<number | undefined> {
  try {
    const { ContentLength } = await within(`HEAD ${target.Key}`, ms, signal, (options) =>
      client.send(new HeadObjectCommand(target), options),
    );
    return ContentLength;
  } catch (error) {
    if (!(error instanceof S3Failure) || !REFUSES_HEAD.has(error.status ?? 0)) throw error;
  }
  return await within(`GET ${target.Key}`, ms, signal, async (options) => {
    const first = await client.send(
      new GetObjectCommand({ ...target, Range: "bytes=0-0" }),
      options,
    );
    await first.Body?.transformToByteArray();
    const [, total] = first.ContentRange?.match(/\/(\d+)$/) ?? [];
    if (total === undefined) throw new Error("the answer does not contain the size");
    return Number(total);
  });
}
