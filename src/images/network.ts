import { networkOf } from "../platform/rate-limits.ts";

/** 16 bits of a client's network: enough to tell that two differ, too few to say which one it is. Null for an unknown address. */
export function networkMark(address: string): number | null {
  return address === "" ? null : (Bun.hash.xxHash32(networkOf(address)) & 0xffff) - 0x8000;
}
