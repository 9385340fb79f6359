// Declares features of JSON that TypeScript's own types lack.
type Reviver = (name: string, value: unknown, context: { source?: string }) => unknown;
declare global {
  interface JSON {
    parse(text: string, reviver: Reviver): unknown;
    rawJSON(text: string): unknown;
  }
}

// Up to 20 digits, all that 64 bits can hold: longer integers are not worth the conversion.
const INTEGER = /^-?\d{1,20}$/;

/**
 * Parses JSON with integers as bigints, so that no digit is lost. Numbers with a fraction, an
 * exponent or over 20 digits stay numbers. Throws the errors of `JSON.parse`.
 */
export function parseExact(text: string): unknown {
  return JSON.parse(text, (...[, value, { source = "" }]) =>
    typeof value === "number" && INTEGER.test(source) ? BigInt(source) : value,
  );
}

/** Serializes a value to JSON, with bigints as numbers of all their digits. */
export function stringifyExact(value: unknown): string {
  return JSON.stringify(value, (...[, one]: [string, unknown]) =>
    typeof one === "bigint" ? JSON.rawJSON(String(one)) : one,
  );
}
