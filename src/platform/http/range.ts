import { AppError } from "../errors.ts";
import { formatHttpDate } from "./http-date.ts";
import { type Validators, checkPreconditions, isRangeAllowed } from "./preconditions.ts";

export type ByteRange = { start: number; end: number };

/**
 * Parses a `Range` header. Returns undefined if the whole file is to be sent, as for several ranges
 * or another unit (RFC 9110, 14.2).
 */
export function parseRange(
  header: string | null,
  bytes: number,
): ByteRange | "unsatisfiable" | undefined {
  const [, first = "", last = ""] = header?.match(/^bytes=(\d*)-(\d*)$/i) ?? [];
  if (first === "" && last === "") return undefined;
  const start = first === "" ? Math.max(0, bytes - Number(last)) : Number(first);
  const end = first === "" || last === "" ? bytes : Math.min(bytes, Number(last) + 1);
  if (first !== "" && last !== "" && Number(last) < start) return undefined;
  return start < bytes && start < end ? { start, end } : "unsatisfiable";
}

/**
 * Returns the part of a file that a GET or HEAD asks for by its preconditions and its range. Sets
 * the response headers for it, and removes those that a 304 must not have. Throws 412 and 416.
 */
export function selectRange(
  request: Request,
  { bytes, ...validators }: Validators & { bytes: number },
  headers: Headers,
): ByteRange & { status: 200 | 206 | 304 } {
  headers.set("etag", validators.etag);
  if (!Number.isNaN(validators.lastModifiedMs))
    headers.set("last-modified", formatHttpDate(validators.lastModifiedMs));
  headers.set("accept-ranges", "bytes");
  if (checkPreconditions(request, validators) === "not_modified") {
    // Remove headers that describe a body: a 304 has none (RFC 9110, 15.4.5).
    for (const name of ["content-type", "content-disposition"]) headers.delete(name);
    return { status: 304, start: 0, end: 0 };
  }
  const range =
    // Ranges are defined for GET only (RFC 9110, 14.2).
    request.method === "GET" && isRangeAllowed(request, validators)
      ? parseRange(request.headers.get("range"), bytes)
      : undefined;
  if (range === undefined) return { status: 200, start: 0, end: bytes };
  if (range === "unsatisfiable")
    throw new AppError("range_not_satisfiable", "the range is outside the file", {
      headers: { "content-range": `bytes */${bytes}` },
    });
  headers.set("content-range", `bytes ${range.start}-${range.end - 1}/${bytes}`);
  return { status: 206, ...range };
}
