import { setImmediate } from "node:timers/promises";

const HASH_SLICE_BYTES = 2 ** 20;

/** In slices with a pause between them, so that a large body never holds up the event loop. */
export async function md5Of(body: Uint8Array, signal: AbortSignal): Promise<Buffer> {
  const hash = new Bun.CryptoHasher("md5");
  for (let at = 0; at < body.length; at += HASH_SLICE_BYTES) {
    if (at > 0) await setImmediate();
    signal.throwIfAborted();
    hash.update(body.subarray(at, at + HASH_SLICE_BYTES));
  }
  return hash.digest();
}

/** Throws unless the answer to an upload says that just these bytes were stored, as far as it can tell. */
export function checkStored(answer: Stored, md5: Buffer): void {
  if (answer.ETag === undefined) throw new Error("the answer has no ETag");
  if (sameBytes(answer, md5) === false) throw new Error("other bytes arrived at the store");
}

type Stored = {
  ETag?: string | undefined;
  ServerSideEncryption?: string | undefined;
  SSECustomerAlgorithm?: string | undefined;
};

/** Undefined where the ETag does not tell: under a key of KMS or of the customer it is no MD5 of the body. */
export function sameBytes(stored: Stored, md5: Buffer): boolean | undefined {
  const [, etag] = stored.ETag?.match(/^"?([0-9a-f]{32})"?$/i) ?? [];
  const encrypted =
    stored.ServerSideEncryption?.startsWith("aws:kms") === true ||
    stored.SSECustomerAlgorithm !== undefined;
  if (etag === undefined || encrypted) return undefined;
  return etag.toLowerCase() === md5.toString("hex");
}
