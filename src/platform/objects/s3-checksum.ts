import { setImmediate } from "node:timers/promises";

import { PutObjectCommand, type S3Client } from "@aws-sdk/client-s3";

import { isRecord } from "../json.ts";
import { inTime } from "../time-limit.ts";
import { S3Failure } from "./s3-deadline.ts";

// A store that does not answer must not use up the time of the upload that waits for the verdict.
const TRY_MS = 2000;
const UNKNOWN_MS = 60_000;
const REFUSED_MS = 3_600_000;
const HASH_SLICE_BYTES = 2 ** 20;
// Answers to a checksum that mean "not this header" or "not these bytes", rather than "not now".
const REFUSALS = new Set([400, 411, 412, 415, 501]);

// Field of a command's input with the SHA-256 that its signature covers, in hex.
const PAYLOAD_SHA256 = Symbol("payload SHA-256");

type Answer = { ETag?: string | undefined; ChecksumCRC32?: string | undefined };
type Send = (command: PutObjectCommand) => Promise<Answer>;

/** Checksum of an upload, by which the store finds out whether other bytes arrived. */
export type Checksum = {
  /** To be spread into the input of the command. */
  readonly input: { ChecksumCRC32?: string; [PAYLOAD_SHA256]?: string };
  /** Throws unless the answer is that of a store which took these bytes. */
  check: (answer: Answer) => void;
};

/**
 * Chooses how uploads are verified. CRC-32 costs a thirtieth of SHA-256, but a store may ignore it,
 * so it is used only after the store has refused a wrong one and confirmed a right one. A SHA-256 in
 * the signature is verified by every S3 server.
 */
export class Checksums {
  readonly #probe: { Bucket: string; Key: string; Body: Uint8Array };
  readonly #now: () => number;
  #isCrcVerified: boolean | undefined;
  /** Time of the next try, in ms of the clock. */
  #dueMs = Number.NEGATIVE_INFINITY;
  #trying: Promise<void> | undefined;

  /** `probe` is an object that may be overwritten at any time. */
  constructor(
    probe: { Bucket: string; Key: string; Body: Uint8Array },
    now: () => number = () => performance.now(),
  ) {
    this.#probe = probe;
    this.#now = now;
  }

  async of(body: Uint8Array, signal: AbortSignal, send: Send): Promise<Checksum> {
    if (this.#now() >= this.#dueMs) {
      this.#trying ??= this.#try(send).finally(() => (this.#trying = undefined));
      await this.#trying;
    }
    return this.#isCrcVerified === true ? crc32Of(body) : await sha256Of(body, signal);
  }

  /** Never rejects. Tries again later unless the store verifies CRC-32s: it may have changed. */
  async #try(send: Send): Promise<void> {
    const verdict = await inTime(TRY_MS, this.#tryCrc(send), () => undefined);
    this.#isCrcVerified = verdict;
    const keptMs = verdict === undefined ? UNKNOWN_MS : REFUSED_MS;
    this.#dueMs = verdict === true ? Number.POSITIVE_INFINITY : this.#now() + keptMs;
  }

  /** Returns undefined while the store does not answer. */
  async #tryCrc(send: Send): Promise<boolean | undefined> {
    const right = crc32Of(this.#probe.Body);
    const wrong = crc32Of(Buffer.concat([this.#probe.Body, Buffer.from("x")]));
    const attempt = async ({ input }: Checksum) => {
      try {
        return await send(new PutObjectCommand({ ...this.#probe, ...input }));
      } catch (error) {
        if (error instanceof S3Failure && REFUSALS.has(error.status ?? 0)) return "refused";
        throw error;
      }
    };
    try {
      if ((await attempt(wrong)) !== "refused") return false;
      const answer = await attempt(right);
      if (answer === "refused") return false;
      right.check(answer);
      return true;
    } catch (error) {
      return error instanceof OtherBytes ? false : undefined;
    }
  }
}

class OtherBytes extends Error {
  override readonly name = "OtherBytes";
}

function crc32Of(body: Uint8Array): Checksum {
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(Bun.hash.crc32(body));
  const ChecksumCRC32 = sum.toString("base64");
  return {
    input: { ChecksumCRC32 },
    check: (answer) => {
      checkAnswer(answer);
      if (answer.ChecksumCRC32 !== ChecksumCRC32)
        throw new OtherBytes("other bytes arrived at the store");
    },
  };
}

/** Hashes in slices with a pause between them, so that a large body never holds up the event loop. */
export async function sha256Of(body: Uint8Array, signal: AbortSignal): Promise<Checksum> {
  const hash = new Bun.CryptoHasher("sha256");
  for (let at = 0; at < body.length; at += HASH_SLICE_BYTES) {
    if (at > 0) await setImmediate();
    signal.throwIfAborted();
    hash.update(body.subarray(at, at + HASH_SLICE_BYTES));
  }
  return { input: { [PAYLOAD_SHA256]: hash.digest("hex") }, check: checkAnswer };
}

function checkAnswer({ ETag }: Answer): void {
  if (ETag === undefined) throw new Error("the answer has no ETag");
}

/**
 * Signs uploads with the SHA-256 in their input, if there is one; the signer would hash each body
 * itself.
 */
export function signUploads(client: S3Client): void {
  client.middlewareStack.add(
    (next) => (args) => {
      const { input, request } = args;
      if (isRecord(request) && request["method"] === "PUT" && isRecord(request["headers"]))
        request["headers"]["x-amz-content-sha256"] =
          Reflect.get(input, PAYLOAD_SHA256) ?? "UNSIGNED-PAYLOAD";
      return next(args);
    },
    { step: "build", name: "signedPayload" },
  );
}
