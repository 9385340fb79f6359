import { AppError } from "../errors.ts";
import { parseHttpDate } from "./http-date.ts";

// One entity tag of a list. A tag may contain commas, but no quotes.
const ENTITY_TAG = /(?:^|,)[ \t]*(?<weak>W\/)?(?<tag>"[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?=,|$)/g;

/** Validators that tell one state of a file from another. */
export type Validators = {
  /** Strong ETag, with its quotes. */
  etag: string;
  /**
   * Last-Modified in whole seconds. No two states of the file share one. NaN if they could: then
   * no condition with a date is met.
   */
  lastModifiedMs: number;
};

export type EntityTag = { isWeak: boolean; tag: string };

/**
 * Evaluates the preconditions of a GET or HEAD in the order of RFC 9110, 13.2.2: whether to send
 * the file, or 304. Ignores invalid dates. Throws 412.
 */
export function checkPreconditions(
  { headers }: Request,
  { etag, lastModifiedMs }: Validators,
): "proceed" | "not_modified" {
  const match = headers.get("if-match");
  const unmodifiedSince = match === null ? dateOf(headers, "if-unmodified-since") : undefined;
  if (match !== null && !matches(match, etag, { isStrong: true })) throw changed();
  if (unmodifiedSince !== undefined && lastModifiedMs > unmodifiedSince) throw changed();
  const noneMatch = headers.get("if-none-match");
  if (noneMatch !== null)
    return matches(noneMatch, etag, { isStrong: false }) ? "not_modified" : "proceed";
  const modifiedSince = dateOf(headers, "if-modified-since");
  return modifiedSince !== undefined && lastModifiedMs <= modifiedSince
    ? "not_modified"
    : "proceed";
}

/** Returns whether a range may be sent: `If-Range` must match the current state of the file. */
export function isRangeAllowed({ headers }: Request, validators: Validators): boolean {
  const condition = headers.get("if-range");
  return (
    condition === null ||
    condition === validators.etag ||
    parseHttpDate(condition) === validators.lastModifiedMs
  );
}

/** Returns the valid entity tags of `If-Match` or `If-None-Match`. */
export function entityTags(list: string): EntityTag[] {
  return Array.from(list.matchAll(ENTITY_TAG), ({ groups }) => ({
    isWeak: groups?.["weak"] !== undefined,
    tag: groups?.["tag"] ?? "",
  }));
}

export function changed(): AppError {
  return new AppError("precondition_failed", "the file is not the one that the request expects");
}

function matches(list: string, etag: string, { isStrong }: { isStrong: boolean }): boolean {
  return (
    list.trim() === "*" ||
    entityTags(list).some(({ isWeak, tag }) => tag === etag && !(isStrong && isWeak))
  );
}

function dateOf(headers: Headers, name: string): number | undefined {
  const text = headers.get(name);
  return text === null ? undefined : parseHttpDate(text);
}
