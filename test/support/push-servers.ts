import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { once } from "node:events";
import http2 from "node:http2";

import { type PushTarget } from "../../src/push/provider.ts";

export type Received = {
  path: string;
  headers: http2.IncomingHttpHeaders;
  body: string;
  /** Number of the request over all sessions, from 1. */
  number: number;
  session: http2.ServerHttp2Session;
  streamId: number;
};

/** Reaction of a provider to a request: an answer, or one of several failures. */
export type Reaction = Answering | Trouble;
type Trouble = "stall" | "reset" | "kill session";
type Answering = {
  status: number;
  headers?: Record<string, string>;
  body?: string;
  delayMs?: number;
  /** Failure in place of the answer's end. */
  ending?: Trouble;
};

type React = (request: Received) => Reaction;

/** Success of FCM; APNs's clients ignore the body. */
export const OK: Answering = { status: 200, body: '{"name":"projects/shop-123/messages/1"}' };

/** HTTP/2 server that records requests and reacts to them as the test configures. */
export class PushServer implements AsyncDisposable {
  readonly received: Received[] = [];
  sessions = 0;
  react: React;
  readonly url: string;
  readonly #server: http2.Http2Server | http2.Http2SecureServer;
  readonly #open: Set<http2.ServerHttp2Session>;

  private constructor(
    server: http2.Http2Server | http2.Http2SecureServer,
    open: Set<http2.ServerHttp2Session>,
    url: string,
    react: React,
  ) {
    this.#server = server;
    this.#open = open;
    this.url = url;
    this.react = react;
  }

  static async start(
    react: React = () => OK,
    { streams = 1000, tls }: { streams?: number; tls?: { key: string; cert: string } } = {},
  ): Promise<PushServer> {
    const settings = { maxConcurrentStreams: streams };
    const server = tls
      ? http2.createSecureServer({ ...tls, settings })
      : http2.createServer({ settings });
    const open = new Set<http2.ServerHttp2Session>();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const scheme = tls ? "https://localhost" : "http://127.0.0.1";
    const started = new PushServer(server, open, `${scheme}:${portOf(server)}`, react);
    server.on("session", (session) => {
      started.sessions += 1;
      open.add(session);
      session.on("error", () => undefined);
      session.on("close", () => open.delete(session));
      session.on("stream", (stream, headers) => started.#take(session, stream, headers));
    });
    return started;
  }

  get openSessions(): number {
    return this.#open.size;
  }

  /** Changes the number of concurrent streams on each open connection. */
  allow(streams: number): void {
    for (const session of this.#open) session.settings({ maxConcurrentStreams: streams });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#open) session.destroy();
    this.#server.close();
  }

  #take(
    session: http2.ServerHttp2Session,
    stream: http2.ServerHttp2Stream,
    headers: http2.IncomingHttpHeaders,
  ): void {
    const chunks: Buffer[] = [];
    stream.on("error", () => undefined);
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      const number = this.received.length + 1;
      const body = Buffer.concat(chunks).toString();
      const path = headers[":path"] ?? "";
      const request = { path, headers, body, number, session, streamId: stream.id ?? 0 };
      this.received.push(request);
      perform(this.react(request), session, stream);
    });
  }
}

function perform(
  reaction: Reaction,
  session: http2.ServerHttp2Session,
  stream: http2.ServerHttp2Stream,
): void {
  if (reaction === "stall") return;
  // Without an error Bun would end an answer that has begun as if it were complete.
  if (reaction === "reset") stream.destroy(new Error("reset"));
  else if (reaction === "kill session") session.destroy(new Error("killed"));
  else {
    const answer = () => {
      if (stream.destroyed) return;
      stream.respond({ ":status": reaction.status, ...reaction.headers });
      const { body, ending } = reaction;
      if (ending === undefined) stream.end(body);
      else {
        if (body !== undefined) stream.write(body);
        // The bytes that were written must arrive first.
        setTimeout(() => perform(ending, session, stream), 20);
      }
    };
    if (reaction.delayMs === undefined) answer();
    else setTimeout(answer, reaction.delayMs);
  }
}

/** Simulates Google's token endpoint. */
export class TokenServer implements AsyncDisposable {
  /** Assertions that were received. */
  readonly assertions: string[] = [];
  /** Answer in place of a token. */
  failure: (() => Response | Promise<Response>) | undefined;
  expiresInS = 3600;
  delayMs = 0;
  readonly #server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      const form = new URLSearchParams(await request.text());
      this.assertions.push(form.get("assertion") ?? "");
      await Bun.sleep(this.delayMs);
      if (this.failure !== undefined) return await this.failure();
      return Response.json({
        access_token: `token-${this.assertions.length}`,
        token_type: "Bearer",
        expires_in: this.expiresInS,
      });
    },
  });

  get url(): string {
    return `http://127.0.0.1:${this.#server.port}/token`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }
}

/** Returns an error as in Apple's documentation. */
export function apnsError(status: number, reason: string, timestamp?: number): Answering {
  const body = JSON.stringify({ reason, ...(timestamp !== undefined && { timestamp }) });
  return { status, headers: { "content-type": "application/json" }, body };
}

type FcmFailure = {
  code: number;
  status: string;
  message?: string;
  errorCode?: string;
  field?: string;
  retryAfter?: string;
};

/** Returns an error as in Google's documentation. */
export function fcmError(failure: FcmFailure): Answering {
  const { code, status, message = status, errorCode, field, retryAfter } = failure;
  const details = [
    ...(errorCode === undefined
      ? []
      : [{ "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", errorCode }]),
    ...(field === undefined
      ? []
      : [
          {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            fieldViolations: [{ field, description: message }],
          },
        ]),
  ];
  return {
    status: code,
    headers: {
      "content-type": "application/json; charset=UTF-8",
      ...(retryAfter !== undefined && { "retry-after": retryAfter }),
    },
    body: JSON.stringify({ error: { code, message, status, details } }),
  };
}

const pemOf = (key: KeyObject) => key.export({ type: "pkcs8", format: "pem" });

export const APNS_KEYS = generateKeyPairSync("ec", { namedCurve: "P-256" });
export const APNS_PEM = pemOf(APNS_KEYS.privateKey);
export const GOOGLE_KEYS = generateKeyPairSync("rsa", { modulusLength: 2048 });
export const GOOGLE_PEM = pemOf(GOOGLE_KEYS.privateKey);

export const apnsConfig = (baseUrl: string) => ({
  key: APNS_PEM,
  keyId: "ABC123DEFG",
  teamId: "DEF123GHIJ",
  topic: "com.example.app",
  baseUrl,
});

export const serviceAccount = (tokenUri: string) => ({
  project_id: "shop-123",
  client_email: "push@shop-123.iam.gserviceaccount.com",
  private_key: GOOGLE_PEM,
  token_uri: tokenUri,
});

export const fcmConfig = (baseUrl: string, tokenUri: string) => ({
  serviceAccount: serviceAccount(tokenUri),
  baseUrl,
});

export function apnsTarget(n = 1): PushTarget {
  return {
    provider: "apns",
    token: n.toString(16).padStart(64, "0"),
    devicePlatform: 2,
    messageId: `0c9f4f2e-4f5a-4b0e-8d70-${n.toString(16).padStart(12, "0")}`,
  };
}

export function fcmTarget(n = 1, devicePlatform = 1): PushTarget {
  return { ...apnsTarget(n), provider: "fcm", token: `fcm-token:${n}`, devicePlatform };
}

export function portOf(server: { address(): unknown }): number {
  const address = server.address();
  if (typeof address === "object" && address !== null && "port" in address)
    return Number(address.port);
  throw new Error("the server does not listen");
}
