// The OpenReplay iOS SDK names a project by its id, scrambled over [2^52, 2^53): a safe integer in
// JSON.
const BASE = 2n ** 52n;
const ENCODE = 2783377641436327n;
const DECODE = 4212451012670231n; // ENCODE * DECODE = 1 modulo BASE.
const ID_MAX = 2n ** 32n - 1n;

/** Encodes a project id. Throws RangeError unless it is from 1 to 2^32 - 1. */
export function encodeProjectID(projectId: number): number {
  const id = BigInt(projectId);
  if (id < 1n || id > ID_MAX)
    throw new RangeError(`Project id ${projectId} is not within 1 and ${ID_MAX}.`);
  return Number(((id * ENCODE) % BASE) + BASE);
}

/** Decodes a project id; returns undefined if the number does not encode one. */
export function decodeProjectID(encoded: number): number | undefined {
  if (!Number.isSafeInteger(encoded)) return undefined;
  const id = ((BigInt(encoded) - BASE) * DECODE) % BASE;
  return id >= 1n && id <= ID_MAX ? Number(id) : undefined; // Negative if `encoded` is below 2^52.
}
