import { expect, test } from "bun:test";
import { batchKindOf, kindFlags } from "../../src/log/batch-kind.ts";
import { FLAG } from "../../src/log/record.ts";

const KINDS = ["mobile", "player", "assets", "devtools", "analytics", "web", "sdk"] as const;
const ALL_FLAGS = Object.values(FLAG).reduce((all, flag) => all | flag, 0);

test("kinds are the upper four bits of the flags, numbered as they are stored", () => {
  expect(KINDS.map(kindFlags)).toEqual([0, 16, 32, 48, 64, 80, 96]);
});

test("a kind is read whatever the other flags are, which leave its bits alone", () => {
  expect(ALL_FLAGS).toBe(15);
  for (const kind of KINDS)
    for (const flags of [0, ALL_FLAGS, FLAG.late])
      expect(batchKindOf(kindFlags(kind) | flags)).toBe(kind);
});

test("a kind of a later version is unknown", () => {
  expect([112, 255].map(batchKindOf)).toEqual(["unknown", "unknown"]);
});
