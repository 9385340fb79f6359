const originals = new WeakMap<Request, Request>();

/**
 * The request as the router is to see it: another URL, and a GET where only the head is asked for. It has no body: one that is wrapped
 * anew is read ahead into memory, and its stream cannot be cancelled. Who needs it, or the connection, asks for the original.
 */
export function rewrite(original: Request, url: string, method: string): Request {
  const { headers, signal } = original;
  const rewritten = new Request(url, { method, headers, signal });
  originals.set(rewritten, original);
  return rewritten;
}

/** The request that came in. */
export function originalOf(request: Request): Request {
  return originals.get(request) ?? request;
}
