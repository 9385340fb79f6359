import { setImmediate } from "node:timers/promises";

const HASH_SLICE_BYTES = 2 ** 20;

/** Hashes in slices with pauses, so that a large body does not block the event loop. */
export async function md5Of(body: Uint8Array, signal: AbortSignal): Promise<Buffer> {
  const hash = new Bun.CryptoHasher("md5");
  for (let at = 0; at < body.length; at += HASH_SLICE_BYTES) {
    if (at > 0) await setImmediate();
    signal.throwIfAborted();
    hash.update(body.subarray(at, at + HASH_SLICE_BYTES));
  }
  return hash.digest();
}

/** Throws if the answer to an upload has no ETag, or one of other bytes. */
export function checkStored(answer: Stored, md5: Buffer): void {
  if (answer.ETag === undefined) throw new Error("the answer has no ETag");
  if (sameBytes(answer, md5) === false)
    throw new Error("the store received other bytes than were sent");
}

type Stored = {
  ETag?: string | undefined;
  ServerSideEncryption?: string | undefined;
  SSECustomerAlgorithm?: string | undefined;
};

/**
 * Returns whether the stored bytes have this MD5, or undefined if the ETag is not an MD5 of the
 * body, as with keys of KMS or of the customer.
 */
export function sameBytes(stored: Stored, md5: Buffer): boolean | undefined {
  const [, etag] = stored.ETag?.match(/^"?([0-9a-f]{32})"?$/i) ?? [];
  const encrypted =
    stored.ServerSideEncryption?.startsWith("aws:kms") === true ||
    stored.SSECustomerAlgorithm !== undefined;
  if (etag === undefined || encrypted) return undefined;
  return etag.toLowerCase() === md5.toString("hex");
}
