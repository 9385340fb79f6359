import { expect } from "bun:test";

import { formEvents } from "../../src/platform/bodies/multipart.ts";
import { concat } from "./batches.ts";
import { BOUNDARY, type FormPart } from "./forms.ts";

const INFLATED_BYTES_MAX = 2 ** 20;
const TYPE = `multipart/form-data; boundary=${BOUNDARY}`;

/** Splits the bytes into chunks at the cuts. */
export function chunksOf(bytes: Uint8Array, cuts: number[]): Uint8Array[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].toSorted(
    (a, b) => a - b,
  );
  return ends
    .map((end, index) => bytes.slice(ends[index - 1] ?? 0, end))
    .filter((chunk) => chunk.length > 0);
}

function requestOf(chunks: Uint8Array[], contentType = TYPE): Request {
  const left = [...chunks];
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      const chunk = left.shift();
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  });
  const headers = { "content-type": contentType };
  return new Request("http://localhost/", { method: "POST", body, headers });
}

/** Collects the parts of a form from its events. */
export async function partsOf(chunks: Uint8Array[], contentType?: string): Promise<FormPart[]> {
  const parts: FormPart[] = [];
  let open: { file: string; type: string; pieces: Uint8Array[] } | undefined;
  for await (const { events } of formEvents(requestOf(chunks, contentType), {
    inflatedBytesMax: INFLATED_BYTES_MAX,
  }))
    for (const event of events)
      if (event.type === "field") parts.push({ field: event.name, value: event.value });
      else if (event.type === "file")
        open = { file: event.filename, type: event.contentType, pieces: [] };
      else if (open === undefined) throw new Error(`${event.type} outside a file`);
      else if (event.type === "data") open.pieces.push(Uint8Array.from(event.bytes));
      else {
        parts.push({ file: open.file, type: open.type, bytes: concat(open.pieces) });
        open = undefined;
      }
  expect(open).toBeUndefined();
  return parts;
}
