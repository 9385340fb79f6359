import { Value } from "typebox/value";

import { endpointOf, openConnections } from "./connection.ts";
import { runDownloads } from "./downloads.ts";
import { Engine } from "./engine.ts";
import { Meter } from "./meter.ts";
import {
  type DownloadsPlan,
  type LoadMessage,
  Plan,
  type StagesPlan,
  type UploadsPlan,
} from "./plan.ts";
import { runPresence } from "./presence/run.ts";
import { Requests } from "./requests.ts";
import { startSessions } from "./sessions.ts";
import { runUploads } from "./uploads.ts";

/** Entry point of the load generator, a process of its own, so that its CPU is not the server's. */

function tell(message: LoadMessage): void {
  process.send?.(message);
}

function tellProgress(done: number, detail: string): void {
  tell({ kind: "progress", done, detail });
}

async function runStages(plan: StagesPlan): Promise<void> {
  const endpoint = endpointOf(plan.url, plan.ca);
  using meter = new Meter(plan.watched, plan.storeUrl);
  const engine = await Engine.open({
    endpoint,
    connections: plan.connections,
    requests: new Requests(plan.work, endpoint),
    projectKey: "projectKey" in plan.work ? plan.work.projectKey : undefined,
    token: "token" in plan.work ? plan.work.token : undefined,
    meter,
  });
  for (const stage of plan.stages) {
    tellProgress(0, stage.name);
    tell({ kind: "stage", result: await engine.run(stage, tellProgress) });
  }
  engine.close();
}

async function runUploadsPlan(plan: UploadsPlan): Promise<void> {
  using meter = new Meter(plan.watched, plan.storeUrl);
  const tokens = plan.projectKey === undefined ? [] : await sessionTokens(plan, plan.projectKey);
  tell({ kind: "transfer", result: await runUploads(plan, tokens, meter, tellProgress) });
}

async function runDownloadsPlan(plan: DownloadsPlan): Promise<void> {
  using meter = new Meter(plan.watched, undefined);
  tell({ kind: "transfer", result: await runDownloads(plan, meter, tellProgress) });
}

async function sessionTokens(plan: UploadsPlan, projectKey: string): Promise<string[]> {
  const endpoint = endpointOf(plan.url);
  const ignore = { answered: () => {}, broken: () => {}, reconnected: () => {} };
  const connections = await openConnections(plan.connections, endpoint, ignore);
  const tokens = await startSessions(connections, projectKey, endpoint);
  for (const connection of connections) connection.close();
  return tokens;
}

async function run(message: unknown): Promise<void> {
  try {
    const plan = Value.Parse(Plan, message);
    if (plan.kind === "stages") await runStages(plan);
    else if (plan.kind === "uploads") await runUploadsPlan(plan);
    else if (plan.kind === "downloads") await runDownloadsPlan(plan);
    else tell({ kind: "presence", result: await runPresence(plan, tellProgress) });
    tell({ kind: "done" });
  } catch (error) {
    tell({ kind: "failed", message: error instanceof Error ? error.message : String(error) });
  }
}

process.on("message", (message) => void run(message));
// The bench has ended and needs no results.
process.on("disconnect", () => process.exit(0));
tell({ kind: "ready" });
