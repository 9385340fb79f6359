import { type Finding, type State } from "../log/verify/finding.ts";
import { type BuildFinding } from "../updates/verify-builds.ts";
import { print } from "./commands.ts";

const LINES_MAX = 100;

export type Found = Finding | BuildFinding;
export type Run = { project: number | undefined; quick: boolean; repair: boolean };
/** Numbers of what was checked; batches and images are rows. */
export type Checked = {
  segments: number;
  archives: number;
  batches: number;
  images: number;
  builds: number;
};
type Lost = Checked & { sessions: number };

/** Prints what `verify` finds and what it takes out, and counts it. */
export abstract class Report {
  readonly #counts = { missing: none(), damaged: none(), takenOut: none() };

  get missing(): Readonly<Lost> {
    return this.#counts.missing;
  }

  /** True if anything was found. */
  get isBad(): boolean {
    return [this.#counts.missing, this.#counts.damaged].some(hasSome);
  }

  async lost(found: Found): Promise<void> {
    count(this.#counts[found.state], found);
    await this.show("problems", found);
  }

  async takenOut(found: Found): Promise<void> {
    count(this.#counts.takenOut, found);
    await this.show("takenOut", found);
  }

  async end(checked: Checked): Promise<void> {
    await this.sum({ checked, ...this.#counts });
  }

  /** Completes the output of a run that failed. */
  abstract fail(error: unknown): Promise<void>;
  protected abstract show(list: "problems" | "takenOut", found: Found): Promise<void>;
  protected abstract sum(
    counts: { checked: Checked } & Record<State | "takenOut", Lost>,
  ): Promise<void>;
}

/** Prints lines on standard error, up to a maximum of each list, and numbers on standard output. */
export class TextReport extends Report {
  readonly #run: Run;
  readonly #lines = { problems: new Lines(), takenOut: new Lines() };

  constructor(run: Run) {
    super();
    this.#run = run;
  }

  override async fail(): Promise<void> {
    this.#printLines();
  }

  protected override async show(list: "problems" | "takenOut", found: Found): Promise<void> {
    this.#lines[list].add(list === "problems" ? lineOf(found) : `taken out: ${subjectOf(found)}`);
  }

  protected override async sum({
    checked,
    missing,
    damaged,
    takenOut,
  }: { checked: Checked } & Record<State | "takenOut", Lost>): Promise<void> {
    this.#printLines();
    print(`checked: ${numbers(checked)}`);
    print(`missing: ${numbers(missing)}`);
    print(`damaged: ${numbers(damaged)}`);
    if (this.#run.repair) print(`taken out: ${numbers(takenOut)}`);
  }

  /** Called at the end: a progress bar would overwrite lines. */
  #printLines(): void {
    this.#lines.problems.print();
    this.#lines.takenOut.print();
  }
}

/** The first lines of a list. */
class Lines {
  readonly #lines: string[] = [];
  #more = 0;

  add(line: string): void {
    if (this.#lines.length < LINES_MAX) this.#lines.push(line);
    else this.#more++;
  }

  print(): void {
    for (const line of this.#lines) process.stderr.write(`${line}\n`);
    if (this.#more > 0)
      process.stderr.write(`and ${this.#more} more, which --json prints as well\n`);
  }
}

/** Prints one JSON object, piece by piece: there may be more findings than fit into memory. */
export class JsonReport extends Report {
  readonly #run: Run;
  #list: "problems" | "takenOut" | undefined;

  constructor(run: Run) {
    super();
    this.#run = run;
  }

  override async fail(error: unknown): Promise<void> {
    if (this.#list === undefined) return;
    const reason = error instanceof Error ? error.message : String(error);
    await write(`${this.#rest()}],"error":${JSON.stringify(reason)}}\n`);
  }

  protected override async show(list: "problems" | "takenOut", found: Found): Promise<void> {
    await write(this.#before(list) + JSON.stringify(found));
  }

  protected override async sum(counts: object): Promise<void> {
    await write(`${this.#rest()}],"counts":${JSON.stringify(counts)}}\n`);
  }

  /** Returns what comes before the next item of the list. */
  #before(list: "problems" | "takenOut"): string {
    if (this.#list === list) return ",";
    const head = this.#list === undefined ? `${this.#head()},"problems":[` : "";
    this.#list = list;
    return list === "problems" ? head : `${head}],"takenOut":[`;
  }

  #rest(): string {
    return this.#list === "takenOut" ? "" : this.#before("takenOut");
  }

  #head(): string {
    const { project = null, quick, repair } = this.#run;
    return JSON.stringify({ project, quick, repair }).slice(0, -1);
  }
}

function none(): Lost {
  return { segments: 0, archives: 0, sessions: 0, batches: 0, images: 0, builds: 0 };
}

function hasSome(counts: Lost): boolean {
  return Object.values(counts).some((number) => number > 0);
}

/** Counts images once, and not once more for each session that sent them. */
function count(counts: Lost, found: Found): void {
  counts[`${found.what}s`]++;
  if (found.what === "session") counts.batches += found.batches;
}

function numbers(counts: Checked | Lost): string {
  return Object.entries(counts)
    .map(([name, number]) => `${number} ${name}`)
    .join(", ");
}

function lineOf(found: Found): string {
  const reason = "reason" in found ? found.reason : found.state;
  return `${subjectOf(found)}: ${reason}`;
}

function subjectOf(found: Found): string {
  const { what } = found;
  if (what === "segment" || what === "archive") return found.key;
  if (what === "session")
    return `${found.batches} batches and ${found.images} images of session ${found.sessionID}, ${ofProject(found)}`;
  if (what === "image")
    return `image ${quoted(found.name)}, ${ofProject(found)}, SHA-256 ${found.sha256 ?? "unknown"}`;
  return `build ${found.id}, ${quoted(found.name)} of version ${quoted(found.version)}, ${found.key}`;
}

function ofProject({ projectId }: { projectId: number | null }): string {
  return projectId === null ? "no known project" : `project ${projectId}`;
}

/** Returns a text from outside without characters that a terminal would obey. */
function quoted(text: string): string {
  return JSON.stringify(text).replaceAll(/\p{C}/gu, "?");
}

/** Resolves once the reader has taken the text, so that little of it is held in memory. */
async function write(text: string): Promise<void> {
  await new Promise<void>((resolve) => process.stdout.write(text, () => resolve()));
}
