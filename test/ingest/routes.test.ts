import { expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";

const VECTOR = Buffer.from(
  "6b8080b3c19c330100648580b3c19c3305024f4b0a145c8680b3c19c330904706c616e0370726f",
  "hex",
);

test("a batch is read back byte for byte", async () => {
  await using app = await TestApp.start();
  const session = await app.aSession();
  expect((await app.append(session, VECTOR)).status).toBe(200);
  expect(await app.batches(session)).toEqual([new Uint8Array(VECTOR)]);
});
