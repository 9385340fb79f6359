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
