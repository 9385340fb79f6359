import { UsageError } from "../errors.ts";

const SSL_MODES = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] as const;
export type SslMode = (typeof SSL_MODES)[number];

const SESSION_ATTRS = [
  "any",
  "read-write",
  "read-only",
  "primary",
  "standby",
  "prefer-standby",
] as const;
export type SessionAttrs = (typeof SESSION_ATTRS)[number];

export type Tls = {
  mode: SslMode;
  /** Path of a file, or `system`. */
  rootCert: string | undefined;
  cert: string | undefined;
  key: string | undefined;
  keyPassword: string | undefined;
  /** True for direct TLS, without an SSLRequest first. */
  direct: boolean;
};

/** Parameters in the query of a database URL. */
export type Parameters = {
  host: string[] | undefined;
  hostaddr: string[] | undefined;
  port: string[] | undefined;
  user: string | undefined;
  password: string | undefined;
  passfile: string | undefined;
  database: string | undefined;
  connectTimeoutS: number | undefined;
  tls: Tls;
  sessionAttrs: SessionAttrs;
  /** Session parameters of the startup message. */
  session: Record<string, string>;
  /** True if a transaction pooler is in between: each transaction may use another session. */
  isPooled: boolean;
  /** Names of parameters that are ignored. */
  dropped: string[];
};

/** Session parameters; `search_path` is not one of libpq's, but many drivers accept it. */
const SESSION = ["application_name", "options", "search_path"];
const NAMES = new Set(
  `host hostaddr port user password passfile dbname connect_timeout target_session_attrs pgbouncer
  sslmode ssl sslrootcert sslcert sslkey sslpassword sslnegotiation`
    .split(/\s+/)
    .concat(SESSION),
);
// Parameter names that may be shown in a message: others may be part of a password.
const NAME = /^[a-z][\w.-]{0,39}$/i;

/** Returns whether a `name=value` of a query has an effect. */
export function isKnown(pair: string): boolean {
  const [name = ""] = pair.split("=");
  return NAMES.has(decode(name, "parameters"));
}

/**
 * Parses the parameters. Throws UsageError. Drops unknown ones, which are meant for other drivers.
 */
export function readParameters(query: string): Parameters {
  const { values, dropped } = split(query);
  const get = (name: string) => values.get(name) || undefined;
  const list = (name: string) => get(name)?.split(",");
  const connectTimeout = get("connect_timeout");
  if (connectTimeout !== undefined && !/^-?\d{1,6}$/.test(connectTimeout))
    throw new UsageError("has a connect_timeout that is not a number of seconds");
  const pgbouncer = get("pgbouncer") ?? "false";
  if (pgbouncer !== "true" && pgbouncer !== "false")
    throw new UsageError("has a pgbouncer that is neither true nor false");
  return {
    host: list("host"),
    hostaddr: list("hostaddr"),
    port: list("port"),
    user: get("user"),
    password: get("password"),
    passfile: get("passfile"),
    database: get("dbname"),
    connectTimeoutS: connectTimeout === undefined ? undefined : seconds(Number(connectTimeout)),
    tls: readTls(get),
    sessionAttrs: oneOf(
      SESSION_ATTRS,
      "target_session_attrs",
      get("target_session_attrs") ?? "any",
    ),
    session: Object.fromEntries(
      SESSION.flatMap((name) => (get(name) === undefined ? [] : [[name, get(name) ?? ""]])),
    ),
    isPooled: pgbouncer === "true",
    dropped,
  };
}

function split(query: string): { values: Map<string, string>; dropped: string[] } {
  const values = new Map<string, string>();
  const dropped = new Set<string>();
  for (const pair of query.split("&").filter((text) => text !== "")) {
    const [, encoded = "", value] = /^([^=]*)(?:=(.*))?$/.exec(pair) ?? [];
    const name = decode(encoded, "parameters");
    if (NAMES.has(name) && value !== undefined) {
      values.set(name, decode(value, name));
      continue;
    }
    // Typical of a password with an unescaped question mark.
    if (pair.includes("@"))
      throw new UsageError('has an "@" among its parameters: in a user or password write ? as %3F');
    if (value === undefined) throw new UsageError('has a parameter without a "="');
    dropped.add(NAME.test(name) ? name : "one with an odd name");
  }
  return { values, dropped: [...dropped] };
}

function readTls(get: (name: string) => string | undefined): Tls {
  const rootCert = get("sslrootcert");
  const isSystem = rootCert === "system";
  const said = get("sslmode") ?? legacyMode(get("ssl"));
  const mode = oneOf(SSL_MODES, "sslmode", said ?? (isSystem ? "verify-full" : "prefer"));
  if (isSystem && mode !== "verify-full")
    throw new UsageError("has sslrootcert=system, which needs sslmode=verify-full");
  if (mode === "verify-ca" && rootCert === undefined)
    throw new UsageError("has sslmode=verify-ca, which needs an sslrootcert");
  const cert = get("sslcert");
  const key = get("sslkey");
  if ((cert === undefined) !== (key === undefined))
    throw new UsageError("needs sslcert and sslkey together");
  const negotiation = oneOf(
    ["postgres", "direct"],
    "sslnegotiation",
    get("sslnegotiation") ?? "postgres",
  );
  const direct = negotiation === "direct";
  if (direct && (mode === "disable" || mode === "allow" || mode === "prefer"))
    throw new UsageError(
      "has sslnegotiation=direct, which needs sslmode=require or a stricter one",
    );
  // A root certificate makes `require` verify the server's certificate, as in libpq.
  const strict = mode === "require" && rootCert !== undefined ? "verify-ca" : mode;
  return { mode: strict, rootCert, cert, key, keyPassword: get("sslpassword"), direct };
}

/** Translates `ssl`, an alternative of other drivers to sslmode. */
function legacyMode(ssl: string | undefined): string | undefined {
  return ssl === "true" ? "require" : ssl === "false" ? "disable" : ssl;
}

function oneOf<const Value extends string>(
  values: readonly Value[],
  name: string,
  given: string,
): Value {
  const value = values.find((one) => one === given);
  if (value === undefined)
    throw new UsageError(`has a ${name} that is not one of ${values.join(", ")}`);
  return value;
}

/** Converts connect_timeout as libpq does: 0 or less is infinite, and the minimum is 2 s. */
function seconds(given: number): number {
  return given <= 0 ? Number.POSITIVE_INFINITY : Math.max(2, given);
}

/** Percent-decodes a part of the URL; `part` is its name in the error message. */
export function decode(text: string, part: string): string {
  try {
    const decoded = decodeURIComponent(text);
    if (!decoded.includes("\0")) return decoded;
  } catch {
    // The error is thrown below.
  }
  throw new UsageError(
    `has a "%" in its ${part} that is not followed by the two digits of a character: write it as %25`,
  );
}
