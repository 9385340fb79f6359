import { AppError } from "./errors.ts";

// A name, or an address in brackets, and a port. Bun joins several of them with ", ", so a comma is none of it.
const HOST = /^(?:\[[\da-f:.]+\]|[\w.~!$&'()*+;=%-]*)(?::\d{0,5})?$/i;
const HOST_LENGTH_MAX = 255 + ":65535".length;
const LENGTH = /^\d{1,15}$/;

/**
 * Refuses heads that two programs may read differently, a proxy before this server and this server, and that Bun lets pass: two `Host`
 * headers or one that names no host, and two `Content-Length`. Throws 400.
 */
export function checkHead({ headers }: Request): void {
  const host = headers.get("host");
  if (host !== null && (host.length > HOST_LENGTH_MAX || !HOST.test(host))) throw malformed("Host");
  const length = headers.get("content-length");
  if (length !== null && !LENGTH.test(length)) throw malformed("Content-Length");
}

/** The connection is closed with it: what follows on it may not be what it seems. */
function malformed(name: string): AppError {
  return new AppError("invalid", `the ${name} header is malformed`, {
    headers: { connection: "close" },
  });
}
