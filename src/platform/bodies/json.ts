import { type JsonOptions, decodeJson } from "../json.ts";
import { release } from "../gc.ts";
import { readContent } from "./content.ts";

/**
 * Reads the body as JSON. Throws 400 as `decodeJson` does, 413 over `bytesMax`, and what
 * `readContent` throws, which calls `hold`.
 */
export async function readJson(
  request: Request,
  bytesMax: number,
  { hold, ...options }: JsonOptions & { hold?: (bytes: number) => void } = {},
): Promise<unknown> {
  const content = await readContent(request, bytesMax, hold);
  try {
    return decodeJson(content, options);
  } finally {
    release(content);
  }
}
