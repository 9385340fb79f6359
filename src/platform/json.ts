import { isUtf8 } from "node:buffer";

import { AppError } from "./errors.ts";

/** Returns undefined if the text is not valid JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Returns whether the value is a JSON object. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Returns the value if it is a JSON object. Throws 400 with a message that names it otherwise. */
export function recordOf(value: unknown, what: string): Record<string, unknown> {
  if (!isRecord(value)) throw new AppError("invalid", `${what} must be an object`);
  return value;
}

/** Parses JSON from a client. Throws 400 with the `problem`. */
export function jsonOf(text: string, problem: string, parse: Parse = JSON.parse): unknown {
  try {
    return parse(text);
  } catch (cause) {
    throw new AppError("invalid", problem, { cause });
  }
}

const UTF8 = new TextDecoder();

type Parse = (text: string) => unknown;

export type JsonOptions = {
  /** Message of the 400. */
  problem?: string;
  /** Replaces bytes that are not UTF-8 instead of refusing them. */
  isLenient?: boolean;
  parse?: Parse;
};

/** Parses JSON in UTF-8 from a client. Throws 400 with the `problem`. */
export function decodeJson(bytes: Uint8Array, options: JsonOptions = {}): unknown {
  const { problem = "the body is not valid JSON", isLenient = false, parse } = options;
  if (!isLenient && !isUtf8(bytes)) throw new AppError("invalid", problem);
  return jsonOf(UTF8.decode(bytes), problem, parse);
}
