import { expect, test } from "bun:test";

import { chooseInputs } from "../../../src/archives/merge/choice.ts";
import { Random } from "../../support/random.ts";

const MIB = 2 ** 20;

function chosen(sizes: number[], records = 100): number[] {
  const small = sizes.map((size, nth) => ({ id: String(nth), bytes: size * MIB, records }));
  return chooseInputs(small).map(({ bytes }) => bytes / MIB);
}

test("an archive joins those that are a quarter of its size together", () => {
  expect(chosen([100, 10, 15])).toEqual([10, 15, 100]);
  expect(chosen([101, 10, 15])).toEqual([10, 15]);
  expect(chosen([10, 41])).toEqual([]);
  expect(chosen([2, 9, 40])).toEqual([2, 9, 40]);
  expect(chosen([2, 100, 100])).toEqual([2, 100, 100]);
});

test("the smallest ones always join", () => {
  expect(chosen([0.9, 0.01])).toEqual([0.01, 0.9]);
  expect(chosen([1, 0.01])).toEqual([]);
});

test("one archive alone is never merged", () => {
  expect(chosen([0.5])).toEqual([]);
  expect(chosen([])).toEqual([]);
});

test("a merge has a bounded number of inputs, records and bytes", () => {
  expect(chosen(Array.from({ length: 1000 }, () => 0.5))).toHaveLength(256);
  expect(chosen([0.1, 0.1, 0.1, 0.1], 60_000)).toHaveLength(3);
  expect(chosen(Array.from({ length: 20 }, () => 120))).toHaveLength(8);
});

test("each byte is written few times, whatever the sizes", () => {
  const random = new Random(7);
  let archives: { id: string; bytes: number; records: number }[] = [];
  let stored = 0;
  let written = 0;
  for (let nth = 0; nth < 3000; nth++) {
    const bytes = random.integer(1, 2 * MIB);
    archives.push({ id: String(nth), bytes, records: 1 });
    stored += bytes;
    const small = archives.filter((archive) => archive.bytes < 128 * MIB);
    if (small.length < 2 || nth % 10 > 0) continue;
    const inputs = chooseInputs(small);
    if (inputs.length === 0) continue;
    const sum = inputs.reduce((total, { bytes: size }) => total + size, 0);
    written += sum;
    archives = archives.filter((archive) => !inputs.includes(archive));
    archives.push({ id: `merged ${nth}`, bytes: sum, records: 1 });
  }
  expect(archives.length).toBeLessThan(40);
  expect(written / stored).toBeLessThan(6);
});
