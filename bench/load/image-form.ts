import { MARK_BYTES } from "./batch.ts";

export const BOUNDARY = "----FloodgateBench7MA4YWxkTrZu0gW";
const JPEG_START = [0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, 0x4a, 0x46, 0x49, 0x46, 0x00, 0x01];
const MARK_HOLDER = "0".repeat(MARK_BYTES);

export const FORM_CONTENT_TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

const encoder = new TextEncoder();

/** Bytes at the end of every form. */
export const FORM_END = encoder.encode(`\r\n--${BOUNDARY}--\r\n`);

export type FormFrame = { before: Uint8Array; after: Uint8Array; nameOffset: number };

/** Returns the bytes around an image in its form: the project, then one file named by its hash. */
export function frameForm(projectID: number, filename: string): FormFrame {
  const before =
    `--${BOUNDARY}\r\nContent-Disposition: form-data; name="projectID"\r\n\r\n${projectID}\r\n` +
    `--${BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="${filename}"\r\n` +
    "Content-Type: image/jpeg\r\n\r\n";
  return {
    before: encoder.encode(before),
    after: FORM_END,
    nameOffset: before.lastIndexOf(filename),
  };
}

/**
 * Builds a form with one image of `size` bytes; the mark is in the file's name and in its bytes.
 */
export function buildImageForm(projectID: number, size: number) {
  const { before, after, nameOffset } = frameForm(projectID, MARK_HOLDER);
  const image = fillImage(size);
  const body = new Uint8Array(before.length + size + after.length);
  body.set(before);
  body.set(image, before.length);
  body.set(after, before.length + size);
  const markOffsets = [nameOffset, before.length + JPEG_START.length];
  return { body, markOffsets, contentType: FORM_CONTENT_TYPE };
}

/** Returns bytes that are as incompressible as a JPEG's. */
export function fillImage(size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  for (let at = 0; at < size; at += 65_536)
    crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65_536, size)));
  bytes.set(JPEG_START.slice(0, size));
  return bytes;
}
