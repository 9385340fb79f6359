import { availableParallelism } from "node:os";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { BOUNDS, numberOf, presenceBounds, rowLimits } from "./bounds.ts";
import { environmentProblems } from "./config-problems.ts";
import { isDecimal, isWholeNumber, list, parseOrigin } from "./config-values.ts";
import { readDatabase } from "./database-config.ts";
import { PUSH_VARIABLES, pushConfig } from "./push-config.ts";
import { UsageError } from "../errors.ts";

const MIB = 2 ** 20;
// host:port or :port; an IPv6 host stands in brackets.
const ADDRESS = String.raw`^(?:[^:\s]*|\[[0-9a-fA-F:.]+\]):\d{1,5}$`;
const LISTEN_DEFAULT = ":8080";
// A time that may be a fraction.
const time = (usual: number, maximum: number) =>
  Type.Number({ exclusiveMinimum: 0, maximum, default: usual });
// Requests per second.
const RATE = Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 }));

/** Schema of the environment; docs/configuration.md has the same variables and defaults. */
export const Env = Type.Object({
  PORT: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
  HOST: Type.Optional(Type.String({ minLength: 1 })),
  LISTEN: Type.String({ pattern: ADDRESS, default: LISTEN_DEFAULT }),
  METRICS_PORT: Type.Optional(Type.Integer({ minimum: 0, maximum: 65_535 })),
  DATA_DIR: Type.String({ minLength: 1, default: "./.data" }),
  DATABASE_URL: Type.Optional(Type.String()),
  DATABASE_DIRECT_URL: Type.Optional(Type.String()),
  DATABASE_POOLER: Type.Optional(Type.Enum(["transaction"])),
  S3_BUCKET: Type.Optional(Type.String({ minLength: 1 })),
  S3_ENDPOINT: Type.Optional(Type.String({ pattern: "^https?://" })),
  S3_REGION: Type.Optional(Type.String({ minLength: 1 })),
  S3_FORCE_PATH_STYLE: Type.Optional(Type.Boolean()),
  AWS_REGION: Type.Optional(Type.String()),
  AWS_DEFAULT_REGION: Type.Optional(Type.String()),
  AWS_ACCESS_KEY_ID: Type.Optional(Type.String()),
  AWS_SECRET_ACCESS_KEY: Type.Optional(Type.String()),
  AWS_SESSION_TOKEN: Type.Optional(Type.String()),
  WORKERS: Type.Optional(Type.Integer({ minimum: 1, maximum: 256 })),
  REDIS_URL: Type.Optional(Type.String({ pattern: "^rediss?://" })),
  REDIS: Type.Optional(Type.String({ pattern: ADDRESS })),
  REDIS_PREFIX: Type.String({ default: "floodgate:" }),
  PRESENCE_TTL_S: Type.Integer({ minimum: 1, maximum: 86_400, default: 60 }),
  TOKEN_SECRET: Type.String({ default: "" }),
  SERVER_KEYS: Type.String({ default: "" }),
  TRUSTED_PROXIES: Type.String({ default: "" }),
  BEACON_SIZE_LIMIT: Type.Integer({ minimum: 1024, maximum: 64 * MIB, default: 1_000_000 }),
  JSON_SIZE_LIMIT: Type.Integer({ minimum: 256, maximum: 16 * MIB, default: 131_072 }),
  FILE_SIZE_LIMIT: Type.Integer({ minimum: 1024, default: 10_000_000 }),
  MOBILE_QUALITY: Type.Enum(["low", "standard", "high"], { default: "low" }),
  MOBILE_FPS: Type.Integer({ minimum: 1, maximum: 60, default: 1 }),
  COMPRESSION_THRESHOLD: Type.Integer({ minimum: 0, maximum: 64 * MIB, default: 20_000 }),
  RECORD_CANVAS: Type.Boolean({ default: false }),
  CANVAS_QUALITY: Type.Enum(["low", "medium", "high"], { default: "low" }),
  CANVAS_FPS: Type.Integer({ minimum: 1, maximum: 60, default: 1 }),
  PROTOCOL_VERSION: Type.Integer({ minimum: 1, maximum: 2, default: 2 }),
  IMAGES_HASH_LIST: Type.Enum(["on", "off"], { default: "on" }),
  COMMIT_INTERVAL_MS: Type.Integer({ minimum: 1, maximum: 10_000, default: 250 }),
  COMMIT_BYTES: Type.Integer({ minimum: 64 * 1024, maximum: 256 * MIB, default: 8 * MIB }),
  INFLIGHT_BYTES_MAX: Type.Integer({ minimum: MIB, default: 256 * MIB }),
  STRICT_FRAMING: Type.Boolean({ default: false }),
  RATE_LIMIT_PROJECT: RATE,
  RATE_LIMIT_SESSION: RATE,
  RATE_LIMIT_ADDRESS: RATE,
  ...BOUNDS,
  QUOTA_BYTES_PER_DAY: Type.Optional(
    Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  ),
  ...PUSH_VARIABLES,
  dest_uri: Type.Optional(Type.String({ pattern: "^https?://" })),
  source_uri: Type.Optional(Type.String({ pattern: "^https?://" })),
  UPDATE_SIZE_LIMIT: Type.Integer({ minimum: 1024, maximum: 64 * 1024 * MIB, default: 4096 * MIB }),
  UPDATE_PUBLIC_KEY: Type.Optional(Type.String({ minLength: 1 })),
  DOWNLOAD_REDIRECT: Type.Boolean({ default: false }),
  DOWNLOAD_CACHE_BYTES: Type.Integer({ minimum: 0, default: 256 * MIB }),
  ARCHIVE_AFTER_S: time(3600, 30 * 86_400),
  FEED_HOURS: time(24, 30 * 24),
  OBJECT_GRACE_S: time(600, 86_400),
  GEOIP_DB: Type.Optional(Type.String({ minLength: 1 })),
  CORS_ORIGINS: Type.String({ default: "" }),
  LOG_LEVEL: Type.Enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"], {
    default: "info",
  }),
});

/** Names of all environment variables. */
export const VARIABLES = Object.keys(Env.properties);

/** Schema of two variables that are compared: both must be valid, whatever the others are. */
const COMMIT = Type.Pick(Env, ["COMMIT_BYTES", "INFLIGHT_BYTES_MAX"]);

export type S3Config = {
  bucket: string;
  /** Undefined: the region of AWS_PROFILE, or else us-east-1. */
  region?: string | undefined;
  endpoint?: string | undefined;
  /** Undefined: path style if an endpoint is set. */
  forcePathStyle?: boolean | undefined;
  /** Undefined: the SDK looks for credentials itself, and renews them. */
  accessKeyId?: string | undefined;
  secretAccessKey?: string | undefined;
  sessionToken?: string | undefined;
};

export type Config = Readonly<ReturnType<typeof readConfig>>;

/** The only reader of the environment. Throws one UsageError that names every bad variable. */
export function readConfig(env: Record<string, string | undefined> = process.env) {
  const set = Object.entries(env).filter(([name, value]) => name in Env.properties && value !== "");
  const values = valuesOf(Object.fromEntries(set));
  const isValid = Value.Check(Env, values);
  const problems = problemsOf(values);
  const tokenSecrets = list(env["TOKEN_SECRET"]);
  // Checks the variables themselves, so that one invalid value does not hide other problems.
  if (env["DATABASE_URL"] && tokenSecrets.length === 0)
    problems.push("TOKEN_SECRET is required once DATABASE_URL is set");
  if (env["S3_ENDPOINT"] && !env["S3_BUCKET"])
    problems.push("S3_BUCKET is required once S3_ENDPOINT is set");
  problems.push(...environmentProblems(env));
  const database = readDatabase(env);
  problems.push(...database.problems);
  if (Value.Check(COMMIT, values) && values.COMMIT_BYTES > values.INFLIGHT_BYTES_MAX)
    problems.push("INFLIGHT_BYTES_MAX must be at least COMMIT_BYTES");
  const address = env["LISTEN"] || LISTEN_DEFAULT;
  const listen = splitAddress(address);
  if (Value.Check(Env.properties.LISTEN, address) && listen.port > 65_535)
    problems.push("LISTEN has a port above 65535");
  if (!isValid || problems.length > 0) throw configError(problems);

  return {
    port: values.PORT ?? listen.port,
    host: values.HOST ?? (listen.host || "0.0.0.0"),
    metricsPort: values.METRICS_PORT,
    dataDir: values.DATA_DIR,
    databaseUrl: database.url,
    databaseDirectUrl: database.directUrl,
    warnings: database.warnings,
    s3: values.S3_BUCKET === undefined ? undefined : s3Config(values, values.S3_BUCKET),
    tokenSecrets,
    serverKeys: list(values.SERVER_KEYS),
    redis: redisConfig(values),
    // The embedded database suggests a trial, for which one process is enough.
    workers: values.WORKERS ?? (values.DATABASE_URL === undefined ? 1 : availableParallelism()),
    presenceTtlMs: values.PRESENCE_TTL_S * 1000,
    trustedProxies: list(values.TRUSTED_PROXIES),
    corsOrigins: list(values.CORS_ORIGINS).map((origin) => parseOrigin(origin) ?? origin),
    beaconBytesMax: values.BEACON_SIZE_LIMIT,
    jsonBytesMax: values.JSON_SIZE_LIMIT,
    fileBytesMax: values.FILE_SIZE_LIMIT,
    mobile: { quality: values.MOBILE_QUALITY, fps: values.MOBILE_FPS },
    web: {
      compressionThreshold: values.COMPRESSION_THRESHOLD,
      recordCanvas: values.RECORD_CANVAS,
      canvasQuality: values.CANVAS_QUALITY,
      canvasFps: values.CANVAS_FPS,
      protocolVersion: values.PROTOCOL_VERSION,
    },
    imagesHashList: values.IMAGES_HASH_LIST === "on",
    commit: { intervalMs: values.COMMIT_INTERVAL_MS, bytes: values.COMMIT_BYTES },
    inflightBytesMax: values.INFLIGHT_BYTES_MAX,
    strictFraming: values.STRICT_FRAMING,
    rateLimits: {
      project: values.RATE_LIMIT_PROJECT,
      session: values.RATE_LIMIT_SESSION,
      address: values.RATE_LIMIT_ADDRESS,
    },
    rowLimits: rowLimits(values),
    presenceBounds: presenceBounds(values),
    requestsMax: numberOf(values.REQUESTS_MAX),
    quotaBytesPerDay: values.QUOTA_BYTES_PER_DAY,
    push: pushConfig(values),
    updates: updatesConfig(values),
    archives: archivesConfig(values),
    geoipPath: values.GEOIP_DB,
    logLevel: values.LOG_LEVEL,
  };
}

function s3Config(values: Type.Static<typeof Env>, bucket: string): S3Config {
  const given = {
    // AWS tools read either of the two variables.
    region: values.S3_REGION ?? values.AWS_REGION ?? values.AWS_DEFAULT_REGION,
    endpoint: values.S3_ENDPOINT,
    forcePathStyle: values.S3_FORCE_PATH_STYLE,
    accessKeyId: values.AWS_ACCESS_KEY_ID,
    secretAccessKey: values.AWS_SECRET_ACCESS_KEY,
    sessionToken: values.AWS_SESSION_TOKEN,
  };
  return { bucket, ...given };
}

/** Returns undefined bases for links that lead to this server itself. */
function updatesConfig(values: Type.Static<typeof Env>) {
  return {
    destUri: values.dest_uri?.replace(/\/+$/, ""),
    sourceUri: values.source_uri?.replace(/\/+$/, ""),
    bytesMax: values.UPDATE_SIZE_LIMIT,
    publicKey: values.UPDATE_PUBLIC_KEY,
    redirect: values.DOWNLOAD_REDIRECT,
    // No cache without S3: files are sent from the local disk.
    cacheBytes: values.S3_BUCKET === undefined ? 0 : values.DOWNLOAD_CACHE_BYTES,
  };
}

function archivesConfig(values: Type.Static<typeof Env>) {
  const [afterS, feedS] = [values.ARCHIVE_AFTER_S, values.FEED_HOURS * 3600];
  const graceS = values.OBJECT_GRACE_S;
  // Working processes look for what is due as often as the shortest time asks for.
  const everyMs = Math.min(60_000, Math.max(250, 1000 * Math.min(afterS, feedS, graceS)));
  return { afterS, feedS, graceS, everyMs };
}

/** Reads `REDIS_URL`, or else `REDIS`: the old heartbeat service's name for an address. */
function redisConfig({ REDIS_URL, REDIS, REDIS_PREFIX }: Type.Static<typeof Env>) {
  const url = REDIS_URL ?? (REDIS && `redis://${REDIS.startsWith(":") ? "localhost" : ""}${REDIS}`);
  return url === undefined ? undefined : { url, prefix: REDIS_PREFIX };
}

function splitAddress(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(":");
  return {
    host: address.slice(0, colon).replace(/^\[(.*)\]$/, "$1"),
    port: Number(address.slice(colon + 1)),
  };
}

/**
 * Converts texts to the types of their variables. Numbers that are not in plain digits stay texts,
 * which the schema then refuses.
 */
function valuesOf(set: Record<string, string | undefined>): unknown {
  const properties: Record<string, object> = Env.properties;
  const odd = Object.entries(set).filter(([name, text = ""]) => !isPlain(properties[name], text));
  const converted = Value.Convert(Env, Value.Default(Env, { ...set }));
  return typeof converted === "object" ? { ...converted, ...Object.fromEntries(odd) } : converted;
}

/** Returns false for numbers that are not written in plain digits. */
function isPlain(schema: object = {}, text: string): boolean {
  if (!("type" in schema)) return true;
  if (schema.type === "integer") return isWholeNumber(text);
  return schema.type !== "number" || isDecimal(text);
}

/**
 * Returns one line per invalid variable. Validates each separately, because the library stops after
 * eight errors.
 */
function problemsOf(values: unknown): string[] {
  const given = Value.Parse(Type.Record(Type.String(), Type.Unknown()), values);
  return Object.entries(Env.properties).flatMap(([name, schema]) =>
    name in given
      ? Value.Errors(schema, given[name])
          .slice(0, 1)
          .map((error) => describe(name, error))
      : [],
  );
}

function describe(
  name: string,
  { message, ...error }: ReturnType<typeof Value.Errors>[number],
): string {
  return error.keyword === "enum"
    ? `${name} must be one of ${error.params.allowedValues.join(", ")}`
    : `${name} ${message}`;
}

function configError(problems: string[]): UsageError {
  return new UsageError(`bad configuration: ${problems.join("; ")}`);
}
