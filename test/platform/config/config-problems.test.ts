import { join } from "node:path";

import { expect, test } from "bun:test";

import { VARIABLES } from "../../../src/platform/config/config.ts";
import { problemsOf } from "../../support/problems.ts";

const MIB = 2 ** 20;

test("twenty and more bad variables are reported, each once", () => {
  const bad = {
    PORT: "x",
    LISTEN: "abc:123456",
    METRICS_PORT: "-1",
    DATABASE_URL: "mysql://x",
    S3_ENDPOINT: "x",
    WORKERS: "0",
    REDIS_URL: "x",
    REDIS: "x",
    PRESENCE_TTL_S: "0",
    TRUSTED_PROXIES: "a",
    BEACON_SIZE_LIMIT: "1",
    JSON_SIZE_LIMIT: "1",
    FILE_SIZE_LIMIT: "1",
    MOBILE_QUALITY: "x",
    MOBILE_FPS: "0",
    COMMIT_INTERVAL_MS: "0",
    COMMIT_BYTES: "1",
    INFLIGHT_BYTES_MAX: "1",
    STRICT_FRAMING: "x",
    RATE_LIMIT_PROJECT: "0",
    RATE_LIMIT_SESSION: "x",
    RATE_LIMIT_ADDRESS: "-1",
    QUOTA_BYTES_PER_DAY: "0",
    FCM_BASE_URL: "x",
    APNS_SANDBOX: "x",
    APNS_BASE_URL: "x",
    PUSH_CONCURRENCY: "0",
    PUSH_RATE: "0",
    dest_uri: "x",
    source_uri: "x",
    UPDATE_SIZE_LIMIT: "1",
    DOWNLOAD_REDIRECT: "x",
    DOWNLOAD_CACHE_BYTES: "-1",
    LOG_LEVEL: "x",
  };
  const named = problemsOf(bad).map((problem) => problem.split(" ")[0] ?? "");
  // These two problems follow from others.
  expect(named.toSorted()).toEqual([...Object.keys(bad), "S3_BUCKET", "TOKEN_SECRET"].toSorted());
});

test("one bad variable hides nothing between others", () => {
  const env = { PORT: "x", COMMIT_BYTES: String(4 * MIB), INFLIGHT_BYTES_MAX: String(2 * MIB) };
  expect(problemsOf(env)).toEqual([
    "PORT must be integer",
    "INFLIGHT_BYTES_MAX must be at least COMMIT_BYTES",
  ]);
});

test("every variable stands in .env.example and in the README", async () => {
  const root = join(import.meta.dir, "../../..");
  const [example = "", readme = ""] = await Promise.all(
    [".env.example", "README.md"].map(async (name) => await Bun.file(join(root, name)).text()),
  );
  for (const name of VARIABLES) {
    // A variable that is an alternative may be mentioned in another's description.
    for (const text of [example, readme]) expect(text).toMatch(new RegExp(`\\b${name}\\b`));
  }
  // The example lists no other variables.
  const listed = [...example.matchAll(/^(?:# )?(\w+)=/gm)].map(([, name = ""]) => name);
  for (const name of listed) expect(VARIABLES).toContain(name);
});

test.each<[string, string, string]>([
  ["PORT", "1.5", "PORT must be integer"],
  ["PORT", "0x50", "PORT must be integer"],
  ["PORT", "true", "PORT must be integer"],
  ["WORKERS", "2.9", "WORKERS must be integer"],
  ["WORKERS", "1e2", "WORKERS must be integer"],
  [
    "TRUSTED_PROXIES",
    "010.0.0.1/8",
    'TRUSTED_PROXIES "010.0.0.1/8" is not an address or a CIDR range',
  ],
  ["TRUSTED_PROXIES", "10.1/16", 'TRUSTED_PROXIES "10.1/16" is not an address or a CIDR range'],
  [
    "TRUSTED_PROXIES",
    "::ffff:10.0.0.0/104",
    'TRUSTED_PROXIES "::ffff:10.0.0.0/104" is not an address or a CIDR range',
  ],
  ["FCM_BASE_URL", "https://", "FCM_BASE_URL is not a URL of a host, without a query"],
  ["APNS_BASE_URL", "http://x y", "APNS_BASE_URL is not a URL of a host, without a query"],
  ["dest_uri", "https://x/m?sig=1", "dest_uri is not a URL of a host, without a query"],
  ["source_uri", "http://", "source_uri is not a URL of a host, without a query"],
  ["REDIS_URL", "redis://:secret@h:99999", "REDIS_URL is not a URL of a host, without a query"],
])("what would be read as something else is refused: %s=%s", (name, value, problem) => {
  expect(problemsOf({ [name]: value })).toEqual([problem]);
});

test("plain numbers, ranges and URLs are taken", () => {
  const env = {
    PORT: "8080",
    TRUSTED_PROXIES: "10.0.0.0/8, 2001:db8::/32",
    FCM_BASE_URL: "http://127.0.0.1:9000/fcm/",
    REDIS_URL: "redis://user:p%40ss@h:6379/1?family=6",
  };
  expect(problemsOf(env)).toEqual([]);
});
