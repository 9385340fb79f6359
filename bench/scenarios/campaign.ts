import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { measureBeside } from "./campaign-beside.ts";
import { measureImport } from "./campaign-import.ts";
import { measureLaunch } from "./campaign-launch.ts";
import { type CampaignParameters, campaignParameters } from "./campaign-parameters.ts";
import { measureSearch } from "./campaign-search.ts";
import type { Context } from "./measure.ts";

const PHASES: Record<string, (context: Context<CampaignParameters>) => Promise<void>> = {
  search: measureSearch,
  launch: measureLaunch,
  beside: measureBeside,
};

export const campaignPhases = Object.keys(PHASES);

/** Imports a million devices, searches them, and sends to them. */
export async function runCampaign(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<CampaignParameters> {
  const parameters = campaignParameters(options);
  const context = { harness, findings, parameters };
  await measureImport(context);
  for (const phase of options.phases) await PHASES[phase]?.(context);
  return parameters;
}
