import { json } from "../platform/http/docs.ts";
import { AppError, STATUS } from "../platform/errors.ts";
import { stringifyExact } from "./exact-json.ts";

// The answers of updates, their downloads and users, as the WeMesse server wrote them: bare JSON, and errors in plain text.

/** A success; bigints become numbers. */
export function bareJson(value: unknown, headers: Record<string, string> = {}): Response {
  return new Response(stringifyExact(value), { headers: { ...JSON_HEADERS, ...headers } });
}

/** Of a body that is JSON already. */
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

/** How a route is described that takes a signature: by an example of its answer and the texts of its other errors. */
export function signedDetail(
  summary: string,
  example: object,
  texts: Partial<Record<number, string>> = {},
) {
  return plainDetail(summary, example, { ...SIGNED, ...texts });
}

/** The same of a public route. */
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

/** Describes the error answers, by their texts, together with those that every route has. */
export function plainErrors(texts: Partial<Record<number, string>>) {
  const coding = 413 in texts ? CODING : {};
  const errors = Object.entries({ ...texts, ...coding, ...LIMITED }).map(([status, text]) => [
    status,
    { description: text, content: { "text/plain": { example: `${text}\n` } } },
  ]);
  return Object.fromEntries(errors);
}
