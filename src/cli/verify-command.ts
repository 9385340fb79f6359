import { Presets, SingleBar } from "cli-progress";
import { type Command } from "commander";

import { rethrow, withDatabase } from "./commands.ts";
import { type Checked, JsonReport, type Report, type Run, TextReport } from "./verify-report.ts";
import { wholeNumber } from "./whole-number.ts";
import { findKnownArchive } from "../log/verify/archives.ts";
import { Evidence, findKnownSegment } from "../log/verify/evidence.ts";
import { Verify, takeOutLost } from "../log/verify/verify.ts";
import { type Config } from "../platform/config/config.ts";
import { type Sql } from "../platform/database/database.ts";
import { UsageError } from "../platform/errors.ts";
import { ConclusiveObjects, rethrowAway } from "../platform/objects/conclusive-objects.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { openObjects } from "../platform/objects/open-objects.ts";
import { findKnownBuild, takeOutBuilds, verifyBuilds } from "../updates/verify-builds.ts";

const ID_MAX = 2 ** 31 - 1;

type Options = Partial<Run> & { json?: boolean };

/** Adds `verify`, which works whether the server is running or not. */
export function addVerifyCommand(command: Command, config: () => Config): void {
  command
    .option("--project <id>", "only what belongs to this project", wholeNumber(1, ID_MAX))
    .option("--quick", "only look whether the objects are there, not at their bytes")
    .option("--repair", "take out rows whose objects are gone for good")
    .option("--json", "print one JSON object")
    .action(async ({ json, project, quick = false, repair = false }: Options) => {
      const run = { project, quick, repair };
      const report = json === true ? new JsonReport(run) : new TextReport(run);
      try {
        await report.end(await verifyStore(config(), run, report));
      } catch (error) {
        await report.fail(error);
        throw error;
      }
      if (report.isBad) throw new Error("something is missing or damaged");
    });
}

async function verifyStore(config: Config, run: Run, report: Report): Promise<Checked> {
  const check = async (sql: Sql, shared: Config) => {
    await demandProject(sql, run.project);
    const store = await openObjects(shared, { create: false }).catch(rethrowAway);
    await using objects = new ConclusiveObjects(store);
    const isInWay = report instanceof JsonReport && process.stdout.isTTY;
    using steps = new Steps(process.stderr.isTTY && !isInWay);
    return await checkAll({ sql, objects }, run, report, steps);
  };
  return await withDatabase(config, check).catch(rethrow);
}

async function checkAll(
  deps: { sql: Sql; objects: ObjectStore },
  { project, quick, repair }: Run,
  report: Report,
  steps: Steps,
): Promise<Checked> {
  const onSteps = (number: number) => steps.add(number);
  const verify = new Verify(deps, { quick, project, onSteps });
  const rows = project === undefined ? "rows" : "sessions";
  // A number that takes PostgreSQL too long is left out.
  steps.start(`${rows} checked`, await verify.steps().catch(() => 0));
  for await (const found of verify.run()) await report.lost(found);
  let builds = 0;
  const onBuild = () => void builds++;
  // Builds belong to no project.
  if (project === undefined)
    for await (const found of verifyBuilds(deps, { quick, onBuild })) await report.lost(found);
  const checked = { ...verify.checked, builds };
  if (!repair || Object.values(report.missing).every((number) => number === 0)) return checked;

  const evidence = new Evidence(deps.objects, [
    async () => await findKnownSegment(deps.sql, deps.objects),
    async () => await findKnownArchive(deps),
    async () => await findKnownBuild(deps),
  ]);
  steps.start(`${rows} looked at again`, await verify.steps().catch(() => 0));
  for await (const found of takeOutLost(deps, { project, evidence, onSteps }))
    await report.takenOut(found);
  if (project === undefined)
    for await (const found of takeOutBuilds(deps, evidence)) await report.takenOut(found);
  return checked;
}

async function demandProject(sql: Sql, project: number | undefined): Promise<void> {
  if (project === undefined) return;
  const [row] = await sql`select 1 from projects where id = ${project}`;
  if (row === undefined) throw new UsageError(`there is no project ${project}`);
}

/** Progress bar on a terminal. The number of steps is an estimate, so it may have to grow. */
class Steps {
  readonly #isShown: boolean;
  // Without a handler of signals, so that the first one ends the command, and without changes to the
  // terminal that it would leave behind.
  readonly #bar = new SingleBar(
    {
      format: "{bar} {percentage}% {value} of {total} {what}",
      stream: process.stderr,
      gracefulExit: false,
      linewrap: true,
    },
    Presets.shades_classic,
  );
  #done = 0;
  #total = 0;

  constructor(isShown: boolean) {
    this.#isShown = isShown;
  }

  start(what: string, total: number): void {
    this.#bar.stop();
    this.#done = 0;
    this.#total = total;
    if (this.#isShown) this.#bar.start(total, 0, { what });
  }

  add(number: number): void {
    this.#done += number;
    this.#total = Math.max(this.#total, this.#done);
    this.#bar.setTotal(this.#total);
    this.#bar.update(this.#done);
  }

  [Symbol.dispose](): void {
    this.#bar.stop();
  }
}
