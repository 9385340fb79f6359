import * as fc from "fast-check";
import { expect, test } from "bun:test";
import { sessionTime } from "../../src/log/session-time.ts";
import { SessionIds } from "../../src/sessions/session-id.ts";

const T0 = 1_760_000_000_000;
const EPOCH = 1_550_000_000_000;

/** The ids that a worker issues while its clock reads these times. */
function issue(worker: number, times: number[]): bigint[] {
  let read = 0;
  const ids = new SessionIds(
    () => worker,
    () => times[read++] ?? Number.NaN,
  );
  return times.map(() => ids.next());
}

test("an id holds the time, the worker and a sequence", () => {
  const ids = issue(
    513,
    Array.from({ length: 8 }, () => T0),
  );
  expect(ids.at(-1)).toBe(3523215360000131335n);
  expect(sessionTime(3523215360000131335n)).toBe(T0);
});

test("the sequence starts anew each millisecond", () => {
  const ids = issue(1, [T0, T0, T0 + 1, T0 + 1]);
  expect(ids.map((id) => Number(id & 0xffn))).toEqual([0, 1, 0, 1]);
});

test("after 256 ids in a millisecond they run ahead of the clock", () => {
  const ids = issue(
    1,
    Array.from({ length: 513 }, () => T0),
  );
  expect(new Set(ids).size).toBe(513);
  expect(ids.slice(254, 258).map(sessionTime)).toEqual([T0, T0, T0 + 1, T0 + 1]);
  expect(sessionTime(ids[512] ?? 0n)).toBe(T0 + 2);
});

test("ids rise whatever the clock does, and stay the worker's", () => {
  const clock = fc.integer({ min: T0 - 3, max: T0 + 3 });
  const wildClock = fc.oneof(clock, fc.integer({ min: -EPOCH, max: EPOCH + 2 ** 39 - 1_000 }));
  fc.assert(
    fc.property(
      fc.nat(0xffff),
      fc.array(wildClock, { minLength: 1, maxLength: 600 }),
      (worker, times) => {
        const ids = issue(worker, [T0, ...times]);
        for (const [index, id] of ids.entries()) {
          expect(Number((id >> 8n) & 0xffffn)).toBe(worker);
          if (index > 0) expect(id).toBeGreaterThan(ids[index - 1] ?? 0n);
        }
      },
    ),
  );
});

test("workers never issue the same id", () => {
  const times = Array.from({ length: 1_000 }, (_, index) => T0 + (index >> 7));
  expect(new Set([...issue(1, times), ...issue(2, times)]).size).toBe(2_000);
});

test.each([0, EPOCH, EPOCH + 2 ** 39, 2 ** 60, Number.NaN])(
  "a clock at %d issues nothing",
  (now) => {
    expect(() =>
      new SessionIds(
        () => 1,
        () => now,
      ).next(),
    ).toThrow(RangeError);
  },
);

test("the first and the last id fit PostgreSQL's bigint", () => {
  expect(issue(0, [EPOCH + 1])).toEqual([1n << 24n]);
  expect(issue(0xffff, [EPOCH + 2 ** 39 - 1])[0]).toBeLessThan(2n ** 63n);
});

test("a clock that went wrong for a moment does no lasting harm", () => {
  let now = T0;
  const ids = new SessionIds(
    () => 7,
    () => now,
  );
  const before = ids.next();
  now = 2 ** 60;
  expect(() => ids.next()).toThrow(RangeError);
  now = T0 + 1;
  const after = ids.next();
  expect(after).toBeGreaterThan(before);
  expect(sessionTime(after)).toBe(T0 + 1);
});

test.each([-1, 65_536, 1.5, Number.NaN])("%d is no worker", (worker) => {
  expect(() => new SessionIds(() => worker).next()).toThrow(RangeError);
});

test("the time of an id is the server's now", () => {
  const before = Date.now();
  const at = sessionTime(new SessionIds(() => 1).next());
  expect(at).toBeGreaterThanOrEqual(before);
  expect(at).toBeLessThanOrEqual(Date.now());
});
