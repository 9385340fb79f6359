import { type MultipartError, type PartInfo, decodeField, make } from "multipasta";

import { inflatedChunks } from "./body.ts";
import { AppError } from "./errors.ts";

const PARTS_MAX = 1000;
const FIELD_BYTES_MAX = 4096;
const HYPHEN = 0x2d;
const NAME = /; *name="([^"]*)"/i;
const NAME_BYTES_MAX = 255;
// oxlint-disable-next-line no-control-regex -- control characters are what it looks for
const UNSAFE_NAME = /[/\\\u0000-\u001f\u007f-\u009f\ufffd]|\.\.|^\.$/;

export type FormEvent =
  | { type: "field"; name: string; value: string }
  | { type: "file"; name: string; filename: string; contentType: string }
  | { type: "data"; bytes: Uint8Array }
  | { type: "end" };

export type FormLimits = {
  /** of a form that comes as gzip */
  inflatedBytesMax: number;
  fieldBytesMax?: number;
};

/**
 * The parts of a multipart form as they arrive, the events of one network chunk at a time; `data` views that chunk.
 * Throws 415 when the request is no multipart form, 400 when it is malformed, cut short or has over 1,000 parts.
 */
export async function* formEvents(
  request: Request,
  { inflatedBytesMax, fieldBytesMax = FIELD_BYTES_MAX }: FormLimits,
): AsyncGenerator<FormEvent[]> {
  const contentType = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data *(;|$)/i.test(contentType))
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
    maxFieldSize: fieldBytesMax,
    isFile: (info) => fileName(info) !== undefined,
    onField: (info, value) =>
      events.push({ type: "field", name: info.name, value: decodeField(info, value) }),
    onFile: (info) => {
      events.push(fileEvent(info));
      let open = true;
      return (bytes) => {
        // A part without headers is reported as more of the one before.
        if (!open) throw new Error("a part without headers");
        open = bytes !== null;
        events.push(bytes === null ? { type: "end" } : { type: "data", bytes });
      };
    },
    onError: (found) => (error ??= found),
    onDone: () => (done = true),
  });
  const take = (step: () => void): FormEvent[] => {
    parse(step);
    if (error !== undefined) throw formError(error, fieldBytesMax);
    const taken = events;
    events = [];
    return taken;
  };
  take(() => undefined);
  let held: Uint8Array = new Uint8Array();
  for await (const chunk of inflatedChunks(request, inflatedBytesMax)) {
    if (done) continue;
    const bytes = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    // The parser misreads the two hyphens of the closing boundary when they come apart, so it gets none at a chunk's end.
    const hyphens = bytes.at(-1) !== HYPHEN ? 0 : bytes.at(-2) === HYPHEN ? 2 : 1;
    held = bytes.slice(bytes.length - hyphens);
    yield take(() => parser.write(bytes.subarray(0, bytes.length - hyphens)));
  }
  if (!done)
    yield take(() => {
      parser.write(held);
      parser.end();
    });
  if (!done) throw formError({ _tag: "EndNotReached" }, fieldBytesMax);
}

/** Throws 400 unless a file's name is one that can neither lead out of a folder nor be misread. */
export function checkFileName(name: string): void {
  const isPlain = name !== "" && !UNSAFE_NAME.test(name) && name.isWellFormed();
  if (!isPlain || Buffer.byteLength(name) > NAME_BYTES_MAX)
    throw new AppError(
      "invalid",
      `the file name must be a plain name of up to ${NAME_BYTES_MAX} bytes`,
    );
}

/** The parser throws plain errors on some malformed headers. */
function parse(step: () => void): void {
  try {
    step();
  } catch (cause) {
    throw new AppError("invalid", "the form is malformed", { cause });
  }
}

/**
 * Undefined for a field. The parser takes a header that it cannot read, as one with a name beyond Latin-1, for that of a nameless
 * field: the file would be lost.
 */
function fileName({ contentDisposition, filename, headers }: PartInfo): string | undefined {
  const header = headers["content-disposition"];
  if (
    filename === undefined &&
    typeof header === "string" &&
    contentDisposition !== "" &&
    /filename[*\d]* *=/i.test(header)
  )
    throw new Error("a file name that cannot be read");
  if (contentDisposition !== "") return filename;
  if (typeof header !== "string" || !/^ *form-data *; *(file)?name/i.test(header))
    throw new Error("a part without a readable Content-Disposition");
  return header.match(/; *filename="([^"]*)"/i)?.[1];
}

function fileEvent(info: PartInfo): FormEvent {
  const { headers, contentDisposition } = info;
  const header = String(headers["content-disposition"]);
  return {
    type: "file",
    name: contentDisposition === "" ? (NAME.exec(header)?.[1] ?? "") : info.name,
    filename: fileName(info) ?? "",
    contentType: info.contentType,
  };
}

function formError(error: MultipartError, fieldBytesMax: number): AppError {
  if (error._tag === "InvalidBoundary")
    return new AppError("unsupported_media", "the form has no boundary");
  if (error._tag === "EndNotReached") return new AppError("invalid", "the form was cut short");
  if (error._tag === "ReachedLimit")
    return new AppError(
      "invalid",
      `the form has over ${PARTS_MAX} parts or a field over ${fieldBytesMax} bytes`,
    );
  return new AppError("invalid", "the form is malformed");
}
