import { json } from "../platform/http/docs.ts";
import { AppError, STATUS } from "../platform/errors.ts";
import { stringifyExact } from "./exact-json.ts";

// Responses of updates, downloads and installs in the format of the WeMesse server: bare JSON, and
// errors as plain text.

/** Renders a success; bigints become JSON numbers. */
export function bareJson(value: unknown, headers: Record<string, string> = {}): Response {
  return new Response(stringifyExact(value), { headers: { ...JSON_HEADERS, ...headers } });
}

/** Headers for a body that is JSON text already. */
export const JSON_HEADERS = { "content-type": "application/json; charset=utf-8" };

export function renderPlainText(error: unknown): Response {
  const { code, headers, message } =
    error instanceof AppError ? error : new AppError("internal", "internal error");
  const status = STATUS[code];
  if (code === "method_not_allowed") return new Response(null, { status, headers });
  const text = code === "no_route" ? "404 page not found" : message;
  return new Response(`${text}\n`, {
    status,
    headers: { ...headers, "content-type": "text/plain; charset=utf-8" },
  });
}

const SIGNED = {
  401: "record not found",
  403: "forbidden",
  503: "the database is away, send it again",
};

const LIMITED = { 429: "too many requests of this address, send it again" };

const CODING = { 415: 'the content coding "lzma" is not supported' };

/**
 * Describes a route that takes an API key in `signature`, by an example of its response and by its
 * own error texts.
 */
export function signedDetail(
  summary: string,
  example: object,
  texts: Partial<Record<number, string>> = {},
) {
  return plainDetail(summary, example, { ...SIGNED, ...texts });
}

/** Describes a public route in the same way. */
export function plainDetail(
  summary: string,
  example: object,
  texts: Partial<Record<number, string>>,
) {
  return {
    summary,
    responses: { 200: json(example), ...plainErrors(texts) },
  };
}

/** Describes error responses by their texts, and adds those that every route has. */
export function plainErrors(texts: Partial<Record<number, string>>) {
  const coding = 413 in texts ? CODING : {};
  const errors = Object.entries({ ...texts, ...coding, ...LIMITED }).map(([status, text]) => [
    status,
    { description: text, content: { "text/plain": { example: `${text}\n` } } },
  ]);
  return Object.fromEntries(errors);
}
