import { AppError } from "./errors.ts";

/** Largest number of PostgreSQL's bigint. */
export const BIGINT_MAX = 2n ** 63n - 1n;

/** Reads a whole number. Throws 400 with a message that names it. */
export function wholeOf(value: unknown, name: string, min: number, max: number): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max)
    throw notWhole(name, min, max);
  return value;
}

export function notWhole(name: string, min: number | bigint, max: number | bigint): AppError {
  return new AppError("invalid", `${name} must be a whole number from ${min} to ${max}`);
}

/** Reads a whole number from its decimal digits. Returns undefined for any other text. */
export function parseDecimal(text: string, max = BIGINT_MAX): bigint | undefined {
  const value = /^\d{1,19}$/.test(text) ? BigInt(text) : undefined;
  return value === undefined || value > max ? undefined : value;
}
