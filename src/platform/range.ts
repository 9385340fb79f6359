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
