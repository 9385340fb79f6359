import { expect, setDefaultTimeout, test } from "bun:test";
import { Type } from "typebox";
import { Value } from "typebox/value";

import { TestApp } from "../support/app.ts";
import { runCommand } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { envOf } from "../support/server-process.ts";

setDefaultTimeout(60_000);

const Created = Type.Object(
  { id: Type.Integer(), role: Type.String(), signature: Type.String() },
  { additionalProperties: false },
);
const Listed = Type.Object(
  {
    id: Type.Integer(),
    role: Type.String(),
    createdAt: Type.String(),
    revokedAt: Type.Union([Type.String(), Type.Null()]),
  },
  { additionalProperties: false },
);
const List = Type.Object({ signatures: Type.Array(Listed) });

const app = TestApp.forTests();

/** Runs the program beside the server. */
async function run(...args: string[]) {
  return await runCommand(["signature", ...args], { ...envOf(app), LOG_LEVEL: "trace" });
}

async function create(...args: string[]) {
  const { out, err, code } = await run("create", ...args, "--json");
  expect([code, err]).toEqual([0, ""]);
  return Value.Parse(Created, JSON.parse(out));
}

async function statusOf(signature: string): Promise<number> {
  const answer = await app.fetch("/api/v1/users", { headers: { signature } });
  await answer.bytes();
  return answer.status;
}

test("a signature is printed once, opens at once, and is refused after it is revoked", async () => {
  const { id, role, signature } = await create("--role", "service");
  expect(role).toBe("service");
  expect(await statusOf(signature)).toBe(200);
  const revoked = await run("revoke", String(id), "--json");
  expect(Value.Parse(Listed, JSON.parse(revoked.out))).toMatchObject({
    id,
    role,
    revokedAt: expect.any(String),
  });
  await eventually("it is refused", async () => (await statusOf(signature)) === 401, 5000);
  const listed = [await run("list"), await run("list", "--json"), revoked];
  for (const { out, err } of listed) expect(out + err).not.toContain(signature);
});

test("without --json it is printed line by line", async () => {
  const { out } = await run("create", "--role", "client");
  expect(out).toMatch(/^id: \d+\nrole: client\nsignature: [\w-]{43}\n$/);
  const id = /\d+/.exec(out)?.[0] ?? "";
  expect((await run("revoke", id)).out).toMatch(
    new RegExp(`^id: ${id}\nrole: client\ncreatedAt: \\S+Z\nrevokedAt: \\S+Z\n$`),
  );
});

test("a list has who may do what, in the order of ids", async () => {
  const first = await create("--role", "client");
  const second = await create("--role", "service");
  await run("revoke", String(first.id));
  const { signatures } = Value.Parse(List, JSON.parse((await run("list", "--json")).out));
  expect(signatures.slice(-2)).toMatchObject([
    { id: first.id, role: "client", revokedAt: expect.any(String) },
    { id: second.id, role: "service", revokedAt: null },
  ]);
  const lines = (await run("list")).out.trimEnd().split("\n").slice(-2);
  expect(lines[0]).toMatch(new RegExp(`^${first.id}\tclient\t\\S+Z\trevoked \\S+Z$`));
  expect(lines[1]).toMatch(new RegExp(`^${second.id}\tservice\t\\S+Z\tvalid$`));
});

test("an existing signature is kept, and a second time refused", async () => {
  // Also one that looks like an option.
  const text = "-old~signature,of=1999";
  expect(await create("--role", "service", "--signature", text)).toMatchObject({ signature: text });
  expect(await statusOf(text)).toBe(200);
  expect(await run("create", "--role", "client", "--signature", text)).toEqual({
    code: 2,
    out: "",
    err: "floodgate: that signature exists; a revoked one cannot be used again\n",
  });
});

test("what cannot be one is refused without repeating it", async () => {
  for (const text of ["short-secret", "a secret with spaces"])
    expect(await run("create", "--role", "client", "--signature", text)).toEqual({
      code: 2,
      out: "",
      err: "floodgate: a signature has 16 to 256 visible ASCII characters\n",
    });
});

test.each([
  [["create"], "--role"],
  [["create", "--role", "admin"], "client, service"],
  [["create", "--role", "Service"], "client, service"],
  [["revoke"], "id"],
  [["revoke", "x"], "whole number"],
  [["revoke", "0"], "whole number"],
  [["revoke", "2147483648"], "whole number"],
  [["revoke", "2147483647"], "there is no signature 2147483647"],
])("bad usage %j exits with 2 and says what is wrong", async (args, text) => {
  const { out, err, code } = await run(...args);
  expect([code, out]).toEqual([2, ""]);
  expect(err).toContain(text);
});
