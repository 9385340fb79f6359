import { concat } from "./batches.ts";

export type FormPart =
  | { field: string; value: string }
  | { file: string; bytes: Uint8Array; type?: string; part?: string };

export const BOUNDARY = "----form-4711";
/** Header of a request whose body is such a form. */
export const MULTIPART = { "content-type": `multipart/form-data; boundary=${BOUNDARY}` };

/** Encodes a multipart form without escaping names. */
export function encodeForm(parts: FormPart[], end = `--${BOUNDARY}--\r\n`): Uint8Array {
  return concat([...parts.flatMap(encodePart), Buffer.from(end)]);
}

export function encodePart(part: FormPart): Uint8Array[] {
  const open = `--${BOUNDARY}\r\nContent-Disposition: form-data; `;
  if ("field" in part) return [Buffer.from(`${open}name="${part.field}"\r\n\r\n${part.value}\r\n`)];
  const { file, bytes, type = "image/png", part: name = "image" } = part;
  const names = `name="${name}"; filename="${file}"`;
  const head = `${open}${names}\r\nContent-Type: ${type}\r\n\r\n`;
  return [Buffer.from(head), bytes, Buffer.from("\r\n")];
}
