import { join } from "node:path";

import { Value } from "typebox/value";

import {
  LoadMessage,
  type Plan,
  type StageResult,
  type StagesPlan,
  type UploadsPlan,
  type UploadsResult,
} from "./load/plan.ts";
import { BENCH_DIR, type Processes, tail } from "./processes.ts";
import type { Progress } from "./progress.ts";

// Connecting, starting sessions, draining and waiting for the slowest answer.
const OVERHEAD_SECONDS = 150;

type Outcome = { stages: StageResult[]; uploads: UploadsResult | undefined };

/** Runs plans in load processes, a fresh one each, and shows how far they are. */
export class LoadProcesses {
  readonly #processes: Processes;
  readonly #progress: Progress;
  readonly #core: number | undefined;

  constructor(processes: Processes, progress: Progress, core: number | undefined) {
    this.#processes = processes;
    this.#progress = progress;
    this.#core = core;
  }

  async stages(label: string, plan: StagesPlan): Promise<StageResult[]> {
    const seconds = plan.stages.reduce((sum, each) => sum + each.warmupSeconds + each.seconds, 0);
    const { stages } = await this.#run(label, plan, seconds);
    if (stages.length !== plan.stages.length) throw new Error(`${label}: a stage is missing`);
    return stages;
  }

  async uploads(label: string, plan: UploadsPlan): Promise<UploadsResult> {
    const seconds = plan.bytesPerSecond === undefined ? 0 : plan.bytes / plan.bytesPerSecond;
    const { uploads } = await this.#run(label, plan, seconds);
    if (uploads === undefined) throw new Error(`${label}: no result`);
    return uploads;
  }

  async #run(label: string, plan: Plan, seconds: number): Promise<Outcome> {
    const outcome: Outcome = { stages: [], uploads: undefined };
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onMessage = (message: unknown) => {
      if (!Value.Check(LoadMessage, message)) {
        reject(new Error(`${label}: the load process sent something unknown`));
        return;
      }
      if (message.kind === "ready") child.send(plan);
      else if (message.kind === "progress") this.#progress.update(message.done, message.detail);
      else if (message.kind === "stage") outcome.stages.push(message.result);
      else if (message.kind === "uploads") outcome.uploads = message.result;
      else if (message.kind === "failed") reject(new Error(`${label}: ${message.message}`));
      else resolve();
    };
    const script = join(BENCH_DIR, "load/main.ts");
    this.#progress.start(label);
    const { child, log } = this.#processes.spawn({ script, core: this.#core }, onMessage);
    const timer = setTimeout(
      () => reject(new Error(`${label}: no result in time`)),
      (seconds + OVERHEAD_SECONDS) * 1000,
    );
    void child.exited.then((code) =>
      reject(new Error(`${label}: the load process ended with ${code}:\n${tail(log)}`)),
    );
    try {
      await promise;
      return outcome;
    } finally {
      clearTimeout(timer);
      this.#progress.stop();
      child.kill("SIGKILL");
      await child.exited;
    }
  }
}
