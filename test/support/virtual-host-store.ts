import { createHash, createHmac } from "node:crypto";

import { type S3Server } from "./s3-server.ts";

type Signed = { scope: string; date: string; headers: string[]; signature: string };

/**
 * The tests' S3 server behind a proxy that accepts only virtual-host style (`bucket.localhost`),
 * never a bucket in the path.
 */
export class VirtualHostStore implements AsyncDisposable {
  readonly #upstream: S3Server;
  readonly #server;
  /** Method and URL of each request that was forwarded. */
  readonly taken: string[] = [];

  constructor(upstream: S3Server) {
    this.#upstream = upstream;
    this.#server = Bun.serve({ port: 0, fetch: async (request) => await this.#answer(request) });
  }

  get endpoint(): string {
    return `http://localhost:${this.#server.port}`;
  }

  async #answer(request: Request): Promise<Response> {
    const url = new URL(request.url);
    const [, bucket] = url.hostname.match(/^([a-z0-9-]+)\.localhost$/) ?? [];
    if (bucket === undefined) return refusal("PathStyleNotAllowed");
    const signed = signedOf(request);
    if (
      signed === undefined ||
      signed.signature !== this.#sign(request.method, url, request.headers)
    )
      return refusal("SignatureDoesNotMatch");
    this.taken.push(`${request.method} ${request.url}`);
    const target = new URL(this.#upstream.endpoint);
    target.pathname = `/${bucket}${url.pathname}`;
    target.search = url.search;
    const headers = new Headers(request.headers);
    headers.set("host", target.host);
    const signature = this.#sign(request.method, target, headers);
    const authorization = headers.get("authorization");
    if (authorization === null) target.searchParams.set("X-Amz-Signature", signature);
    else headers.set("authorization", authorization.replace(signed.signature, signature));
    return await fetch(target, {
      method: request.method,
      headers,
      ...(request.body !== null && { body: await request.bytes() }),
      redirect: "manual",
    });
  }

  /** Computes the Signature Version 4 of a request from the parameters in its headers or query. */
  #sign(method: string, url: URL, headers: Headers): string {
    const signed = signedOf({ url: url.href, headers });
    if (signed === undefined) return "";
    const query = [...url.searchParams]
      .filter(([name]) => name !== "X-Amz-Signature")
      .map((pair) => pair.map(encoded).join("="))
      .toSorted();
    const canonical = [
      method,
      url.pathname,
      query.join("&"),
      ...signed.headers.map((name) => `${name}:${headers.get(name)?.trim() ?? ""}`),
      "",
      signed.headers.join(";"),
      headers.get("x-amz-content-sha256") ?? "UNSIGNED-PAYLOAD",
    ].join("\n");
    const text = ["AWS4-HMAC-SHA256", signed.date, signed.scope, sha256(canonical)].join("\n");
    let key: string | Buffer = `AWS4${this.#upstream.secretAccessKey}`;
    for (const part of [...signed.scope.split("/"), text])
      key = createHmac("sha256", key).update(part).digest();
    return Buffer.from(key).toString("hex");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

function signedOf({ url, headers }: { url: string; headers: Headers }): Signed | undefined {
  const query = new URL(url).searchParams;
  const fields: Record<string, string> = Object.fromEntries(
    [...(headers.get("authorization") ?? "").matchAll(/(\w+)=([^,\s]+)/g)].map((match) => [
      match[1] ?? "",
      match[2] ?? "",
    ]),
  );
  const field = (name: string) => fields[name] ?? query.get(`X-Amz-${name}`) ?? "";
  const signature = field("Signature");
  if (signature === "") return undefined;
  return {
    // The credential scope follows the key id.
    scope: field("Credential").split("/").slice(1).join("/"),
    date: headers.get("x-amz-date") ?? query.get("X-Amz-Date") ?? "",
    headers: field("SignedHeaders").split(";"),
    signature,
  };
}

function refusal(code: string): Response {
  return new Response(`<Error><Code>${code}</Code><Message>no</Message></Error>`, { status: 403 });
}

function encoded(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
