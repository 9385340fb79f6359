import { readFile } from "node:fs/promises";

import { UsageError } from "../errors.ts";

/** What a variable holds, or what is in the file that it names; `isText` tells a text from a path. Throws UsageError. */
export async function variableText(name: string, value: string, isText: RegExp): Promise<string> {
  if (isText.test(value)) return value;
  try {
    return await readFile(value, "utf8");
  } catch (cause) {
    throw new UsageError(`${name} names a file that cannot be read`, { cause });
  }
}

/** A PEM as it was: one that came through a variable often has its line ends written out. */
export function unescapePem(pem: string): string {
  return pem.replaceAll("\\n", "\n").trim();
}
