import { describe, expect, test } from "bun:test";

import { problemsOf } from "../../support/problems.ts";
import { readConfig } from "../../../src/platform/config/config.ts";

const MIB = 2 ** 20;

test("without variables everything has its documented default", () => {
  expect(readConfig({})).toEqual({
    port: 8080,
    host: "0.0.0.0",
    metricsPort: undefined,
    dataDir: "./.data",
    databaseUrl: undefined,
    databaseDirectUrl: undefined,
    warnings: [],
    s3: undefined,
    tokenSecrets: [],
    redis: undefined,
    workers: 1,
    presenceTtlMs: 60_000,
    serverKeys: [],
    trustedProxies: [],
    corsOrigins: [],
    beaconBytesMax: 1_000_000,
    jsonBytesMax: 131_072,
    fileBytesMax: 10_000_000,
    mobile: { quality: "low", fps: 1 },
    web: {
      compressionThreshold: 20_000,
      recordCanvas: false,
      canvasQuality: "low",
      canvasFps: 1,
      protocolVersion: 2,
    },
    imagesHashList: true,
    commit: { intervalMs: 250, bytes: 8 * MIB },
    inflightBytesMax: 256 * MIB,
    strictFraming: false,
    rateLimits: { project: undefined, session: undefined, address: undefined },
    rowLimits: expect.any(Object),
    presenceBounds: expect.any(Object),
    requestsMax: 30_000,
    quotaBytesPerDay: undefined,
    push: { fcm: undefined, apns: undefined, concurrency: 3000, perSecond: 10_000 },
    updates: {
      destUri: undefined,
      sourceUri: undefined,
      bytesMax: 4096 * MIB,
      publicKey: undefined,
      redirect: false,
      cacheBytes: 0,
    },
    archives: { afterS: 3600, feedS: 86_400, graceS: 600, everyMs: 60_000 },
    geoipPath: undefined,
    logLevel: "info",
  });
});

test("every variable is read", () => {
  const config = readConfig({
    PORT: "0",
    HOST: "127.0.0.1",
    METRICS_PORT: "9464",
    DATA_DIR: "/data",
    DATABASE_URL: "postgresql://a:b@c/d",
    DATABASE_DIRECT_URL: "postgresql://a:b@e/d",
    DATABASE_POOLER: "transaction",
    S3_BUCKET: "bucket",
    S3_ENDPOINT: "https://s3.example",
    S3_REGION: "eu-central-1",
    S3_FORCE_PATH_STYLE: "false",
    AWS_REGION: "eu-west-1",
    AWS_DEFAULT_REGION: "eu-west-2",
    AWS_ACCESS_KEY_ID: "id",
    AWS_SECRET_ACCESS_KEY: "key",
    AWS_SESSION_TOKEN: "token",
    WORKERS: "3",
    REDIS_URL: "redis://r:6380/1",
    REDIS_PREFIX: "fg:",
    PRESENCE_TTL_S: "5",
    TOKEN_SECRET: "new, old",
    SERVER_KEYS: "a,b , c,,",
    TRUSTED_PROXIES: "10.0.0.0/8, fd00::/8",
    BEACON_SIZE_LIMIT: "2000000",
    JSON_SIZE_LIMIT: "1000",
    FILE_SIZE_LIMIT: "400000000",
    MOBILE_QUALITY: "high",
    MOBILE_FPS: "3",
    COMPRESSION_THRESHOLD: "0",
    RECORD_CANVAS: "true",
    CANVAS_QUALITY: "high",
    CANVAS_FPS: "4",
    PROTOCOL_VERSION: "1",
    IMAGES_HASH_LIST: "off",
    COMMIT_INTERVAL_MS: "50",
    COMMIT_BYTES: "65536",
    INFLIGHT_BYTES_MAX: "1048576",
    STRICT_FRAMING: "true",
    RATE_LIMIT_PROJECT: "1000",
    RATE_LIMIT_SESSION: "2",
    RATE_LIMIT_ADDRESS: "50",
    QUOTA_BYTES_PER_DAY: "10000000000",
    FCM_CREDENTIALS: "/fcm.json",
    FCM_BASE_URL: "http://localhost:1",
    APNS_KEY: "/apns.p8",
    APNS_KEY_ID: "ABC",
    APNS_TEAM_ID: "DEF",
    APNS_TOPIC: "com.example",
    APNS_SANDBOX: "true",
    PUSH_CONCURRENCY: "10",
    PUSH_RATE: "500",
    dest_uri: "https://mirror.example/builds/",
    source_uri: "https://own.example/source",
    UPDATE_SIZE_LIMIT: "1000000",
    UPDATE_PUBLIC_KEY: "/key.pem",
    DOWNLOAD_REDIRECT: "true",
    DOWNLOAD_CACHE_BYTES: "1000",
    ARCHIVE_AFTER_S: "0.5",
    FEED_HOURS: "1.5",
    OBJECT_GRACE_S: "2",
    GEOIP_DB: "/city.mmdb",
    CORS_ORIGINS: "https://a.example",
    LOG_LEVEL: "debug",
  });
  expect(config).toEqual({
    port: 0,
    host: "127.0.0.1",
    metricsPort: 9464,
    dataDir: "/data",
    databaseUrl: "postgresql://a:b@c/d?pgbouncer=true",
    databaseDirectUrl: "postgresql://a:b@e/d",
    warnings: [],
    s3: {
      bucket: "bucket",
      region: "eu-central-1",
      endpoint: "https://s3.example",
      forcePathStyle: false,
      accessKeyId: "id",
      secretAccessKey: "key",
      sessionToken: "token",
    },
    tokenSecrets: ["new", "old"],
    redis: { url: "redis://r:6380/1", prefix: "fg:" },
    workers: 3,
    presenceTtlMs: 5000,
    serverKeys: ["a", "b", "c"],
    trustedProxies: ["10.0.0.0/8", "fd00::/8"],
    corsOrigins: ["https://a.example"],
    beaconBytesMax: 2_000_000,
    jsonBytesMax: 1000,
    fileBytesMax: 400_000_000,
    mobile: { quality: "high", fps: 3 },
    web: {
      compressionThreshold: 0,
      recordCanvas: true,
      canvasQuality: "high",
      canvasFps: 4,
      protocolVersion: 1,
    },
    imagesHashList: false,
    commit: { intervalMs: 50, bytes: 65_536 },
    inflightBytesMax: MIB,
    strictFraming: true,
    rateLimits: { project: 1000, session: 2, address: 50 },
    rowLimits: expect.any(Object),
    presenceBounds: expect.any(Object),
    requestsMax: 30_000,
    quotaBytesPerDay: 10_000_000_000,
    push: {
      fcm: { credentials: "/fcm.json", baseUrl: "http://localhost:1" },
      apns: {
        key: "/apns.p8",
        keyId: "ABC",
        teamId: "DEF",
        topic: "com.example",
        baseUrl: "https://api.sandbox.push.apple.com",
      },
      concurrency: 10,
      perSecond: 500,
    },
    updates: {
      destUri: "https://mirror.example/builds",
      sourceUri: "https://own.example/source",
      bytesMax: 1_000_000,
      publicKey: "/key.pem",
      redirect: true,
      cacheBytes: 1000,
    },
    archives: { afterS: 0.5, feedS: 5400, graceS: 2, everyMs: 500 },
    geoipPath: "/city.mmdb",
    logLevel: "debug",
  });
});

test("half of the APNs credentials is refused, naming the other half", () => {
  expect(problemsOf({ APNS_KEY: "/apns.p8", APNS_TOPIC: "com.example" })).toEqual([
    expect.stringMatching(/APNS_KEY_ID, APNS_TEAM_ID/),
  ]);
});

test.each<[string, { host: string; port: number }]>([
  [":9000", { host: "0.0.0.0", port: 9000 }],
  ["localhost:9000", { host: "localhost", port: 9000 }],
  ["[::1]:9000", { host: "::1", port: 9000 }],
])("LISTEN=%s is an address to listen on", (LISTEN, address) => {
  expect(readConfig({ LISTEN })).toMatchObject(address);
});

test("PORT and HOST win over LISTEN", () => {
  const config = readConfig({ LISTEN: "localhost:9000", PORT: "0", HOST: "127.0.0.1" });
  expect(config).toMatchObject({ host: "127.0.0.1", port: 0 });
});

test.each([
  [":6379", "redis://localhost:6379"],
  ["redis:6380", "redis://redis:6380"],
])("REDIS=%s is an address of Redis", (REDIS, url) => {
  expect(readConfig({ REDIS }).redis).toEqual({ url, prefix: "floodgate:" });
});

test("REDIS_URL wins over REDIS", () => {
  const config = readConfig({ REDIS: ":6379", REDIS_URL: "rediss://user:pass@r:1/2" });
  expect(config.redis?.url).toBe("rediss://user:pass@r:1/2");
});

test.each([{ LISTEN: "9000" }, { LISTEN: ":x" }, { LISTEN: ":65536" }, { REDIS: "redis" }])(
  "%p is refused",
  (env) => {
    const [name = ""] = Object.keys(env);
    expect(problemsOf(env)).toEqual([expect.stringContaining(name)]);
  },
);

test("an empty variable counts as absent, and one of another program is ignored", () => {
  const env = {
    PORT: "",
    DATABASE_URL: "",
    S3_BUCKET: "",
    TRUSTED_PROXIES: "",
    PATH: "/bin",
    port: "x",
  };
  expect(readConfig(env)).toEqual(readConfig({}));
});

describe("refused is", () => {
  test.each<[Record<string, string>, string]>([
    [{ PORT: "-1" }, "PORT must be >= 0"],
    [{ PORT: "65536" }, "PORT must be <= 65535"],
    [{ COMMIT_BYTES: "65535" }, "COMMIT_BYTES must be >= 65536"],
    [{ FILE_SIZE_LIMIT: "10_000" }, "FILE_SIZE_LIMIT must be integer"],
    [
      { TRUSTED_PROXIES: "10.0.0.0/33" },
      'TRUSTED_PROXIES "10.0.0.0/33" is not an address or a CIDR range',
    ],
    [{ DATABASE_URL: "postgres://x" }, "TOKEN_SECRET is required once DATABASE_URL is set"],
    [
      { DATABASE_URL: "postgres://x", TOKEN_SECRET: " , " },
      "TOKEN_SECRET is required once DATABASE_URL is set",
    ],
    [
      { COMMIT_BYTES: String(4 * MIB), INFLIGHT_BYTES_MAX: String(2 * MIB) },
      "INFLIGHT_BYTES_MAX must be at least COMMIT_BYTES",
    ],
    [
      { S3_BUCKET: "b", AWS_ACCESS_KEY_ID: "id" },
      "AWS_SECRET_ACCESS_KEY is required once AWS_ACCESS_KEY_ID is set",
    ],
    [
      { S3_BUCKET: "b", AWS_SECRET_ACCESS_KEY: "key" },
      "AWS_ACCESS_KEY_ID is required once AWS_SECRET_ACCESS_KEY is set",
    ],
    [
      { S3_BUCKET: "b", AWS_SESSION_TOKEN: "token" },
      "AWS_SESSION_TOKEN needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ],
    [{ S3_BUCKET: "b", S3_FORCE_PATH_STYLE: "host" }, "S3_FORCE_PATH_STYLE must be boolean"],
  ])("%j", (env, problem) => {
    expect(problemsOf(env)).toEqual([problem]);
  });

  test("what holds a secret, without showing it", () => {
    const env = {
      DATABASE_URL: "mysql://user:hunter2@host/db",
      TOKEN_SECRET: "hunter3",
      PORT: "x",
    };
    expect(problemsOf(env)).toHaveLength(2);
    expect(problemsOf(env).join()).not.toContain("hunter");
  });
});
