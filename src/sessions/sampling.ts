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
 * Returns whether the device is recorded. The result stays the same for a project, a user and a UTC
 * day: otherwise a client that retries a refused start would be admitted sooner or later.
 */
export function isSampled({ projectId, rate, userUUID, address, userAgent, now }: Draw): boolean {
  const day = Math.floor(now / DAY_MS);
  const who = userUUID ?? `${address} ${userAgent}`;
  return (Bun.hash.xxHash32(`${projectId} ${day} ${who}`) / 2 ** 32) * 100 < rate;
}
