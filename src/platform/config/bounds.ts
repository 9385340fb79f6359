import { Type } from "typebox";

/** Schema of a positive number or `off`. */
const bound = (usual: number) =>
  Type.String({ pattern: "^(off|[1-9][0-9]{0,8})$", default: String(usual) });

/**
 * Limits that keep untrusted clients from growing a process or a database, by variable. The
 * defaults are too high for real apps to reach: a carrier's NAT with a hundred session starts a
 * second is one address.
 */
export const BOUNDS = {
  RATE_LIMIT_STARTS: bound(1000),
  RATE_LIMIT_STARTS_ADDRESS: bound(100),
  RATE_LIMIT_INSTALLS: bound(1000),
  RATE_LIMIT_INSTALLS_ADDRESS: bound(100),
  // Each recorded session sends at least one image every ten seconds.
  RATE_LIMIT_IMAGE_NAMES: bound(10_000),
  RATE_LIMIT_IMAGE_NAMES_ADDRESS: bound(1000),
  // A newly started process knows no users: the first ping of every user counts.
  RATE_LIMIT_PRESENCE_USERS: bound(5000),
  RATE_LIMIT_PRESENCE_USERS_ADDRESS: bound(500),
  // More requests than arrive in fifteen seconds while the store is stuck, at 16 KiB each.
  REQUESTS_MAX: bound(30_000),
  PRESENCE_CONNECTIONS: bound(50_000),
  PRESENCE_CONNECTIONS_ADDRESS: bound(10_000),
  PRESENCE_CONNECTIONS_USER: bound(100),
  PRESENCE_WATCHED: bound(500_000),
  PRESENCE_WATCHED_USER: bound(10_000),
};

type Values = Record<keyof typeof BOUNDS, string>;

export type RowLimitOptions = { perSecond: number | undefined; perAddress: number | undefined };
export type PresenceBounds = ReturnType<typeof presenceBounds>;

/** Rows per second, per process and per client address; undefined means no limit. */
export function rowLimits(values: Values) {
  const of = (kind: "STARTS" | "INSTALLS" | "IMAGE_NAMES" | "PRESENCE_USERS"): RowLimitOptions => ({
    perSecond: numberOf(values[`RATE_LIMIT_${kind}`]),
    perAddress: numberOf(values[`RATE_LIMIT_${kind}_ADDRESS`]),
  });
  return {
    starts: of("STARTS"),
    installs: of("INSTALLS"),
    image_names: of("IMAGE_NAMES"),
    presence_users: of("PRESENCE_USERS"),
  };
}

/** Presence limits per process; undefined means no limit. */
export function presenceBounds(values: Values) {
  return {
    connections: numberOf(values.PRESENCE_CONNECTIONS),
    connectionsOfAddress: numberOf(values.PRESENCE_CONNECTIONS_ADDRESS),
    connectionsOfUser: numberOf(values.PRESENCE_CONNECTIONS_USER),
    watched: numberOf(values.PRESENCE_WATCHED),
    watchedByUser: numberOf(values.PRESENCE_WATCHED_USER),
  };
}

/** Returns undefined for `off`. */
export function numberOf(bounded: string): number | undefined {
  return bounded === "off" ? undefined : Number(bounded);
}
