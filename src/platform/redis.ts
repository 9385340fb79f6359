import { Redis } from "ioredis";

const COMMAND_MS = 1000;
const SILENCE_MS = 3000;
const RECONNECT_MS_MAX = 1000;

/**
 * A client that never makes anyone wait: a command fails at once while Redis is away and after a second when it is silent,
 * and the connection is made again within a second.
 */
export function openRedis(url: string): Redis {
  const redis = new Redis(url, {
    connectionName: "floodgate",
    connectTimeout: SILENCE_MS,
    commandTimeout: COMMAND_MS,
    socketTimeout: SILENCE_MS,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (attempt) =>
      Math.min(50 * 2 ** attempt, RECONNECT_MS_MAX) * (0.5 + Math.random() / 2),
  });
  // Each command tells of it; without a listener the client would print it.
  redis.on("error", () => undefined);
  return redis;
}
