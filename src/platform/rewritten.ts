const originals = new WeakMap<Request, Request>();

/**
 * Returns the request as the router should see it: with another URL, and GET instead of HEAD. It
 * has no body, because Bun would read the body of a copied request ahead into memory, and its
 * stream could not be cancelled. Use `originalOf` for the body or the connection.
 */
export function rewrite(original: Request, url: string, method: string): Request {
  const { headers, signal } = original;
  const rewritten = new Request(url, { method, headers, signal });
  originals.set(rewritten, original);
  return rewritten;
}

/** Returns the request as it arrived. */
export function originalOf(request: Request): Request {
  return originals.get(request) ?? request;
}
