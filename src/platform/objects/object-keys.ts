const PART = "[A-Za-z0-9_-][A-Za-z0-9._-]*";
const KEY = new RegExp(`^${PART}(/${PART})*$`);
const KEY_LENGTH_MAX = 512;

/**
 * Throws RangeError for an invalid key. A key becomes a path or a URL, and must not lead out of the
 * store's folder; parts that begin with a dot are reserved for the store.
 */
export function checkKey(key: string): void {
  if (key.length > KEY_LENGTH_MAX || !KEY.test(key))
    throw new RangeError(`not an object key: ${JSON.stringify(key.slice(0, KEY_LENGTH_MAX))}`);
}

/** Throws RangeError for an invalid range of bytes. */
export function checkRange(start: number, end: number): void {
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start)
    throw new RangeError(`not a range of bytes: ${start} to ${end}`);
}
