import { Type } from "typebox";
import { Value } from "typebox/value";

import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { measureCheck } from "./updates-check.ts";
import { measureDownload } from "./updates-download.ts";
import {
  type UpdatesContext,
  updatesParameters,
  type UpdatesParameters,
} from "./updates-parameters.ts";
import { measurePublish } from "./updates-publish.ts";
import { measureRollout } from "./updates-rollout.ts";
import { measureSpread } from "./updates-spread.ts";

const PHASES: Record<string, (context: UpdatesContext) => Promise<void>> = {
  check: measureCheck,
  publish: measurePublish,
  download: measureDownload,
  rollout: measureRollout,
  spread: measureSpread,
};

export const updatesPhases = Object.keys(PHASES);

const Created = Type.Object({ signature: Type.String() });

/** Measures checks for newer builds, publishing, downloads, rollouts and the spread of changes. */
export async function runUpdates(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<UpdatesParameters> {
  const parameters = updatesParameters(options);
  const json = await harness.processes.run({
    script: options.server,
    args: ["signature", "create", "--role", "service", "--json"],
    env: harness.serverEnv(),
  });
  const { signature } = Value.Parse(Created, JSON.parse(json));
  for (const phase of options.phases)
    await PHASES[phase]?.({ harness, findings, parameters, signature });
  return parameters;
}
