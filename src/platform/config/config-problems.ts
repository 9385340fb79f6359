import { isBaseUrl, list, parseAddressRange, parseOrigin } from "./config-values.ts";
import { PUSH_VARIABLES, pushProblems } from "./push-config.ts";
import { UsageError } from "../errors.ts";

/** Waits for two things, like `allUsable`. */
export async function bothUsable<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  await allUsable<unknown>([first, second]);
  return [await first, await second];
}

/**
 * Waits for things that are read from files which the configuration names. Throws one UsageError
 * that names all that are unusable.
 */
export async function allUsable<T>(things: Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(things);
  const reasons = settled.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
  if (reasons.length > 1 && reasons.every((reason) => reason instanceof UsageError))
    throw new UsageError(reasons.map(({ message }) => message).join("; "));
  return await Promise.all(things);
}

type Environment = Record<string, string | undefined>;

/**
 * Lists the problems that the schema of one variable cannot find. Checks the variables as they were
 * given, so that one bad value does not hide another.
 */
export function environmentProblems(env: Environment): string[] {
  return [...s3KeyProblems(env), ...listProblems(env), ...urlProblems(env), ...pushProblems(env)];
}

/**
 * Reports an incomplete key pair: the SDK would silently use other credentials than the ones meant.
 */
function s3KeyProblems(env: Environment): string[] {
  const [id, secret] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
  if (!env["S3_BUCKET"] || (env[id] && env[secret])) return [];
  if (env[id]) return [`${secret} is required once ${id} is set`];
  if (env[secret]) return [`${id} is required once ${secret} is set`];
  return env["AWS_SESSION_TOKEN"] ? [`AWS_SESSION_TOKEN needs ${id} and ${secret}`] : [];
}

function listProblems(env: Environment): string[] {
  const ranges = list(env["TRUSTED_PROXIES"]).filter(
    (range) => parseAddressRange(range) === undefined,
  );
  const origins = list(env["CORS_ORIGINS"]).filter(
    (origin) => origin !== "*" && parseOrigin(origin) === undefined,
  );
  return [
    ...ranges.map((range) => `TRUSTED_PROXIES "${range}" is not an address or a CIDR range`),
    ...origins.map(
      (origin) => `CORS_ORIGINS "${origin}" is not an origin such as https://app.example, or *`,
    ),
  ];
}

function urlProblems(env: Environment): string[] {
  const providers = Object.keys(PUSH_VARIABLES).filter((name) => name.endsWith("_BASE_URL"));
  const bases = ["S3_ENDPOINT", ...providers, "dest_uri", "source_uri"];
  const wrong = bases.filter((name) => isUrlShaped(env[name]) && !isBaseUrl(env[name] ?? ""));
  const redis = env["REDIS_URL"];
  if (isUrlShaped(redis) && !URL.canParse(redis ?? "")) wrong.push("REDIS_URL");
  return wrong.map((name) => `${name} is not a URL of a host, without a query`);
}

/** Returns whether the text begins like a URL; the pattern of its variable reports any other text. */
function isUrlShaped(text = ""): boolean {
  return /^(?:https?|rediss?):\/\//.test(text);
}
