import { Type } from "typebox";
import { Value } from "typebox/value";

import { cpuSeconds, familyCpuSeconds, peakRssBytes } from "../accounting.ts";
import { count, microseconds, mib, perSecond, seconds } from "../report/units.ts";
import type { CampaignParameters } from "./campaign-parameters.ts";
import { call, draft, ERROR, startSenders, untilSent } from "./campaign-senders.ts";
import type { Context } from "./measure.ts";

const RATE_MIN = 8000;
const CPU_US_MAX = 130;
const RSS_BYTES_MAX = 300 * 2 ** 20;
// Removes the default limit, so that the worker's own maximum is measured.
const UNBOUNDED = { PUSH_RATE: "1000000" };
const Counts = Type.Object({ apns: Type.Integer(), fcm: Type.Integer() });

/** Measures a campaign to all devices at full speed, against a simulator of both providers. */
export async function measureLaunch(context: Context<CampaignParameters>): Promise<void> {
  const { harness, findings, parameters } = context;
  await using store = await harness.stores.open("files");
  await using senders = await startSenders(harness, store, parameters.latencyMs, UNBOUNDED);
  const { server, work, push } = senders;
  const uuid = await draft(server.url, parameters.devices);
  const postmaster = await harness.postmaster();
  const postgresSeconds = () =>
    postmaster === undefined ? Number.NaN : familyCpuSeconds(postmaster);
  const before = { cpu: cpuSeconds(work.pid), postgres: postgresSeconds() };
  harness.progress.start(`launch: ${count(parameters.devices)} devices`);
  const startedMs = performance.now();
  await call(server.url, `/notifications/${uuid}/:launch`, {});
  const result = await untilSent(server.url, uuid, (sent) =>
    harness.progress.update(sent / parameters.devices, `${count(sent)} sent`),
  );
  const took = (performance.now() - startedMs) / 1000;
  harness.progress.stop();
  const { sent } = result;
  const counts = Value.Parse(Counts, await (await fetch(`${push.url}/counts`)).json());
  if (result.status === ERROR) findings.failures.push(`the campaign ended: ${result.error}`);
  if (sent !== parameters.devices || counts.apns + counts.fcm !== sent)
    findings.failures.push(
      `${sent} of ${parameters.devices} recorded, ${counts.apns + counts.fcm} arrived`,
    );
  const cpu = ((cpuSeconds(work.pid) - before.cpu) / sent) * 1e6;
  const postgres = ((postgresSeconds() - before.postgres) / sent) * 1e6;
  const rss = peakRssBytes(work.pid) ?? Number.NaN;
  findings.section(
    `Launch: push server with ${parameters.latencyMs} ms of latency, half FCM, half APNs`,
    ["sent", "time", "rate", "CPU/send", "PostgreSQL/send", "peak RSS"],
    [
      [
        count(sent),
        seconds(took),
        perSecond(sent / took),
        microseconds(cpu),
        microseconds(postgres),
        mib(rss),
      ],
    ],
    "Time is from the launch until every outcome is recorded.",
  );
  findings.atLeast("sends", sent / took, RATE_MIN, perSecond);
  findings.atMost("CPU per send", cpu, CPU_US_MAX, microseconds);
  findings.atMost("peak RSS of work", rss, RSS_BYTES_MAX, mib);
}
