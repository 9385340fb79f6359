import { join } from "node:path";

import { checkOut, commitOf } from "./checkout.ts";
import { Harness } from "./harness.ts";
import type { Options } from "./options.ts";
import { compareSides, type Side } from "./report/comparison.ts";
import { Findings } from "./report/findings.ts";
import { alternating } from "./scenarios/measure.ts";

const ROUNDS = 3;

export type Run = (harness: Harness, findings: Findings, options: Options) => Promise<object>;

type Contender = Side & { commit: string; harness: Harness };

/**
 * Runs a scenario on the servers of several git refs in alternating rounds, and compares each with
 * the first. Each ref has a PostgreSQL of its own, because their schemas may differ.
 */
export async function compareRefs(
  { owned, folder, progress }: Harness,
  findings: Findings,
  options: Options,
  run: Run,
): Promise<object> {
  const rounds = options.rounds ?? (options.quick ? 1 : ROUNDS);
  const refs = await Promise.all(
    options.compared.map(async (name) => ({ name, commit: await commitOf(name) })),
  );
  const contenders: Contender[] = [];
  for (const [index, { name, commit }] of refs.entries()) {
    const source = join(folder, `ref-${index}`);
    progress.start(`${name}: ${commit.slice(0, 10)}`);
    await checkOut(commit, source);
    progress.stop();
    const server = join(source, "src/main.ts");
    const harness = owned.use(new Harness({ ...options, server, rounds: 1 }));
    await harness.prepare();
    contenders.push({ name, commit, harness, measurements: [] });
  }
  for (const [round, { name, harness, measurements }] of alternating(rounds, contenders)) {
    progress.note(`${name}, round ${round} of ${rounds}`);
    const found = new Findings(false);
    await run(harness, found, harness.options);
    measurements.push(...found.measurements.map((each) => ({ ...each, round })));
    findings.failures.push(...found.failures.map((failure) => `${name}: ${failure}`));
  }
  const [first, ...others] = contenders;
  if (first !== undefined)
    for (const other of others) findings.sections.push(compareSides(first, other));
  for (const { name, measurements } of contenders)
    findings.measurements.push(
      ...measurements.map((each) => ({ ...each, subject: `${name}: ${each.subject}` })),
    );
  return { rounds, refs };
}
