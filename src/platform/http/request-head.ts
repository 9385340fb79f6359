import { AppError } from "../errors.ts";

// A name, or an address in brackets, and a port. Bun joins several headers with ", ", so a comma is
// not allowed.
const HOST = /^(?:\[[\da-f:.]+\]|[\w.~!$&'()*+;=%-]*)(?::\d{0,5})?$/i;
const HOST_LENGTH_MAX = 255 + ":65535".length;
const LENGTH = /^\d{1,15}$/;

/**
 * Refuses ambiguous heads (request smuggling) that a proxy and this server may read differently,
 * and that Bun accepts: two `Host` headers or an invalid one, and two `Content-Length`. Throws 400.
 */
export function checkHead({ headers }: Request): void {
  const host = headers.get("host");
  if (host !== null && (host.length > HOST_LENGTH_MAX || !HOST.test(host))) throw malformed("Host");
  const length = headers.get("content-length");
  if (length !== null && !LENGTH.test(length)) throw malformed("Content-Length");
}

/** Makes an error that closes the connection, because the bytes that follow cannot be trusted. */
function malformed(name: string): AppError {
  return new AppError("invalid", `the ${name} header is malformed`, {
    headers: { connection: "close" },
  });
}
