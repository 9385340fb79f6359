import type { Options } from "../options.ts";

const FULL = {
  devices: 1_000_000,
  /** Number of devices that meet each condition of the search phase. */
  matching: 1000,
  searches: 200,
  /** Latency of a push at the provider. */
  latencyMs: 100,
  /** Load of batches while a campaign is sent. */
  beside: { rate: 1000, batchBytes: 16_384, connections: 256, warmupSeconds: 3, seconds: 30 },
};

export type CampaignParameters = typeof FULL;

const QUICK: CampaignParameters = {
  ...FULL,
  devices: 50_000,
  searches: 20,
  beside: { ...FULL.beside, warmupSeconds: 0.5, seconds: 1 },
};

export function campaignParameters(options: Options): CampaignParameters {
  return options.quick ? QUICK : FULL;
}
