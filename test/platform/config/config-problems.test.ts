import { expect, test } from "bun:test";

import { Env, VARIABLES, readConfig } from "../../../src/platform/config/config.ts";
import { codeOf, readPage, tableRows } from "../../support/markdown.ts";
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
    COMPRESSION_THRESHOLD: "-1",
    RECORD_CANVAS: "x",
    CANVAS_QUALITY: "standard",
    CANVAS_FPS: "61",
    PROTOCOL_VERSION: "3",
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

test("every problem is in one message, of whatever kind it is", () => {
  const problems = problemsOf({
    PORT: "http",
    DATABASE_URL: "mysql://x",
    S3_ENDPOINT: "localhost:9000",
    BEACON_SIZE_LIMIT: "1",
    MOBILE_QUALITY: "ultra",
    STRICT_FRAMING: "perhaps",
    TRUSTED_PROXIES: "10.0.0.0/8, nonsense",
    LOG_LEVEL: "loud",
  });
  expect(problems.toSorted()).toEqual([
    "BEACON_SIZE_LIMIT must be >= 1024",
    "DATABASE_URL must begin with postgres:// or postgresql://",
    "LOG_LEVEL must be one of trace, debug, info, warn, error, fatal, silent",
    "MOBILE_QUALITY must be one of low, standard, high",
    "PORT must be integer",
    "S3_BUCKET is required once S3_ENDPOINT is set",
    'S3_ENDPOINT must match pattern "^https?://"',
    "STRICT_FRAMING must be boolean",
    "TOKEN_SECRET is required once DATABASE_URL is set",
    'TRUSTED_PROXIES "nonsense" is not an address or a CIDR range',
  ]);
});

test("one bad variable hides nothing between others", () => {
  const env = { PORT: "x", COMMIT_BYTES: String(4 * MIB), INFLIGHT_BYTES_MAX: String(2 * MIB) };
  expect(problemsOf(env)).toEqual([
    "PORT must be integer",
    "INFLIGHT_BYTES_MAX must be at least COMMIT_BYTES",
  ]);
});

test("docs/configuration.md has every variable with its default, and no other", () => {
  const rows = tableRows("docs/configuration.md").map(
    ([name, , usual]) => `${codeOf(name)}=${codeOf(usual) ?? ""}`,
  );
  // A default that is empty, or found elsewhere, is described in words.
  const variables = Object.entries(Env.properties).map(
    ([name, schema]) => `${name}=${"default" in schema ? String(schema.default) : ""}`,
  );
  expect(rows.toSorted()).toEqual(variables.toSorted());
});

test(".env.example lists every variable and no other, and sets none to anything but its default", () => {
  const listed = [...readPage(".env.example").matchAll(/^(# )?(\w+)=(.*)/gm)];
  const names = listed.map(([, , name = ""]) => name);
  // A variable that is an alternative may be mentioned in another's description.
  const text = readPage(".env.example");
  expect(VARIABLES.filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
  expect(names.filter((name) => !VARIABLES.includes(name))).toEqual([]);
  const set = listed.filter(([, comment]) => comment === undefined);
  expect(set.length).toBeGreaterThan(20);
  expect(
    readConfig(Object.fromEntries(set.map(([, , name = "", value]) => [name, value]))),
  ).toEqual(readConfig({}));
});

test.each<[string, string, string]>([
  ["PORT", "1.5", "PORT must be integer"],
  ["PORT", "0x50", "PORT must be integer"],
  ["PORT", "true", "PORT must be integer"],
  ["WORKERS", "2.9", "WORKERS must be integer"],
  ["WORKERS", "1e2", "WORKERS must be integer"],
  ["ARCHIVE_AFTER_S", "1e2", "ARCHIVE_AFTER_S must be number"],
  ["FEED_HOURS", "0", "FEED_HOURS must be > 0"],
  ["OBJECT_GRACE_S", ".5", "OBJECT_GRACE_S must be number"],
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
