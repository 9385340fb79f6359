// What the language's own types do not know yet of JSON.
type Reviver = (name: string, value: unknown, context: { source?: string }) => unknown;
declare global {
  interface JSON {
    parse(text: string, reviver: Reviver): unknown;
    rawJSON(text: string): unknown;
  }
}

// One more than 64 bits have: longer ones are not worth the conversion.
const INTEGER = /^-?\d{1,20}$/;

/** JSON whose integers are bigints, so that no digit is lost. What has a fraction, an exponent or over 20 digits stays a number. Throws what `JSON.parse` throws. */
export function parseExact(text: string): unknown {
  return JSON.parse(text, (...[, value, { source = "" }]) =>
    typeof value === "number" && INTEGER.test(source) ? BigInt(source) : value,
  );
}

/** JSON with bigints as numbers of all their digits. */
export function stringifyExact(value: unknown): string {
  return JSON.stringify(value, (...[, one]: [string, unknown]) =>
    typeof one === "bigint" ? JSON.rawJSON(String(one)) : one,
  );
}
