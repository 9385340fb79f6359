/** Largest number of PostgreSQL's bigint. */
export const BIGINT_MAX = 2n ** 63n - 1n;

/** Reads a whole number from its decimal digits. Returns undefined for any other text. */
export function parseDecimal(text: string, max = BIGINT_MAX): bigint | undefined {
  const value = /^\d{1,19}$/.test(text) ? BigInt(text) : undefined;
  return value === undefined || value > max ? undefined : value;
}
