import { Redis } from "ioredis";

import { isOfReplica } from "./redis-advice.ts";

const COMMAND_MS = 1000;
const SILENCE_MS = 3000;
const RECONNECT_MS_MAX = 1000;
// Least time between two reconnects because of a replica that answers in place of the primary and
// refuses every write.
const ELSEWHERE_MS = 1000;

/**
 * Opens a client that keeps nobody waiting: a command fails at once while Redis is unreachable, and
 * after a second if Redis is silent. Reconnects within a second.
 */
export function openRedis(url: string): Redis {
  let leftMs = Number.NEGATIVE_INFINITY;
  const redis = new Redis(url, {
    connectionName: "floodgate",
    connectTimeout: SILENCE_MS,
    commandTimeout: COMMAND_MS,
    socketTimeout: SILENCE_MS,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    // Off: the ready check needs INFO, which a user may be denied. The bus checks with a write
    // instead.
    enableReadyCheck: false,
    retryStrategy: (attempt) =>
      Math.min(50 * 2 ** attempt, RECONNECT_MS_MAX) * (0.5 + Math.random() / 2),
    // Reconnect: after a failover the same address may lead to another server.
    reconnectOnError: ({ message }) => {
      const nowMs = performance.now();
      if (!isOfReplica(message) || nowMs - leftMs < ELSEWHERE_MS) return false;
      leftMs = nowMs;
      return true;
    },
  });
  // Each command reports errors itself; without a listener the client would print them, too.
  redis.on("error", () => undefined);
  return redis;
}
