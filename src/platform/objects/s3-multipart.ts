import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  type CompletedPart,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  type S3Client,
  UploadPartCommand,
} from "@aws-sdk/client-s3";
import pRetry from "p-retry";

import { discarded } from "../gc.ts";
import { ObjectConflict } from "./objects.ts";
import { S3Failure, within } from "./s3-deadline.ts";
import { sha256Of } from "./s3-checksum.ts";
import { objectSize } from "./s3-size.ts";
import { abortable, partsOf, slicesOf } from "../streams.ts";

const PART_BYTES = 8 * 2 ** 20;
const IN_FLIGHT_MAX = 2;

/** Target of an upload, and its time limits. */
export type S3Place = {
  client: S3Client;
  target: { Bucket: string; Key: string };
  putTimeoutMs: number;
  stallTimeoutMs: number;
};

/**
 * Upload of an object from a stream: in one PUT if it fits into a part, else in parts. Aborts the
 * multipart upload if it fails.
 */
export class S3Upload {
  readonly #place: S3Place;
  readonly #failed = new AbortController();
  /** Aborts everything: the caller's signal, or the first part that failed for good. */
  readonly #signal: AbortSignal;
  readonly #sending = new Set<Promise<void>>();
  readonly #parts: CompletedPart[] = [];
  /** Buffers to reuse: left to the garbage collector, several times those in use would pile up. */
  readonly #free: Uint8Array[] = [];
  #begun = false;
  #bytes = 0;

  constructor(place: S3Place, signal?: AbortSignal) {
    this.#place = place;
    this.#signal = AbortSignal.any([this.#failed.signal, ...(signal ? [signal] : [])]);
  }

  async run(
    chunks: AsyncIterable<Uint8Array>,
    put: (body: Uint8Array, signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    try {
      let id = "";
      const parts = partsOf(
        abortable(chunks, this.#signal),
        () => this.#free.pop() ?? new Uint8Array(PART_BYTES),
      );
      for await (const { buffer, bytes, last } of parts) {
        if (last && !this.#begun)
          return await retried(() => put(buffer.subarray(0, bytes), this.#signal), this.#signal);
        if (!this.#begun) id = await this.#begin();
        this.#send(id, buffer, bytes);
        if (this.#sending.size === IN_FLIGHT_MAX) await Promise.race(this.#sending);
      }
      await Promise.all(this.#sending);
      await this.#complete(id);
    } catch (error) {
      this.#failed.abort(error);
      // Wait for them: a part that arrives after the abort would stay in the store.
      await Promise.all(this.#sending);
      if (this.#begun) await retried(() => abortUploads(this.#place)).catch(() => undefined);
      throw error;
    }
  }

  async #begin(): Promise<string> {
    this.#begun = true;
    const { client, target, stallTimeoutMs } = this.#place;
    const { UploadId } = await retried(
      () =>
        within(`POST ${target.Key}`, stallTimeoutMs, this.#signal, (options) =>
          client.send(new CreateMultipartUploadCommand(target), options),
        ),
      this.#signal,
    );
    if (UploadId === undefined)
      throw new Error("s3: the answer to CreateMultipartUpload has no upload id");
    return UploadId;
  }

  /** Never rejects: a part that fails for good aborts the whole upload. */
  #send(id: string, buffer: Uint8Array, bytes: number): void {
    const number = this.#parts.push({});
    this.#bytes += bytes;
    const sending = this.#sendPart(id, number, buffer.subarray(0, bytes))
      .catch((error: unknown) => this.#failed.abort(error))
      .finally(() => {
        this.#sending.delete(sending);
        this.#free.push(buffer);
      });
    this.#sending.add(sending);
  }

  async #sendPart(UploadId: string, PartNumber: number, part: Uint8Array): Promise<void> {
    const { client, target, putTimeoutMs } = this.#place;
    const { input: checksum, check } = await sha256Of(part, this.#signal);
    const input = { ...target, ...checksum, UploadId, PartNumber, ContentLength: part.length };
    const send = async (options: { abortSignal: AbortSignal }) => {
      // Sent as a stream, because Bun copies plain bytes for every request.
      const command = new UploadPartCommand({ ...input, Body: slicesOf(part) });
      const answer = await client.send(command, options);
      check(answer);
      this.#parts[PartNumber - 1] = { PartNumber, ETag: answer.ETag };
      // Counts the chunks that were copied into the part.
      discarded(part.length);
    };
    const what = `PUT ${target.Key} part ${PartNumber}`;
    await retried(() => within(what, putTimeoutMs, this.#signal, send), this.#signal);
  }

  async #complete(UploadId: string): Promise<void> {
    const { client, target, putTimeoutMs } = this.#place;
    const input = { ...target, UploadId, MultipartUpload: { Parts: this.#parts } };
    await retried(async () => {
      try {
        await within(`POST ${target.Key} complete`, putTimeoutMs, this.#signal, (options) =>
          client.send(new CompleteMultipartUploadCommand(input), options),
        );
      } catch (error) {
        // Perhaps only the answer to this attempt, or to the one before, was lost.
        if (!(await this.#isWhole())) throw error;
      }
    }, this.#signal);
  }

  async #isWhole(): Promise<boolean> {
    const { client, target, stallTimeoutMs } = this.#place;
    const limits = { ms: stallTimeoutMs, signal: this.#signal };
    return await objectSize(client, target, limits).then(
      (bytes) => bytes === this.#bytes,
      () => false,
    );
  }
}

/** Aborts every unfinished upload of this key. */
export async function abortUploads({ client, target, stallTimeoutMs }: S3Place): Promise<void> {
  const { Bucket, Key } = target;
  // One page is enough: in key order the key itself comes before longer ones.
  const { Uploads } = await within(`LIST uploads of ${Key}`, stallTimeoutMs, undefined, (options) =>
    client.send(new ListMultipartUploadsCommand({ Bucket, Prefix: Key }), options),
  );
  for (const { UploadId } of Uploads?.filter((upload) => upload.Key === Key) ?? []) {
    const input = { ...target, UploadId };
    try {
      await within(`DELETE upload of ${Key}`, stallTimeoutMs, undefined, (options) =>
        client.send(new AbortMultipartUploadCommand(input), options),
      );
    } catch (error) {
      // Another process has aborted it already.
      if (!(error instanceof S3Failure && error.status === 404)) throw error;
    }
  }
}

/** Retries a request: the source cannot be read again, so one failure must not lose all of it. */
async function retried<T>(attempt: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  return await pRetry(attempt, {
    retries: 3,
    minTimeout: 200,
    randomize: true,
    shouldRetry: ({ error }) => !(error instanceof ObjectConflict),
    ...(signal && { signal }),
  });
}
