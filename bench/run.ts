import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { Harness } from "./harness.ts";
import { type Options, readOptions, UsageError } from "./options.ts";
import { circumstances, describeMachine } from "./report/circumstances.ts";
import { Findings } from "./report/findings.ts";
import { renderPlot } from "./report/plot.ts";
import { renderTables } from "./report/table.ts";
import { campaignPhases, runCampaign } from "./scenarios/campaign.ts";
import { imagesPhases, runImages } from "./scenarios/images.ts";
import { ingestPhases, runIngest } from "./scenarios/ingest.ts";
import { presencePhases, runPresence } from "./scenarios/presence.ts";
import { reindexPhases, runReindex } from "./scenarios/reindex.ts";
import { runUpdates, updatesPhases } from "./scenarios/updates.ts";

const SCENARIOS: Record<
  string,
  {
    phases: string[];
    run: (harness: Harness, findings: Findings, options: Options) => Promise<object>;
  }
> = {
  ingest: { phases: ingestPhases, run: runIngest },
  images: { phases: imagesPhases, run: runImages },
  presence: { phases: presencePhases, run: runPresence },
  campaign: { phases: campaignPhases, run: runCampaign },
  reindex: { phases: reindexPhases, run: runReindex },
  updates: { phases: updatesPhases, run: runUpdates },
};

// Exit codes by convention: 128 plus the signal's number.
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

process.exitCode = await main();

async function main(): Promise<number> {
  let options: Options | undefined;
  try {
    const phases = Object.entries(SCENARIOS).map(([name, scenario]) => [name, scenario.phases]);
    options = readOptions(Bun.argv.slice(2), Object.fromEntries(phases));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`bun bench: ${error.message}\n`);
    return 2;
  }
  if (options === undefined) return 0;
  const findings = new Findings();
  try {
    await runScenario(options, findings);
  } catch (error) {
    process.stderr.write(`bun bench: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
  return findings.failures.length > 0 ? 1 : 0;
}

/**
 * Runs the scenario. A failure becomes a finding, so that earlier findings are reported with it.
 */
async function tryScenario(
  harness: Harness,
  findings: Findings,
  options: Options,
): Promise<object> {
  try {
    await harness.prepare();
    return (await SCENARIOS[options.scenario]?.run(harness, findings, options)) ?? {};
  } catch (error) {
    findings.failures.push(error instanceof Error ? error.message : String(error));
    return {};
  }
}

async function runScenario(options: Options, findings: Findings): Promise<void> {
  const startedAt = new Date();
  const harness = new Harness(options);
  for (const [signal, code] of Object.entries(SIGNALS))
    process.once(signal, () => {
      void harness[Symbol.asyncDispose]().finally(() => process.exit(code));
    });
  try {
    const parameters = await tryScenario(harness, findings, options);
    const about = await circumstances(options, parameters);
    const result = {
      scenario: options.scenario,
      startedAt: startedAt.toISOString(),
      seconds: (Date.now() - startedAt.getTime()) / 1000,
      ...about,
      sections: findings.sections,
      targets: findings.targets,
      failures: findings.failures,
      measurements: findings.measurements,
    };
    const machine = describeMachine(about);
    const stamp = startedAt.toISOString().replaceAll(/[:.]/g, "-");
    const path = join(options.out, `${options.scenario}-${stamp}`);
    mkdirSync(options.out, { recursive: true });
    await Bun.write(`${path}.json`, `${JSON.stringify(result, null, 2)}\n`);
    const title = `Floodgate, bun bench ${options.scenario}${options.quick ? " --quick" : ""}`;
    await Bun.write(`${path}.svg`, renderPlot(title, machine, findings.charts));
    if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    else process.stdout.write(`\n${machine}\n\n${renderTables(findings)}\n`);
    harness.progress.note(`${path}.json and .svg, ${result.seconds.toFixed(0)} s`);
  } finally {
    await harness[Symbol.asyncDispose]();
  }
}
