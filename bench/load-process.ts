import { join } from "node:path";

import { Value } from "typebox/value";

import {
  type DownloadsPlan,
  LoadMessage,
  type PresencePlan,
  type PresenceResult,
  type Plan,
  type StageResult,
  type StagesPlan,
  type UploadsPlan,
  type TransferResult,
} from "./load/plan.ts";
import { BENCH_DIR, type Processes, tail } from "./processes.ts";
import type { Progress } from "./progress.ts";

// Time for connecting, starting sessions, draining and waiting for the slowest answer.
const OVERHEAD_SECONDS = 150;

type Outcome = {
  stages: StageResult[];
  transfer: TransferResult | undefined;
  presence: PresenceResult | undefined;
};

/** Runs each plan in a fresh load process, and shows its progress. */
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
    const { stages } = await this.#runAlone(label, plan, stageSeconds(plan));
    if (stages.length !== plan.stages.length) throw new Error(`${label}: a stage is missing`);
    return stages;
  }

  async uploads(label: string, plan: UploadsPlan): Promise<TransferResult> {
    const seconds = plan.bytesPerSecond === undefined ? 0 : plan.bytes / plan.bytesPerSecond;
    return await this.#transfer(label, plan, seconds);
  }

  async downloads(label: string, plan: DownloadsPlan): Promise<TransferResult> {
    return await this.#transfer(label, plan, 0);
  }

  /** Runs all plans at the same time, each in a process of its own. */
  async stagesTogether(label: string, plans: StagesPlan[]): Promise<StageResult[][]> {
    const outcomes = await this.#runTogether(label, plans, stageSeconds);
    return outcomes.map(({ stages }) => stages);
  }

  /** Runs all plans at the same time, each in a process of its own. */
  async presence(label: string, plans: PresencePlan[]): Promise<PresenceResult[]> {
    const outcomes = await this.#runTogether(label, plans, secondsOf);
    return outcomes.map(({ presence }) => {
      if (presence === undefined) throw new Error(`${label}: no result`);
      return presence;
    });
  }

  async #runTogether<Each extends Plan>(
    label: string,
    plans: Each[],
    duration: (plan: Each) => number,
  ): Promise<Outcome[]> {
    const done = plans.map(() => 0);
    this.#progress.start(label);
    try {
      return await Promise.all(
        plans.map(async (plan, index) => {
          const onProgress = (part: number, detail: string) => {
            done[index] = part;
            this.#progress.update(done.reduce((sum, each) => sum + each, 0) / done.length, detail);
          };
          return await this.#run(label, plan, duration(plan), onProgress);
        }),
      );
    } finally {
      this.#progress.stop();
    }
  }

  async #transfer(label: string, plan: Plan, seconds: number): Promise<TransferResult> {
    const { transfer } = await this.#runAlone(label, plan, seconds);
    if (transfer === undefined) throw new Error(`${label}: no result`);
    return transfer;
  }

  async #runAlone(label: string, plan: Plan, seconds: number): Promise<Outcome> {
    this.#progress.start(label);
    try {
      return await this.#run(label, plan, seconds, (done, detail) =>
        this.#progress.update(done, detail),
      );
    } finally {
      this.#progress.stop();
    }
  }

  async #run(
    label: string,
    plan: Plan,
    seconds: number,
    onProgress: (done: number, detail: string) => void,
  ): Promise<Outcome> {
    const outcome: Outcome = { stages: [], transfer: undefined, presence: undefined };
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const onMessage = (message: unknown) => {
      if (!Value.Check(LoadMessage, message)) {
        reject(new Error(`${label}: the load process sent an unknown message`));
        return;
      }
      if (message.kind === "ready") child.send(plan);
      else if (message.kind === "progress") onProgress(message.done, message.detail);
      else if (message.kind === "stage") outcome.stages.push(message.result);
      else if (message.kind === "transfer") outcome.transfer = message.result;
      else if (message.kind === "presence") outcome.presence = message.result;
      else if (message.kind === "failed") reject(new Error(`${label}: ${message.message}`));
      else resolve();
    };
    const script = join(BENCH_DIR, "load/main.ts");
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
      child.kill("SIGKILL");
      await child.exited;
    }
  }
}

function stageSeconds({ stages }: StagesPlan): number {
  return stages.reduce((sum, each) => sum + each.warmupSeconds + each.seconds, 0);
}

function secondsOf({ steps }: PresencePlan): number {
  const seconds = steps.map((step) => {
    if (step.kind === "settle") return step.secondsMax;
    return step.kind === "window" ? step.warmupSeconds + step.seconds : 0;
  });
  return seconds.reduce((sum, each) => sum + each, 0);
}
