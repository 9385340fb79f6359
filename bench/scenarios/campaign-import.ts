import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { once } from "node:events";

import { count, perSecond, seconds } from "../report/units.ts";
import type { CampaignParameters } from "./campaign-parameters.ts";
import type { Context } from "./measure.ts";

const TIMEOUT_MS = 600_000;
const RATE_MIN = 20_000;
const TOKEN_BYTES = 32;

/** Measures `floodgate devices import` with the devices that the other phases need. */
export async function measureImport({
  harness,
  findings,
  parameters,
}: Context<CampaignParameters>): Promise<void> {
  const path = join(harness.folder, "devices.jsonl");
  harness.progress.start(`${count(parameters.devices)} devices: file`);
  await writeDevices(path, parameters);
  harness.progress.stop();
  harness.progress.start(`${count(parameters.devices)} devices: import`);
  const startedMs = performance.now();
  await harness.processes.run({
    script: harness.options.server,
    args: ["devices", "import", path],
    env: harness.serverEnv(),
    timeoutMs: TIMEOUT_MS,
  });
  const took = (performance.now() - startedMs) / 1000;
  harness.progress.stop();
  findings.section(
    "Import: devices with five properties, two of them numbers",
    ["devices", "time", "rate"],
    [[count(parameters.devices), seconds(took), perSecond(parameters.devices / took)]],
  );
  findings.atLeast("devices imported", parameters.devices / took, RATE_MIN, perSecond);
}

/**
 * Writes the file to import. Each value of `segment`, `tags` and `level`, and each range of
 * `matching` scores, belongs to `matching` devices.
 */
async function writeDevices(path: string, { devices, matching }: CampaignParameters) {
  const groups = Math.max(1, Math.floor(devices / matching));
  const file = createWriteStream(path);
  for (let nth = 0; nth < devices; nth++) {
    const isIphone = nth % 2 === 1;
    const group = nth % groups;
    const line = JSON.stringify({
      external_id: `device-${nth}`,
      push_token: Buffer.from(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES))).toString("hex"),
      send_platform: isIphone ? 2 : 1,
      device_platform: isIphone ? 2 : 1,
      properties: {
        segment: `s${group}`,
        tags: [`t${group}`, "all"],
        level: group,
        score: nth,
        adult: nth % 10 > 0 ? "yes" : "no",
      },
    });
    if (!file.write(`${line}\n`)) await once(file, "drain");
  }
  file.end();
  await once(file, "finish");
}
