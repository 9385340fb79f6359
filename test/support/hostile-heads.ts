/** Bun accepts 16 KiB of request line and headers. */
const HEAD_LENGTH = 15_500;

/** One request; its head is sent unchanged. */
export type HostileRequest = {
  name: string;
  line: string;
  headers?: string[];
  body?: Uint8Array;
};

/** Repeats a text up to the length of a head. */
export function long(text: string): string {
  return text.repeat(Math.floor(HEAD_LENGTH / text.length));
}

const TEXTS = [
  "0",
  "9",
  "a",
  "/",
  "/a",
  ".",
  "..",
  "%25",
  "%zz",
  "%e2%82",
  "%C3%A4",
  "\\",
  "=&",
  "+",
  ";",
  "a.",
  "'",
  '"',
  "(",
  "*",
  ":",
  "0_",
  "%00",
  "%2f",
].map((text) => long(text));
const PATHS = [
  "/",
  "/api/v1/updates/",
  "/api/v1/",
  "/source/",
  "/source/arm64/",
  "/source/arm64/1_00/",
  "/docs/",
  "/v1/",
  "/v1/ios/",
  "/v1/sessions/",
  "/v1/images/1/",
  "/v1/mobile/conditions/",
  "/v1/web/conditions/",
  "/v1/web/tags/",
  "/devices/",
  "/ingest/",
  "/subscribe/",
  "/subscribe/a/client/",
  "/presence/",
  "//",
  "/notifications/",
];
const QUERIES = [
  "/api/v1/updates/1_00?",
  "/api/v1/updates/1_00?device=",
  "/api/v1/updates/1_00?channel=",
  "/presence?users=",
  "/presence?users=a&token=",
  "/subscribe?users=",
  "/presence/ws?token=",
  "/presence/ws?lastEventId=",
  "/livez?",
  "/v1/sessions?projectId=",
];

const VALUES: Record<string, string[]> = {
  accept: [
    long("a/b,"),
    long("*/*;q=0.1,"),
    long(";"),
    long('a/b;c="d",'),
    long(" "),
    long("text/html;level="),
  ],
  "accept-encoding": [long("gzip,"), long(",")],
  "accept-language": [long("a-b;q=0.1,")],
  "access-control-request-headers": [long("a,")],
  authorization: [
    `Bearer ${long("a")}`,
    `Bearer ${long("a.")}`,
    `Bearer ${long("z")}.0.${"z".repeat(11)}.a`,
    `Bearer ${long("eyJ")}.a.b`,
    `bearer ${long(" ")}`,
    `Bearer ${Buffer.from(`{"alg":"HS256","a":${"[".repeat(5000)}`).toString("base64url")}.a.a`,
  ],
  cookie: [long("a=b; "), long(";"), long("=")],
  "content-encoding": [long(","), long("gzip,"), long(" ,")],
  "content-type": [
    `multipart/form-data; boundary=${long("a")}`,
    `multipart/form-data${long("; a=b")}`,
    `multipart/form-data;${long(" ")}`,
    `multipart/form-data; a="${long('\\"')}`,
    `multipart/form-data; ${Array.from({ length: 900 }, (_, n) => `a*${n}*=utf-8''%41`).join("; ")}`,
    `multipart/form-data; boundary="${long('"')}`,
  ],
  "if-match": [long('"a",'), long('"'), long("W/"), long(",")],
  "if-modified-since": [long("a"), long("1"), long(" "), long("Mon, ")],
  "if-none-match": [long('"a",'), long('"'), long('W/"a", '), long(",")],
  "if-range": [long('"'), long("Mon,")],
  "if-unmodified-since": [long("1 ")],
  "last-event-id": [long("1"), long("1-"), long("."), long("a-1-")],
  origin: [long("a"), `https://${long("a.")}`, long("/")],
  range: [
    `bytes=${long("0-1,")}`,
    `bytes=${long("0")}-`,
    `bytes=-${long("9")}`,
    `bytes=${long("-")}`,
    long("bytes="),
  ],
  "sec-websocket-protocol": [long("a,"), long(","), long(" ")],
  "sec-websocket-extensions": [long("permessage-deflate; "), long("a;b=c,")],
  "user-agent": [
    long("a"),
    long("Mozilla/"),
    long("Mozilla/5.0 ("),
    long("("),
    long("1."),
    long("bot "),
    long(" "),
    long("CFNetwork/"),
    `Mozilla/5.0 ${long("Android ")}`,
    long("; "),
    long("Version/1 Safari "),
  ],
  "x-device-id": [long("a")],
  "x-forwarded-for": [long("1.1.1.1,"), long(","), long("::,"), long("127.0.0.1, "), long("[")],
  "x-forwarded-host": [long("a,"), long("a")],
  "x-request-id": [long("a"), long("-")],
  "x-server-key": [long("a")],
  "x-user-claim": [
    `{"userid":${"[".repeat(7000)}`,
    `{"userid":"a","b":${"[".repeat(7000)}${"]".repeat(7000)}}`,
    long('{"a":'),
    `{"userid":"${long("\\u0041").slice(0, 15_000)}"}`,
  ],
  signature: [long("a")],
};

const LINES = [
  "GET /",
  "GET /livez",
  "GET /readyz",
  "GET /metrics",
  "GET /docs",
  "GET /docs/json",
  "GET /docs/swagger-ui.css",
  "GET /presence?users=a",
  "GET /presence/ws",
  "GET /subscribe?users=a",
  "GET /subscribe/a",
  "GET /subscribe/a/client/b",
  "GET /v1/sessions/1/batches",
  "GET /api/v1/updates/1_00",
  "GET /nowhere",
  "OPTIONS /ping",
  "POST /ping",
  "POST /api/v1/users",
  "POST /v1/ios/start",
  "POST /v1/mobile/start",
  "POST /v1/ios/append",
  "POST /v1/ios/i",
  "POST /v1/ios/late",
  "POST /v1/ios/images",
  "POST /v1/mobile/i",
  "POST /v1/mobile/late",
  "POST /v1/mobile/images",
  "POST /v1/sdk/start",
  "POST /v1/sdk/i",
  "POST /v1/web/start",
  "POST /v1/web/i",
  "POST /v1/web/images",
  "POST /v1/web/not-started",
  "POST /v1/web/feature-flags",
  "POST /v1/web/uxt/signals/test",
  "POST /v1/web/uxt/signals/task",
];

function get(path: string): HostileRequest {
  return { name: shortened(path), line: `GET ${path}` };
}

/** Paths, queries and headers of maximum length for everything that a server parses there. */
export function hostileHeads(download: string): HostileRequest[] {
  const users = Array.from({ length: 200 }, (_, n) => `user-${n}-${"x".repeat(60)}`).join(",");
  return [
    ...PATHS.flatMap((prefix) => TEXTS.map((text) => get(prefix + text))),
    ...[...QUERIES, `${download}?`].flatMap((query) =>
      [...TEXTS, long("a=b&"), long("&"), long(","), long("a,"), users].map((text) =>
        get(query + text),
      ),
    ),
    ...hostileHeaders(download),
  ];
}

function hostileHeaders(download: string): HostileRequest[] {
  const many = Array.from({ length: 90 }, (_, n) => `x-${n}: ${"a".repeat(150)}`);
  return [...LINES, `GET ${download}`].flatMap((line) => [
    { name: `${line} with many headers`, line, headers: many },
    ...Object.entries(VALUES).flatMap(([header, all]) =>
      all.map((value) => ({
        name: `${line} with ${header}: ${shortened(value)}`,
        line,
        headers: [`${header}: ${value.slice(0, HEAD_LENGTH)}`],
      })),
    ),
  ]);
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
