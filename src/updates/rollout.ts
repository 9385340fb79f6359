const BUCKETS = 2 ** 48;

/** Whether a device belongs to the first `percent` of all devices in a build's own order: who is in stays in as the share grows. */
export function isIn(buildId: number, device: string, percent: number): boolean {
  if (percent >= 100) return true;
  const digest = new Bun.CryptoHasher("sha256").update(`${buildId}:${device}`).digest();
  return (digest.readUIntBE(0, 6) / BUCKETS) * 100 < percent;
}
