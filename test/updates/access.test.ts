import { expect, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { TestApp } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { runCommand } from "../support/command.ts";
import { envOf } from "../support/server-process.ts";
import { UpdateApi, plainOf } from "../support/updates.ts";

const REVOKED_MS_MAX = 5000;
const Created = Type.Object(
  { id: Type.Integer(), role: Type.String(), signature: Type.String() },
  { additionalProperties: false },
);

async function floodgate(app: TestApp, ...args: string[]): Promise<unknown> {
  const { out, code } = await runCommand(["signature", ...args, "--json"], envOf(app));
  expect(code).toBe(0);
  return JSON.parse(out);
}

test("a signature of the command line publishes until it is revoked, one of a client never", async () => {
  await using app = await TestApp.start();
  const [service, client] = await Promise.all(
    ["service", "client"].map(async (role) => {
      const created = await floodgate(app, "create", "--role", role);
      Value.Assert(Created, created);
      expect(created.role).toBe(role);
      return created;
    }),
  );
  if (service === undefined || client === undefined) throw new Error("two were made");
  const api = new UpdateApi(app, service.signature);
  const update = await api.published({ version: "2264_00" });
  const refused = await plainOf(new UpdateApi(app, client.signature).publish());
  expect(refused).toEqual([403, "forbidden\n"]);

  await floodgate(app, "revoke", String(service.id));
  const publish = async () => (await api.publish({ version: "2264_00" })).status;
  await eventually("refused", async () => (await publish()) === 401, REVOKED_MS_MAX);
  expect(await plainOf(api.publish())).toEqual([401, "record not found\n"]);
  expect((await api.offered("2263_01")).Id).toBe(update.Id);
});
