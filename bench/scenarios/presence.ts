import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import type { Context } from "./measure.ts";
import { measureFanOut } from "./presence-fan-out.ts";
import { measureIdle } from "./presence-idle.ts";
import { measureLatency } from "./presence-latency.ts";
import { type PresenceParameters, presenceParameters } from "./presence-parameters.ts";
import { measureStalled } from "./presence-stalled.ts";

const PHASES: Record<string, (context: Context<PresenceParameters>) => Promise<void>> = {
  idle: measureIdle,
  "fan-out": measureFanOut,
  latency: measureLatency,
  stalled: measureStalled,
};

export const presencePhases = Object.keys(PHASES);

/** Measures presence with thousands of subscribers. */
export async function runPresence(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<PresenceParameters> {
  const parameters = presenceParameters(options);
  for (const phase of options.phases) await PHASES[phase]?.({ harness, findings, parameters });
  return parameters;
}
