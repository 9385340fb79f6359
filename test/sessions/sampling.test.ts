import * as fc from "fast-check";
import { describe, expect, test } from "bun:test";
import { type Draw, isSampled } from "../../src/sessions/sampling.ts";

const NOON = Date.UTC(2025, 9, 9, 12);
const DAY_MS = 86_400_000;

function aDraw(draw: Partial<Draw> = {}): Draw {
  return {
    projectId: 1,
    rate: 50,
    userUUID: "u",
    address: "192.0.2.1",
    userAgent: "okhttp/4.12.0",
    now: NOON,
    ...draw,
  };
}

/** Of many users, the percentage that is recorded. */
function share(draw: (user: number) => Partial<Draw>): number {
  const users = 20_000;
  let sampled = 0;
  for (let user = 0; user < users; user++) if (isSampled(aDraw(draw(user)))) sampled++;
  return (sampled / users) * 100;
}

describe("the share of recorded users is the rate", () => {
  test.each([0, 1, 30, 50, 99, 100])("%d percent", (rate) => {
    const byUser = share((user) => ({ rate, userUUID: `user-${user}` }));
    const byAddress = share((user) => ({
      rate,
      userUUID: undefined,
      address: `10.0.${user >> 8}.${user & 255}`,
    }));
    for (const percent of [byUser, byAddress]) expect(Math.abs(percent - rate)).toBeLessThan(1.5);
  });

  test("0 records nobody and 100 everybody", () => {
    expect(share((user) => ({ rate: 0, userUUID: `${user}` }))).toBe(0);
    expect(share((user) => ({ rate: 100, userUUID: `${user}` }))).toBe(100);
  });
});

test("a draw holds for the whole UTC day, wherever the user comes from", () => {
  const midnight = NOON - DAY_MS / 2;
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.nat(100),
      fc.nat(DAY_MS - 1),
      fc.ipV4(),
      (userUUID, rate, later, address) => {
        const first = isSampled(aDraw({ userUUID, rate, now: midnight }));
        expect(
          isSampled(aDraw({ userUUID, rate, now: midnight + later, address, userAgent: "curl/8" })),
        ).toBe(first);
      },
    ),
  );
});

test("whoever is recorded at a rate is recorded at a higher one", () => {
  fc.assert(
    fc.property(fc.uuid(), fc.nat(99), (userUUID, rate) => {
      if (isSampled(aDraw({ userUUID, rate })))
        expect(isSampled(aDraw({ userUUID, rate: rate + 1 }))).toBe(true);
    }),
  );
});

test.each<[string, Partial<Draw>]>([
  ["day", { now: NOON + DAY_MS }],
  ["project", { projectId: 2 }],
])("another %s draws anew", (_what, change) => {
  const both = share((user) => {
    const sampled = isSampled(aDraw({ userUUID: `${user}` }));
    return { userUUID: `${user}`, rate: sampled ? 50 : 0, ...change };
  });
  expect(Math.abs(both - 25)).toBeLessThan(1.5);
});

test("without a user, agents at one address draw apart", () => {
  const percent = share((user) => ({ userUUID: undefined, userAgent: `App/${user}` }));
  expect(Math.abs(percent - 50)).toBeLessThan(1.5);
});
