import { readFileSync } from "node:fs";

import { UsageError } from "../errors.ts";
import { type PostgresHost, type PostgresUrl } from "../config/postgres-url.ts";

/**
 * Returns the URL's own password, or the first match in its passfile for this host, database and
 * user; "" if there is none. Reads the file each time, because it may change.
 */
export function passwordFor(url: PostgresUrl, { name, port }: PostgresHost): string {
  if (url.password !== undefined || url.passfile === undefined) return url.password ?? "";
  const wanted = [name.startsWith("/") ? "localhost" : name, String(port), url.database, url.user];
  for (const line of readLines(url.passfile)) {
    const fields = fieldsOf(line);
    if (wanted.every((value, nth) => fields[nth] === "*" || fields[nth] === value))
      return fields.slice(wanted.length).join(":");
  }
  return "";
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, "utf8")
      .split(/\r?\n/)
      .filter((line) => line !== "" && !line.startsWith("#"));
  } catch (cause) {
    throw new UsageError("DATABASE_URL: the passfile cannot be read", { cause });
  }
}

/** Splits a line at colons; a backslash escapes the next character. */
function fieldsOf(line: string): string[] {
  return (line.match(/(?:^|:)(?:\\.|[^:\\])*/g) ?? []).map((field, nth) =>
    (nth === 0 ? field : field.slice(1)).replaceAll(/\\(.)/g, "$1"),
  );
}
