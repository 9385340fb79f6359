import type { Harness } from "../harness.ts";
import type { Options } from "../options.ts";
import type { Findings } from "../report/findings.ts";
import { measureLarge } from "./images-large.ts";
import { type ImagesParameters, imagesParameters } from "./images-parameters.ts";
import { measureSlow } from "./images-slow.ts";
import { measureSmall } from "./images-small.ts";
import type { Context } from "./measure.ts";

const PHASES: Record<string, (context: Context<ImagesParameters>) => Promise<void>> = {
  large: measureLarge,
  slow: measureSlow,
  small: measureSmall,
};

export const imagesPhases = Object.keys(PHASES);

/** Measures multipart images: one huge, many slow, and many small ones. */
export async function runImages(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<ImagesParameters> {
  const parameters = imagesParameters(options);
  for (const phase of options.phases) await PHASES[phase]?.({ harness, findings, parameters });
  return parameters;
}
