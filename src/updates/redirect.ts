import { parseHttpDate } from "../platform/http/http-date.ts";
import { type Validators, checkPreconditions, entityTags } from "../platform/http/preconditions.ts";
import { uuidTimeMs } from "../platform/uuid-time.ts";
import { type Build } from "./build.ts";

// ETag of this server, a SHA-256; no store makes such ETags.
const OWN_TAG = /^"[0-9a-f]{64}"$/;

/**
 * Returns whether a GET should be redirected to the store. Clients that were redirected before know
 * the build by the store's ETag and date, which only the store can compare. All other conditions
 * are evaluated here, because the store does not know our ETags and may not support `If-Range`.
 * Throws 412.
 */
export function isForStore(request: Request, file: Validators & { build: Build }): boolean {
  const { headers } = request;
  if (hasStoreValidator(headers, file)) return true;
  if (checkPreconditions(request, file) === "not_modified") return false;
  return !headers.has("if-match") && !(headers.has("range") && headers.has("if-range"));
}

function hasStoreValidator(
  headers: Headers,
  { build, lastModifiedMs }: Validators & { build: Build },
): boolean {
  const match = headers.get("if-match");
  if (match !== null) {
    const tags = entityTags(match);
    return tags.length > 0 && !tags.some(({ tag }) => OWN_TAG.test(tag));
  }
  const since = parseHttpDate(headers.get("if-unmodified-since") ?? "");
  // The store's date lies between the beginning of the upload and the publication.
  return (
    since !== undefined &&
    since < lastModifiedMs &&
    since < build.publishedAt.getTime() &&
    since >= uploadBeganMs(build.objectId)
  );
}

/**
 * Returns the time, in whole seconds, at which an object's upload began: its id is a UUID of
 * version 7.
 */
function uploadBeganMs(objectId: string): number {
  const ms = uuidTimeMs(objectId);
  return ms - (ms % 1000);
}
