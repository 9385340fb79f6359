import { expect, test } from "bun:test";

import { TokenBucket } from "../../src/platform/token-bucket.ts";

function bucket(perSecond: number, burst: number) {
  const clock = { ms: 0 };
  return { clock, tokens: new TokenBucket(perSecond, burst, () => clock.ms) };
}

test("a burst can be taken at once, then the rate decides", () => {
  const { clock, tokens } = bucket(4, 40);
  for (let taken = 0; taken < 40; taken++) {
    expect(tokens.has(1)).toBe(true);
    tokens.take(1);
  }
  expect(tokens.has(1)).toBe(false);
  clock.ms += 249;
  expect(tokens.has(1)).toBe(false);
  clock.ms += 1;
  expect(tokens.has(1)).toBe(true);
});

test("an idle bucket holds no more than its burst", () => {
  const { clock, tokens } = bucket(4, 2);
  clock.ms += 3_600_000;
  tokens.take(2);
  expect(tokens.has(1)).toBe(false);
});

test("taking from an empty bucket leaves a debt up to its maximum", () => {
  const clock = { ms: 0 };
  const tokens = new TokenBucket(4, 1, () => clock.ms, 2);
  for (let taken = 0; taken < 9; taken++) tokens.take(1);
  clock.ms += 749;
  expect(tokens.has(1)).toBe(false);
  clock.ms += 1;
  expect(tokens.has(1)).toBe(true);
});

test("taking from an empty bucket leaves no debt", () => {
  const { clock, tokens } = bucket(4, 1);
  tokens.take(1);
  tokens.take(1);
  clock.ms += 250;
  expect(tokens.has(1)).toBe(true);
});

test("the wait for tokens that are missing ends with the moment at which they can be taken", () => {
  const { clock, tokens } = bucket(4, 2);
  expect(tokens.waitMs(2)).toBe(0);
  expect(tokens.tryTake(2)).toBe(true);
  expect(tokens.waitMs(1)).toBe(250);
  clock.ms += 249;
  expect(tokens.tryTake(1)).toBe(false);
  clock.ms += tokens.waitMs(1);
  expect(tokens.tryTake(1)).toBe(true);
});
