import { readContent } from "./content.ts";
import { AppError } from "../errors.ts";

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

/**
 * Reads the body as JSON. Throws 400 with the `problem` if it is not JSON in UTF-8, and 413 over
 * `bytesMax`.
 */
export async function readJson(
  request: Request,
  bytesMax: number,
  problem = "the body is not valid JSON",
): Promise<unknown> {
  const body = await readContent(request, bytesMax);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (cause) {
    throw new AppError("invalid", problem, { cause });
  }
}
