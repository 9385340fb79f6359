import { networkOf } from "../platform/http/rate-limits.ts";

/**
 * Returns a 16-bit hash of a client's network: enough to tell two networks apart, too short to
 * identify one. Null for an unknown address.
 */
export function networkMark(address: string): number | null {
  return address === "" ? null : (Bun.hash.xxHash32(networkOf(address)) & 0xffff) - 0x8000;
}
