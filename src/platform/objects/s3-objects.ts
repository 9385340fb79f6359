import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

import type { S3Config } from "../config/config.ts";
import { checkKey, checkRange } from "./object-keys.ts";
import { ObjectConflict, ObjectDamaged, ObjectMissing, type ObjectStore } from "./objects.ts";
import { openClient } from "./s3-client.ts";
import { Deadline, S3Failure, within } from "./s3-deadline.ts";
import { Checksums } from "./s3-checksum.ts";
import { objectSize } from "./s3-size.ts";
import { abortUploads, type S3Place, S3Upload } from "./s3-multipart.ts";
import { RangeBody, rangeBytes } from "./s3-range.ts";
import { INLINE_BYTES_MAX } from "../streams.ts";

const UNREADABLE = /^(?:InvalidObjectState$|KMS\.)/;

// Key in a prefix of its own, so that listings of segments and builds do not include it.
const PROBE_KEY = "health/probe";
const PROBE = Buffer.from("Written now and then to see whether the store takes writes.\n");

export type S3Options = S3Config & {
  /** Folder in the bucket that holds every key. */
  prefix?: string;
  /** Limit of a whole PUT, from connecting to the answer: its progress cannot be observed. */
  putTimeoutMs?: number;
  /**
   * Longest silence of other requests: until connected and answered, then between two pieces of a
   * body. A read may take longer in all.
   */
  stallTimeoutMs?: number;
  /** Longest silence of a GET: shorter, because reads are retried while a client waits. */
  readTimeoutMs?: number;
};

export class S3Objects implements ObjectStore {
  readonly name = "s3";
  readonly freePuts = false;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #putTimeoutMs: number;
  readonly #stallTimeoutMs: number;
  readonly #readTimeoutMs: number;
  readonly #checksums: Checksums;
  /**
   * False once the store has refused a conditional PUT as not implemented. Keys are unique even
   * then; only the safety net is missing.
   */
  #conditional = true;

  constructor(options: S3Options) {
    this.#client = openClient(options);
    this.#bucket = options.bucket;
    this.#prefix = options.prefix ? `${options.prefix.replace(/\/+$/, "")}/` : "";
    this.#checksums = new Checksums({ ...this.#target(PROBE_KEY), Body: PROBE });
    this.#putTimeoutMs = options.putTimeoutMs ?? 10_000;
    this.#stallTimeoutMs = options.stallTimeoutMs ?? 5_000;
    this.#readTimeoutMs = options.readTimeoutMs ?? Math.min(2_500, this.#stallTimeoutMs);
  }

  async put(key: string, body: Uint8Array, signal?: AbortSignal): Promise<void> {
    const target = this.#target(key);
    using deadline = new Deadline(`PUT ${key}`, this.#putTimeoutMs, signal);
    const upload = async (condition: { IfNoneMatch?: "*" }) =>
      await this.#upload({ ...target, ...condition }, body, deadline);
    try {
      await upload(this.#conditional ? { IfNoneMatch: "*" } : {});
    } catch (error) {
      const status = error instanceof S3Failure ? error.status : undefined;
      if (status === 501 && this.#conditional) {
        await upload({});
        this.#conditional = false;
      } else if (status !== 412) throw error;
      else if (!(await this.#holds(key, body, deadline)))
        throw new ObjectConflict(`s3: other bytes are stored as ${key}`);
    }
  }

  async read(key: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array> {
    checkKey(key);
    checkRange(start, end);
    if (start === end) return new Uint8Array(0);
    using deadline = new Deadline(`GET ${key}`, this.#readTimeoutMs, signal);
    const body = new RangeBody(end - start);
    try {
      await this.#get(key, start, end, deadline, async ({ Body }, available) =>
        body.fill(Body?.transformToWebStream(), available, deadline),
      );
    } catch (error) {
      signal?.throwIfAborted();
      throw body.broken(error);
    }
    if (body.isShort) throw damaged(key, start, end, body.received);
    return body.received;
  }

  async upload(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    await new S3Upload(this.#place(key), signal).run(
      chunks,
      async (body, ending) => await this.put(key, body, ending),
    );
  }

  async body(
    key: string,
    start: number,
    end: number,
  ): Promise<Blob | ReadableStream<Uint8Array<ArrayBuffer>>> {
    if (end - start <= INLINE_BYTES_MAX) return new Blob([await this.read(key, start, end)]);
    const deadline = new Deadline(`GET ${key}`, this.#readTimeoutMs);
    const answer = await this.#get(key, start, end, deadline, async ({ Body }, available) => ({
      stream: Body?.transformToWebStream(),
      isShort: available < end - start,
    }));
    if (answer.isShort) {
      deadline[Symbol.dispose]();
      throw damaged(key, start, end, new Uint8Array(0));
    }
    if (answer.stream === undefined) throw new Error(`s3: GET ${key}: the answer has no body`);
    // The body streams at the speed of the client, so no timeout applies any more.
    deadline.lift();
    return answer.stream;
  }

  async remove(key: string): Promise<void> {
    const place = this.#place(key);
    // Uploads first: one that is completed meanwhile becomes an object, which is deleted next.
    await abortUploads(place);
    await within(`DELETE ${key}`, this.#stallTimeoutMs, undefined, (options) =>
      this.#client.send(new DeleteObjectCommand(place.target), options),
    );
  }

  async link(key: string, options: { seconds: number; filename: string }): Promise<string> {
    const ResponseContentDisposition = attachment(options.filename);
    const command = new GetObjectCommand({ ...this.#target(key), ResponseContentDisposition });
    return await getSignedUrl(this.#client, command, { expiresIn: options.seconds });
  }

  async *list(prefix: string, after?: string): AsyncGenerator<{ key: string; bytes: number }> {
    let token: string | undefined;
    do {
      const page = await this.#page(prefix, token, after);
      for (const { Key = "", Size = 0 } of page.Contents ?? []) {
        const key = Key.slice(this.#prefix.length);
        if (key !== PROBE_KEY) yield { key, bytes: Size };
      }
      token = page.NextContinuationToken;
    } while (token !== undefined);
  }

  // Reads an object rather than using HEAD on the bucket: permission to read and write objects must
  // suffice.
  async ping(signal?: AbortSignal): Promise<void> {
    await this.read(PROBE_KEY, 0, 1, signal).catch((error: unknown) => {
      if (!(error instanceof ObjectMissing)) throw error;
    });
  }

  /**
   * Overwrites the object unconditionally: a store could refuse a conditional PUT before it notices
   * that it is full.
   */
  async probe(signal?: AbortSignal): Promise<void> {
    using deadline = new Deadline(`PUT ${PROBE_KEY}`, this.#putTimeoutMs, signal);
    await this.#upload(this.#target(PROBE_KEY), PROBE, deadline);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy();
  }

  async #get<T>(
    key: string,
    start: number,
    end: number,
    deadline: Deadline,
    use: (answer: GetObjectCommandOutput, available: number) => Promise<T>,
  ): Promise<T> {
    const input = { ...this.#target(key), Range: `bytes=${start}-${end - 1}` };
    try {
      return await deadline.run(async (options) => {
        const answer = await this.#client.send(new GetObjectCommand(input), options);
        return await use(answer, rangeBytes(answer.ContentRange, start, end));
      });
    } catch (error) {
      if (!(error instanceof S3Failure)) throw error;
      // A 404 of another kind may come from a proxy, or be about the bucket.
      if (error.status === 404 && error.code === "NoSuchKey") throw new ObjectMissing(key);
      // An archive class, or a lost encryption key: no retry will read this object.
      if (UNREADABLE.test(error.code)) throw damaged(key, start, end, new Uint8Array(0));
      // 416: the object is shorter than the start of the range. AccessDenied for this object alone:
      // its own permissions, or it is missing and the key may not list the bucket. The two look the
      // same, so it does not count as missing.
      if (
        error.status === 416 ||
        (error.code === "AccessDenied" && (await this.#canReadOthers(key)))
      )
        throw damaged(key, start, end, new Uint8Array(0));
      throw error;
    }
  }

  /** Returns whether another object can be read at this moment; writes one if there is none. */
  async #canReadOthers(key: string): Promise<boolean> {
    if (key === PROBE_KEY) return false;
    const isReadable = async () => (await this.read(PROBE_KEY, 0, 1)).length === 1;
    return await isReadable()
      .catch(async () => {
        await this.probe();
        return await isReadable();
      })
      .catch(() => false);
  }

  async #upload(
    target: { Bucket: string; Key: string; IfNoneMatch?: "*" },
    body: Uint8Array,
    deadline: Deadline,
  ): Promise<void> {
    const send = async (command: PutObjectCommand) =>
      await deadline.run((options) => this.#client.send(command, options));
    const { input, check } = await this.#checksums.of(body, deadline.signal, send);
    check(await send(new PutObjectCommand({ ...target, ...input, Body: body })));
  }

  #place(key: string): S3Place {
    return {
      client: this.#client,
      target: this.#target(key),
      putTimeoutMs: this.#putTimeoutMs,
      stallTimeoutMs: this.#stallTimeoutMs,
    };
  }

  #target(key: string): { Bucket: string; Key: string } {
    checkKey(key);
    return { Bucket: this.#bucket, Key: this.#prefix + key };
  }

  async #page(prefix: string, token: string | undefined, after: string | undefined) {
    using deadline = new Deadline(`LIST ${prefix}`, this.#stallTimeoutMs);
    const input = {
      Bucket: this.#bucket,
      Prefix: this.#prefix + prefix,
      ContinuationToken: token,
      StartAfter: token === undefined && after !== undefined ? this.#prefix + after : undefined,
    };
    const page = await deadline.run((options) =>
      this.#client.send(new ListObjectsV2Command(input), options),
    );
    if (page.IsTruncated && page.NextContinuationToken === undefined)
      throw new Error(`s3: LIST ${prefix}: a page has no continuation token`);
    return page;
  }

  /**
   * Returns whether a taken key has these bytes, as it does if only the answer to an earlier
   * attempt was lost.
   */
  async #holds(key: string, body: Uint8Array, deadline: Deadline): Promise<boolean> {
    const limits = { ms: this.#stallTimeoutMs, signal: deadline.signal };
    if ((await objectSize(this.#client, this.#target(key), limits)) !== body.length) return false;
    const stored = await this.read(key, 0, body.length, deadline.signal);
    return Buffer.from(stored.buffer).equals(body);
  }
}

/** Returns a Content-Disposition (RFC 6266): the name in ASCII for old clients, and the real one. */
function attachment(filename: string): string {
  const plain = filename.replaceAll(/[^ -~]|["%\\]/gu, "_");
  const encoded = encodeURIComponent(filename).replaceAll(
    /['()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${plain}"; filename*=UTF-8''${encoded}`;
}

function damaged(key: string, start: number, end: number, bytes: Uint8Array): ObjectDamaged {
  return new ObjectDamaged(`s3: ${key} does not have the whole range ${start} to ${end}`, bytes);
}
