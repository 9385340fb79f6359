import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { compareRefs, type Run } from "./compare-refs.ts";
import { Harness } from "./harness.ts";
import { comparesFiles, type Options, readOptions, REMOTE, UsageError } from "./options.ts";
import { circumstances, describeMachine } from "./report/circumstances.ts";
import { compareResults, readResult } from "./report/comparison.ts";
import { Findings } from "./report/findings.ts";
import { renderPlot } from "./report/plot.ts";
import { renderMarkdown, renderTables } from "./report/table.ts";
import { archivePhases, runArchive } from "./scenarios/archive.ts";
import { campaignPhases, runCampaign } from "./scenarios/campaign.ts";
import { imagesPhases, runImages } from "./scenarios/images.ts";
import { ingestPhases, runIngest } from "./scenarios/ingest.ts";
import { presencePhases, runPresence } from "./scenarios/presence.ts";
import { reindexPhases, runReindex } from "./scenarios/reindex.ts";
import { remotePhases, runRemote } from "./scenarios/remote.ts";
import { runSizing, sizingPhases } from "./scenarios/sizing.ts";
import { runUpdates, updatesPhases } from "./scenarios/updates.ts";

type Scenario = {
  phases: string[];
  run: Run;
  /** Needs no PostgreSQL of the bench. */
  alone?: true;
  /** Prints tables for a page of documentation. */
  markdown?: true;
};

const SCENARIOS: Record<string, Scenario> = {
  ingest: { phases: ingestPhases, run: runIngest },
  images: { phases: imagesPhases, run: runImages },
  presence: { phases: presencePhases, run: runPresence },
  campaign: { phases: campaignPhases, run: runCampaign },
  reindex: { phases: reindexPhases, run: runReindex },
  archive: { phases: archivePhases, run: runArchive },
  updates: { phases: updatesPhases, run: runUpdates },
  sizing: { phases: sizingPhases, run: runSizing, markdown: true },
  [REMOTE]: { phases: remotePhases, run: runRemote, alone: true },
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
  const findings = new Findings(!options.quick);
  try {
    if (comparesFiles(options)) await compareFiles(options);
    else await runScenario(options, findings);
  } catch (error) {
    process.stderr.write(`bun bench: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
  return findings.failures.length > 0 ? 1 : 0;
}

async function compareFiles({ compared, json }: Options): Promise<void> {
  const [first = "", second = ""] = compared;
  const results = [await readResult(first), await readResult(second)] as const;
  const section = compareResults([first, second], [...results]);
  const tables = { sections: [section], targets: [], failures: [] };
  process.stdout.write(json ? `${JSON.stringify(section)}\n` : renderTables(tables));
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
    const scenario = SCENARIOS[options.scenario];
    if (scenario === undefined) throw new Error(`no scenario ${options.scenario}`);
    if (options.compared.length > 0)
      return await compareRefs(harness, findings, options, scenario.run);
    if (scenario.alone !== true) await harness.prepare();
    return await scenario.run(harness, findings, options);
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
    const name = options.compared.length > 0 ? "compare" : options.scenario;
    const result = {
      scenario: name,
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
    const path = join(options.out, `${name}-${stamp}`);
    mkdirSync(options.out, { recursive: true });
    await Bun.write(`${path}.json`, `${JSON.stringify(result, null, 2)}\n`);
    const title = `Floodgate, bun bench ${name}${options.quick ? " --quick" : ""}`;
    const { charts } = findings;
    if (charts.length > 0) await Bun.write(`${path}.svg`, renderPlot(title, machine, charts));
    const render = SCENARIOS[name]?.markdown === true ? renderMarkdown : renderTables;
    if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    else process.stdout.write(`\n${machine}\n\n${render(findings)}\n`);
    if (options.quick) harness.progress.note("Quick: no target is judged, the figures mean little");
    const files = charts.length > 0 ? `${path}.json and .svg` : `${path}.json`;
    harness.progress.note(`${files}, ${result.seconds.toFixed(0)} s`);
  } finally {
    await harness[Symbol.asyncDispose]();
  }
}
