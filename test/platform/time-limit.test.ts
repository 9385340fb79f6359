import { expect, test } from "bun:test";

import { TimeLimit, doneWithin, inTime, unlessAborted } from "../../src/platform/time-limit.ts";
import { failure } from "../support/failure.ts";

const NEVER = Promise.withResolvers<never>().promise;
const late = () => new Error("late");

test("work that takes too long gives what is said for it, or its error", async () => {
  expect(await inTime<number>(1, NEVER, () => 7)).toBe(7);
  const failing = inTime<number>(1, NEVER, () => {
    throw late();
  });
  expect(await failure(failing)).toEqual(new Error("late"));
  expect(await inTime(60_000, Promise.resolve(8), () => 7)).toBe(8);
});

test("work is done in time, late, or fails with its own error", async () => {
  expect(await doneWithin(60_000, Promise.resolve())).toBe(true);
  expect(await doneWithin(1, NEVER)).toBe(false);
  expect(await failure(doneWithin(60_000, Promise.reject(new Error("failed"))))).toEqual(
    new Error("failed"),
  );
});

test("work ends with the reason of a signal that is aborted, or was before", async () => {
  const stop = new AbortController();
  const working = unlessAborted(stop.signal, NEVER);
  stop.abort(new Error("stopped"));
  expect(await failure(working)).toEqual(new Error("stopped"));
  expect(await failure(unlessAborted(stop.signal, NEVER))).toEqual(new Error("stopped"));
});

test("a time limit aborts at once without time, never with infinite time, and not once it is disposed", async () => {
  expect(new TimeLimit(0, late).signal.reason).toEqual(late());
  const infinite = new TimeLimit(Number.POSITIVE_INFINITY, late);
  const disposed = new TimeLimit(1, late);
  disposed[Symbol.dispose]();
  const passed = new TimeLimit(1, late);
  await Bun.sleep(20);
  expect([infinite, disposed, passed].map(({ signal }) => signal.aborted)).toEqual([
    false,
    false,
    true,
  ]);
});

test("a time limit aborts with the signal of its caller, also once it is lifted", () => {
  const outer = new AbortController();
  using limit = new TimeLimit(60_000, late, outer.signal);
  limit.lift();
  outer.abort(new Error("gone"));
  expect(limit.signal.reason).toEqual(new Error("gone"));
});
