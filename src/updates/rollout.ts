const BUCKETS = 2 ** 48;

/**
 * Returns whether a device is among the first `percent` of all devices, in an order of the build's
 * own: a device that is in stays in as the share grows.
 */
export function isIn(buildId: number, device: string, percent: number): boolean {
  if (percent >= 100) return true;
  const digest = new Bun.CryptoHasher("sha256").update(`${buildId}:${device}`).digest();
  return (digest.readUIntBE(0, 6) / BUCKETS) * 100 < percent;
}
