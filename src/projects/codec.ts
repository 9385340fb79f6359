/** How the OpenReplay iOS SDK names a project: its id scrambled over [2^52, 2^53), which still is a safe integer in JSON. */
const BASE = 2n ** 52n;
const ENCODE = 2783377641436327n;
const DECODE = 4212451012670231n; // ENCODE * DECODE = 1 modulo BASE.
const ID_MAX = 2n ** 32n - 1n;

/** `projectId` is 1 up to 2^32 - 1; anything else throws a RangeError. */
export function encodeProjectID(projectId: number): number {
  const id = BigInt(projectId);
  if (id < 1n || id > ID_MAX)
    throw new RangeError(`Project id ${projectId} is not within 1 and ${ID_MAX}.`);
  return Number(((id * ENCODE) % BASE) + BASE);
}

/** Undefined for what no project id encodes to. */
export function decodeProjectID(encoded: number): number | undefined {
  if (!Number.isSafeInteger(encoded)) return undefined;
  const id = ((BigInt(encoded) - BASE) * DECODE) % BASE;
  return id >= 1n && id <= ID_MAX ? Number(id) : undefined; // Negative for what is below 2^52.
}
