const DAY_MS = 86_400_000;

export type Draw = {
  projectId: number;
  /** Percent of devices that are recorded: 0 none, 100 all. */
  rate: number;
  userUUID: string | undefined;
  address: string;
  userAgent: string;
  /** Epoch ms. */
  now: number;
};

/**
 * Whether this device is recorded. The draw holds for a project, a user and a UTC day: a client that retries a refused start
 * would otherwise be let in sooner or later, whatever the rate.
 */
export function isSampled({ projectId, rate, userUUID, address, userAgent, now }: Draw): boolean {
  const day = Math.floor(now / DAY_MS);
  const who = userUUID ?? `${address} ${userAgent}`;
  return (Bun.hash.xxHash32(`${projectId} ${day} ${who}`) / 2 ** 32) * 100 < rate;
}
