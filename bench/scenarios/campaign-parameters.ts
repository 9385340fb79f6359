import type { Options } from "../options.ts";

const FULL = {
  devices: 1_000_000,
  /** So many devices meet each of the conditions that are searched for. */
  matching: 1000,
  searches: 200,
  /** What a push takes at the provider. */
  latencyMs: 100,
  /** What comes in while a campaign is sent. */
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
