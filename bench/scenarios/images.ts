import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";

export const imagesPhases = ["large", "slow", "small"];
export async function runImages(
  _harness: Harness,
  _findings: Findings,
  _options: Options,
): Promise<object> {
  return {};
}
