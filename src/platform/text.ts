// PostgreSQL cannot store NUL, and UTF-8 cannot encode half of a surrogate pair.

/** Returns why a text cannot be stored as it is, if it cannot. */
export function wrongText(text: string): string | undefined {
  if (text.includes("\0")) return "must not contain NUL";
  if (!text.isWellFormed()) return "must be well-formed Unicode";
  return undefined;
}

/** Removes NUL and replaces lone surrogates, where a client cannot be asked for another text. */
export function storableText(text: string): string {
  return text.toWellFormed().replaceAll("\0", "");
}

/** Compares the length in characters as PostgreSQL counts them, not in UTF-16 code units. */
export function longerThan(text: string, lengthMax: number): boolean {
  return (
    text.length > lengthMax && (text.length > 2 * lengthMax || Array.from(text).length > lengthMax)
  );
}

/** Returns whether the value is a text of that length, in characters, that can be stored. */
export function isText(value: unknown, min: number, max: number): value is string {
  return (
    typeof value === "string" &&
    value.length >= min &&
    !longerThan(value, max) &&
    wrongText(value) === undefined
  );
}
