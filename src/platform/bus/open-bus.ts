import { type Redis } from "ioredis";

import { type Bus } from "./bus.ts";
import { type Config } from "../config/config.ts";
import { type Sql, openDatabase } from "../database/database.ts";
import { type Log } from "../logger.ts";
import { PostgresBus } from "./postgres-bus.ts";

export type OpenBus = AsyncDisposable & { bus: Bus; redis: Redis | undefined };

/** Opens the bus between processes: over Redis if configured, else over PostgreSQL. */
export async function openBus(config: Config, sql: Sql, log: Log): Promise<OpenBus> {
  const { redis: named } = config;
  if (named === undefined) return await openPostgresBus(config, sql, log);
  // Imported only when needed, to save memory on servers without Redis.
  const { openRedis } = await import("./redis.ts");
  const { RedisBus } = await import("./redis-bus.ts");
  const redis = openRedis(named.url);
  const owner = new AsyncDisposableStack();
  owner.defer(() => redis.disconnect());
  const bus = owner.use(new RedisBus(redis, { prefix: named.prefix, log }));
  return { bus, redis, [Symbol.asyncDispose]: async () => await owner.disposeAsync() };
}

/**
 * Opens a bus over PostgreSQL. Listens on a direct connection if one is configured, because a
 * transaction pooler would give the LISTEN session to other clients.
 */
async function openPostgresBus(
  { databaseDirectUrl }: Config,
  sql: Sql,
  log: Log,
): Promise<OpenBus> {
  await using opening = new AsyncDisposableStack();
  const listener =
    databaseDirectUrl === undefined
      ? sql
      : opening.use(openDatabase(databaseDirectUrl, { connections: 1, log }));
  const bus = opening.use(await PostgresBus.open({ sql, listener }, log));
  const owner = opening.move();
  return { bus, redis: undefined, [Symbol.asyncDispose]: async () => await owner.disposeAsync() };
}
