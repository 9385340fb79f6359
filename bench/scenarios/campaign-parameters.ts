import type { Options } from "../options.ts";

const FULL = {
  devices: 1_000_000,
  /** So many devices meet each of the conditions that are searched for. */
  matching: 1000,
  searches: 200,
  /** What a push takes at the provider. */
  latencyMs: 100,
  launched: 200_000,
};

export type CampaignParameters = typeof FULL;

const QUICK: CampaignParameters = { ...FULL, devices: 20_000, searches: 20, launched: 10_000 };

export function campaignParameters(options: Options): CampaignParameters {
  return options.quick ? QUICK : FULL;
}
