import { AppError } from "./errors.ts";

export type ByteRange = { start: number; end: number };

/** One range of a `Range` header; undefined = send the whole, which is also the answer to several ranges or another unit (RFC 9110, 14.2). */
export function parseRange(
  header: string | null,
  bytes: number,
): ByteRange | "unsatisfiable" | undefined {
  const [, first = "", last = ""] = header?.match(/^bytes=(\d{0,15})-(\d{0,15})$/) ?? [];
  if (first === "" && last === "") return undefined;
  const start = first === "" ? Math.max(0, bytes - Number(last)) : Number(first);
  const end = first === "" || last === "" ? bytes : Math.min(bytes, Number(last) + 1);
  if (first !== "" && last !== "" && Number(last) < start) return undefined;
  return start < bytes && start < end ? { start, end } : "unsatisfiable";
}

/**
 * What of a file of so many bytes a request asks for, by its conditions and its range; sets the headers that go with it.
 * The ETag is strong and in its quotes. Throws 416.
 */
export function selectRange(
  request: Request,
  { bytes, etag }: { bytes: number; etag: string },
  headers: Headers,
): ByteRange & { status: 200 | 206 | 304 } {
  headers.set("etag", etag);
  headers.set("accept-ranges", "bytes");
  const known = request.headers.get("if-none-match");
  if (known === "*" || known?.includes(etag) === true) return { status: 304, start: 0, end: 0 };
  const ifRange = request.headers.get("if-range");
  const isSame = ifRange === null || ifRange === etag;
  const range = isSame ? parseRange(request.headers.get("range"), bytes) : undefined;
  if (range === undefined) return { status: 200, start: 0, end: bytes };
  if (range === "unsatisfiable")
    throw new AppError("range_not_satisfiable", "the range is outside the file", {
      headers: { "content-range": `bytes */${bytes}` },
    });
  headers.set("content-range", `bytes ${range.start}-${range.end - 1}/${bytes}`);
  return { status: 206, ...range };
}
