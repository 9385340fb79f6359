/** What may be published: a build number and two digits, of which `00` forces the update. */
export const VERSION = /^\d{1,9}_\d{2}$/;

const CLIENT_VERSION = /^0*(\d+)_(\d{2})(.*)$/s;
const ABIS = ["arm", "arm64"];
const DEFAULT_ABI = "arm64";

/** A client's present version as it stands in the path: `2267_01`, with or without an ABI behind. */
export type ClientVersion = { text: string; abi: string };

export function parseClientVersion(text: string): ClientVersion {
  const [, , , rest = ""] = CLIENT_VERSION.exec(text) ?? [];
  return { text, abi: ABIS.includes(rest) ? rest : DEFAULT_ABI };
}

/** Whether a client must update because of a forced build: it is older, or that very build and did not tell its ABI. */
export function isForced(floor: string, client: string): boolean {
  const least = numberOf(floor);
  const present = numberOf(client);
  // What is no version was always compared as bytes.
  if (least === undefined || present === undefined)
    return Buffer.compare(Buffer.from(floor), Buffer.from(client)) >= 0;
  const isEqual = least.number === present.number;
  return isEqual ? present.rest === "" : isGreater(least.number, present.number);
}

/** The build and its two digits as one decimal number of any length. */
function numberOf(version: string): { number: string; rest: string } | undefined {
  const [, build, suffix, rest] = CLIENT_VERSION.exec(version) ?? [];
  if (build === undefined || suffix === undefined || rest === undefined) return undefined;
  return { number: build + suffix, rest };
}

function isGreater(one: string, other: string): boolean {
  return one.length === other.length ? one > other : one.length > other.length;
}

/** Every version that ends in `_00` is forced. */
export function isSkippable(version: string): boolean {
  return !version.endsWith("_00");
}
