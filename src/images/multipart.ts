import { type MultipartError, type PartInfo, decodeField, make } from "multipasta";

import { bodyChunks } from "../platform/body.ts";
import { AppError } from "../platform/errors.ts";

const PARTS_MAX = 1000;
const FIELD_BYTES_MAX = 4096;

export type FormEvent =
  | { type: "field"; name: string; value: string }
  | { type: "file"; filename: string; contentType: string }
  | { type: "data"; bytes: Uint8Array }
  | { type: "end" };

/**
 * The parts of a multipart form as they arrive, the events of one network chunk at a time; `data` views that chunk.
 * Throws 415 when the request is no multipart form, 400 when it is malformed, cut short or has over 1,000 parts.
 */
export async function* formEvents(request: Request): AsyncGenerator<FormEvent[]> {
  const contentType = request.headers.get("content-type") ?? "";
  if (!contentType.toLowerCase().startsWith("multipart/form-data"))
    throw new AppError("unsupported_media", "the body must be multipart/form-data");
  // RFC 2046 allows 70 characters; with some 252 the parser would search for ever.
  if (!/boundary="?[^";]{1,70}(?:[";]|$)/i.test(contentType))
    throw new AppError("unsupported_media", "the form has no valid boundary");
  let events: FormEvent[] = [];
  let error: MultipartError | undefined;
  let done = false;
  const parser = make({
    headers: { "content-type": contentType },
    maxParts: PARTS_MAX,
    maxFieldSize: FIELD_BYTES_MAX,
    isFile: (info) => info.filename !== undefined,
    onField: (info, value) =>
      events.push({ type: "field", name: info.name, value: decodeField(info, value) }),
    onFile: (info) => {
      events.push(fileEvent(info));
      return (bytes) => events.push(bytes === null ? { type: "end" } : { type: "data", bytes });
    },
    onError: (found) => (error ??= found),
    onDone: () => (done = true),
  });
  const check = () => {
    if (error !== undefined) throw formError(error);
  };
  check();
  for await (const chunk of bodyChunks(request)) {
    if (!done) parse(() => parser.write(chunk));
    check();
    yield events;
    events = [];
  }
  if (!done) throw new AppError("invalid", "the form was cut short");
}

/** The parser throws plain errors on some malformed headers. */
function parse(write: () => void): void {
  try {
    write();
  } catch (cause) {
    throw new AppError("invalid", "the form is malformed", { cause });
  }
}

function fileEvent({ filename, contentType }: PartInfo): FormEvent {
  return { type: "file", filename: filename ?? "", contentType };
}

function formError(error: MultipartError): AppError {
  if (error._tag === "InvalidBoundary")
    return new AppError("unsupported_media", "the form has no boundary");
  if (error._tag === "ReachedLimit")
    return new AppError(
      "invalid",
      `the form has over ${PARTS_MAX} parts or a field over ${FIELD_BYTES_MAX} bytes`,
    );
  return new AppError("invalid", "the form is malformed");
}
