import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { measureCurve } from "./ingest-curve.ts";
import { measureFew } from "./ingest-few.ts";
import { measureNoClients } from "./ingest-no-clients.ts";
import { measureOverload } from "./ingest-overload.ts";
import { type IngestParameters, ingestParameters } from "./ingest-parameters.ts";
import { measureSaturation } from "./ingest-saturation.ts";
import { measureSoak } from "./ingest-soak.ts";
import { measureIdle, measureSteady } from "./ingest-steady.ts";
import { measureWeb } from "./ingest-web.ts";
import { measureWorkers } from "./ingest-workers.ts";
import type { Context } from "./measure.ts";

const PHASES: Record<string, (context: Context<IngestParameters>) => Promise<void>> = {
  saturation: measureSaturation,
  steady: measureSteady,
  idle: measureIdle,
  overload: measureOverload,
  curve: measureCurve,
  workers: measureWorkers,
  few: measureFew,
  "no-clients": measureNoClients,
  web: measureWeb,
  soak: measureSoak,
};

export const ingestPhases = Object.keys(PHASES);

/** Measures batches of SDKs, mobile ones if nothing else is said, from many sessions at once. */
export async function runIngest(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<IngestParameters> {
  const parameters = ingestParameters(options);
  for (const phase of options.phases) await PHASES[phase]?.({ harness, findings, parameters });
  return parameters;
}
