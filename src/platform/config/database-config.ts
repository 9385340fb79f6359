import { UsageError } from "../errors.ts";
import { isKnown } from "./postgres-parameters.ts";
import { type PostgresUrl, parsePostgresUrl } from "./postgres-url.ts";

export type DatabaseConfig = {
  url: string | undefined;
  /** URL without a transaction pooler, for features that need a session of their own. */
  directUrl: string | undefined;
  problems: string[];
  warnings: string[];
};

/** Reads the database URLs. A pooler must be declared; from here on the URL itself says so. */
export function readDatabase(env: Record<string, string | undefined>): DatabaseConfig {
  const problems: string[] = [];
  const warnings: string[] = [];
  const read = (name: string) => readOne(name, env[name], problems, warnings);
  const main = read("DATABASE_URL");
  const direct = read("DATABASE_DIRECT_URL");
  const url = withoutDropped(env["DATABASE_URL"], main);
  const isNamed = env["DATABASE_POOLER"] === "transaction";
  const isPooled = isNamed || main?.isPooled === true;
  if (isNamed && url === undefined) problems.push("DATABASE_POOLER needs DATABASE_URL");
  if (direct !== undefined && url === undefined)
    problems.push("DATABASE_DIRECT_URL needs DATABASE_URL");
  if (direct?.isPooled === true)
    problems.push("DATABASE_DIRECT_URL has pgbouncer=true: it must reach PostgreSQL itself");
  const hasRedis = Boolean(env["REDIS_URL"] || env["REDIS"]);
  if (isPooled && !env["DATABASE_DIRECT_URL"] && !hasRedis)
    problems.push(
      "DATABASE_DIRECT_URL or REDIS_URL is required with a transaction pooler, through which processes cannot notify one another",
    );
  return {
    url: isPooled && url !== undefined && main?.isPooled === false ? pooled(url) : url,
    directUrl: withoutDropped(env["DATABASE_DIRECT_URL"], direct),
    problems,
    warnings,
  };
}

function readOne(
  name: string,
  value: string | undefined,
  problems: string[],
  warnings: string[],
): PostgresUrl | undefined {
  if (!value) return undefined;
  try {
    const url = parsePostgresUrl(value);
    if (url.dropped.length > 0)
      warnings.push(`${name} has parameters without effect here: ${url.dropped.join(", ")}`);
    return url;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    problems.push(`${name} ${error.message}`);
    return undefined;
  }
}

/**
 * Returns the URL without ignored parameters for child processes, which then need not warn again.
 */
function withoutDropped(
  url: string | undefined,
  read: PostgresUrl | undefined,
): string | undefined {
  if (!url || read === undefined || read.dropped.length === 0) return url || undefined;
  const [address = "", query = ""] = url.trim().split("?");
  const kept = query.split("&").filter((pair) => isKnown(pair));
  return kept.length === 0 ? address : `${address}?${kept.join("&")}`;
}

function pooled(url: string): string {
  const text = url.trim();
  return `${text}${text.includes("?") ? "&" : "?"}pgbouncer=true`;
}
