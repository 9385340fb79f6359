import { Type } from "typebox";
import { Value } from "typebox/value";

import type { Subject } from "../harness.ts";
import { BUILD_ABI, BUILDS_PATH } from "../load/build-form.ts";
import { ms } from "../report/units.ts";
import { median } from "../stats.ts";
import type { UpdatesContext } from "./updates-parameters.ts";

const SEEN_MS_MAX = 1000;
const GIVE_UP_MS = 10_000;
const POLL_MS = 2;
// Random pauses, so that rounds do not coincide with the other process's periodic reads.
const PAUSE_MS_MAX = 700;

const Offered = Type.Object({ Version: Type.String() });

/** Measures the time from a publish on one process until another offers the build. */
export async function measureSpread(context: UpdatesContext): Promise<void> {
  const { harness, findings, parameters, signature } = context;
  const { rounds } = parameters.spread;
  await using store = await harness.stores.open("files");
  await using here = await harness.startFloodgate(store);
  await using there = await harness.startFloodgate(store);
  // Ascends from run to run, so that the versions are the newest in a database of the caller's,
  // too.
  const first = Math.floor(Date.now() / 1000) % 1e9;
  const sinceSent: number[] = [];
  const sinceAnswered: number[] = [];
  harness.progress.start(`spread: ${rounds} rounds`);
  for (let round = 0; round < rounds; round++) {
    await Bun.sleep(Math.random() * PAUSE_MS_MAX);
    const version = `${first + round}_01`;
    const sentMs = performance.now();
    const [answeredMs, seenMs] = await Promise.all([
      publish(here, version, signature),
      untilOffered(there, version),
    ]);
    sinceSent.push(seenMs - sentMs);
    sinceAnswered.push(Math.max(seenMs - answeredMs, 0));
    harness.progress.update((round + 1) / rounds, ms(seenMs - sentMs));
  }
  harness.progress.stop();
  findings.section(
    `Spread: from a publish on one process to the offer on another, ${rounds} rounds`,
    ["", "median", "longest"],
    [
      ["since the publish was sent", ms(median(sinceSent)), ms(Math.max(...sinceSent))],
      ["since it was answered", ms(median(sinceAnswered)), ms(Math.max(...sinceAnswered))],
    ],
    "Offered before the publisher had its answer counts as 0.",
  );
  findings.atMost("until another process offers a build", Math.max(...sinceSent), SEEN_MS_MAX, ms);
}

/** Publishes the version; returns the time of the answer. */
async function publish({ url }: Subject, version: string, signature: string): Promise<number> {
  const form = new FormData();
  form.set("appVersion", version);
  form.set("targetABI", BUILD_ABI);
  form.set("tmpFile", new Blob([`A build of ${version}`]), "app.apk");
  const response = await fetch(url + BUILDS_PATH, {
    method: "POST",
    headers: { signature },
    body: form,
  });
  if (response.status !== 200)
    throw new Error(`spread: publishing was answered ${response.status}`);
  await response.arrayBuffer();
  return performance.now();
}

/** Returns the time at which the build was first offered. */
async function untilOffered({ url }: Subject, version: string): Promise<number> {
  const deadline = performance.now() + GIVE_UP_MS;
  while (performance.now() < deadline) {
    const response = await fetch(`${url}${BUILDS_PATH}/2263_05${BUILD_ABI}`);
    const answer: unknown = response.ok ? await response.json() : await response.text();
    if (Value.Check(Offered, answer) && answer.Version === version) return performance.now();
    await Bun.sleep(POLL_MS);
  }
  throw new Error(`spread: ${version} was not offered within ${GIVE_UP_MS} ms`);
}
