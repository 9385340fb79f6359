/** Version of a published build: a build number and two digits, of which `00` forces the update. */
export const VERSION = /^\d{1,9}_\d{2}$/;

// Version of a client. Leading zeros are stripped later: doing it here would need two overlapping
// repetitions, and so quadratic time.
const CLIENT_VERSION = /^(\d+)_(\d{2})(.*)$/s;
const LEADING_ZEROS = /^0+(?=\d)/;
const ABIS = ["arm", "arm64"];
const DEFAULT_ABI = "arm64";

/** A parsed version of a client (`2267_01`, with or without an ABI after it) or of a build. */
export type ReadVersion = {
  text: string;
  /** the build number and its two digits as one decimal number; undefined for an invalid version */
  number: string | undefined;
  /** text after the two digits */
  rest: string;
  abi: string;
};

export function readVersion(text: string): ReadVersion {
  const [, build, suffix, rest = ""] = CLIENT_VERSION.exec(text) ?? [];
  const number =
    build === undefined || suffix === undefined
      ? undefined
      : build.replace(LEADING_ZEROS, "") + suffix;
  return { text, number, rest, abi: ABIS.includes(rest) ? rest : DEFAULT_ABI };
}

/**
 * Returns whether a forced build makes a client update: the client is older, or has that very build
 * and does not tell its ABI.
 */
export function isForced(floor: ReadVersion, client: ReadVersion): boolean {
  // Invalid versions are compared as bytes, as the WeMesse server did.
  if (floor.number === undefined || client.number === undefined)
    return Buffer.compare(Buffer.from(floor.text), Buffer.from(client.text)) >= 0;
  return floor.number === client.number
    ? client.rest === ""
    : isGreater(floor.number, client.number);
}

function isGreater(one: string, other: string): boolean {
  return one.length === other.length ? one > other : one.length > other.length;
}

/** Returns whether a build is older than the client's version; false if the client has none. */
export function isOlder(build: ReadVersion, client: ReadVersion): boolean {
  return (
    build.number !== undefined &&
    client.number !== undefined &&
    isGreater(client.number, build.number)
  );
}

/** Compares for sorting: greater versions first, invalid ones last. */
export function byVersion({ number: one }: ReadVersion, { number: other }: ReadVersion): number {
  if (one === other) return 0;
  if (one === undefined || other === undefined) return one === undefined ? 1 : -1;
  return isGreater(one, other) ? -1 : 1;
}

/** Returns false for versions that end in `_00`: these force clients to update. */
export function isSkippable(version: string): boolean {
  return !version.endsWith("_00");
}
