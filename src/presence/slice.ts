import { type Clients } from "../platform/http/clients.ts";
import { type Clock, SYSTEM_CLOCK } from "../platform/clock.ts";
import { type Config } from "../platform/config/config.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type OpenBus } from "../platform/bus/open-bus.ts";
import { type RowLimit } from "../platform/http/rate-limits.ts";
import { Callers } from "./caller.ts";
import { Connections } from "./watch/connections.ts";
import { Hub } from "./watch/hub.ts";
import { LastSeen } from "./last-seen.ts";
import { RedisDevices } from "./redis-devices.ts";
import { presenceRoutes, tokenRoutes } from "./routes.ts";
import { NewUsers } from "./new-users.ts";
import { Seats } from "./watch/seats.ts";
import { Presence } from "./service.ts";
import { DeviceStore } from "./store.ts";
import { UserTokens } from "./user-tokens.ts";

export type PresenceSliceDeps = {
  config: Config;
  sql: Sql;
  log: Log;
  open: OpenBus;
  clock?: Clock;
  metrics: Metrics;
  clients: Clients;
  /** Rate limit for users that were never seen before. */
  limit: RowLimit;
};

/** Builds the services and routes of presence. */
export function buildPresence(deps: PresenceSliceDeps) {
  const { config, sql, log, open, clock = SYSTEM_CLOCK, metrics, clients, limit } = deps;
  const { presenceTtlMs: ttlMs, redis: named } = config;
  const { bus, redis } = open;
  const lastSeen = new LastSeen(sql, log, ttlMs);
  const redisDevices = redis && named && new RedisDevices(redis, named.prefix, ttlMs);
  const isRedisCurrent = () => bus.isUp;
  const store = new DeviceStore({ lastSeen, redis: redisDevices, isRedisCurrent, clock, log });
  const load = async (userids: string[]) => await store.load(userids);
  const hub = new Hub({ load, clock, ttlMs, metrics });
  const connections = new Connections(clock);
  const seats = new Seats(config.presenceBounds, metrics);
  // While no store answers every user counts as known, so that presence goes on.
  const isKnown = async (userid: string) => {
    const { users, isRead } = await store.load([userid]);
    return !isRead || users.has(userid);
  };
  const newUsers = new NewUsers({ limit, isKnown });
  const presence = new Presence({
    hub,
    store,
    newUsers,
    connections,
    bus,
    clock,
    ttlMs,
    metrics,
    log,
  });
  const tokens = new UserTokens(config.tokenSecrets);
  const callers = new Callers({ clients, tokens, clock, log });
  const routes = [
    presenceRoutes({ presence, hub, seats, callers, clients }),
    tokenRoutes({ tokens, clock }),
  ];
  return { presence, routes };
}
