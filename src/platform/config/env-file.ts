import { readFile } from "node:fs/promises";

import { UsageError } from "../errors.ts";

/**
 * Returns the value of a variable if it matches `isText`, or else the content of the file that it
 * names. Throws UsageError if that file cannot be read.
 */
export async function variableText(name: string, value: string, isText: RegExp): Promise<string> {
  if (isText.test(value)) return value;
  try {
    return await readFile(value, "utf8");
  } catch (cause) {
    throw new UsageError(`${name} names a file that cannot be read`, { cause });
  }
}

/** Restores the line breaks of a PEM, which in variables are often written as `\n`. */
export function unescapePem(pem: string): string {
  return pem.replaceAll("\\n", "\n").trim();
}
