/** Forward-auth service of a proxy: the cookie `session=USER.DEVICE` identifies a request. */
export class AuthServer implements Disposable {
  readonly #server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: ({ headers }) => {
      const [, userid, clientid] =
        /session=([^.;]+)\.([^.;]+)/.exec(headers.get("cookie") ?? "") ?? [];
      return userid === undefined
        ? new Response("who are you?", { status: 401 })
        : new Response(null, { headers: { "x-user-claim": JSON.stringify({ userid, clientid }) } });
    },
  });

  get url(): string {
    return this.#server.url.origin;
  }

  [Symbol.dispose](): void {
    void this.#server.stop(true);
  }
}

/** Returns the headers of a signed-in client. */
export function signedIn(userid: string, clientid: string): { cookie: string } {
  return { cookie: `session=${userid}.${clientid}` };
}
