import * as fc from "fast-check";
import { expect, test } from "bun:test";

import { type LabelKind, Labels } from "../../src/ingest/labels.ts";

const KINDS: LabelKind[] = ["user", "anonymous", "metadata", "page"];

type Added = [kind: LabelKind, ms: number, text: string, value: string];

function labelsOf(added: Added[]): Labels {
  const labels = new Labels();
  for (const one of added) labels.add(...one);
  return labels;
}

function stored(labels: Labels) {
  return labels.columns.dated_labels;
}

const text = fc.constantFrom("a", "b", "c", "__proto__", "constructor", "1");
const added = fc.tuple(fc.constantFrom(...KINDS), fc.nat(20), text, text);
const batch = fc.array(added, { maxLength: 8 });

test("labels of batches are the same in whichever order they are merged, and twice", () => {
  fc.assert(
    fc.property(fc.array(batch, { minLength: 1, maxLength: 5 }), fc.nat(), (batches, seed) => {
      const all = new Labels();
      for (const one of batches) all.merge(labelsOf(one));
      let other = new Labels();
      for (const one of batches.toSorted(
        (a, b) => ((a.length + seed) % 3) - ((b.length + seed) % 3),
      )) {
        // As it is written and read between two batches.
        other = Labels.of(stored(other));
        other.merge(labelsOf(one));
        other.merge(labelsOf(one));
      }
      expect(other.columns).toEqual(all.columns);
    }),
    { numRuns: 500 },
  );
});

test("the latest id is the last one, and the latest value of a key counts", () => {
  const labels = labelsOf([
    ["user", 5, "ada", ""],
    ["metadata", 5, "plan", "free"],
    ["user", 9, "bob", ""],
    ["metadata", 9, "plan", "pro"],
    ["user", 7, "cy", ""],
    ["metadata", 7, "plan", "team"],
    ["anonymous", 1, "x", ""],
  ]);
  expect(labels.columns.labels).toEqual({
    user: ["ada", "cy", "bob"],
    anonymous: ["x"],
    metadata: { plan: "pro" },
  });
});

test("of values of one millisecond the last one of the batch counts", () => {
  const labels = labelsOf([
    ["user", 5, "zoe", ""],
    ["user", 5, "ada", ""],
    ["metadata", 5, "plan", "z"],
    ["metadata", 5, "plan", "a"],
  ]);
  expect(labels.columns.labels).toMatchObject({ user: ["zoe", "ada"], metadata: { plan: "a" } });
});

test("pages are in the order of their first visits", () => {
  const labels = labelsOf([
    ["page", 5, "/b", ""],
    ["page", 9, "/a", ""],
    ["page", 1, "/a", ""],
  ]);
  expect(labels.columns.pages).toEqual(["/a", "/b"]);
});

test("texts are cut and made storable, and empty ones are left out", () => {
  const labels = labelsOf([
    ["user", 1, "", ""],
    ["user", 1, "\0", ""],
    ["page", 1, `${"x".repeat(999)}😀y`, ""],
    ["metadata", 1, "k".repeat(300), "v\0\ud800".repeat(600)],
  ]);
  const { columns } = labels;
  expect(columns.labels.user).toEqual([]);
  expect(columns.pages).toEqual([`${"x".repeat(999)}😀`]);
  const [[key, value] = []] = Object.entries(columns.labels.metadata);
  expect(key).toBe("k".repeat(255));
  expect(value).toBe("v\ufffd".repeat(500));
});

test("of many only so many are kept: the latest ids and values, the first pages", () => {
  const all = new Labels();
  for (let round = 0; round < 20; round++)
    all.merge(
      labelsOf(
        Array.from({ length: 250 }, (_, nth) => 250 * round + nth).flatMap((at) =>
          KINDS.map((kind): Added => [kind, at, `${kind} ${at}`, "v"]),
        ),
      ),
    );
  const { labels, pages, dated_labels: dated } = all.columns;
  expect(labels.user).toHaveLength(16);
  expect(labels.user.at(-1)).toBe("user 4999");
  expect(Object.keys(labels.metadata)).toHaveLength(64);
  expect(labels.metadata["metadata 4999"]).toBe("v");
  expect(pages).toEqual(Array.from({ length: 64 }, (_, at) => `page ${at}`));
  expect(Object.values(dated).flat()).toHaveLength(16 + 16 + 64 + 64);
});

test("of a batch only the first thousand are taken", () => {
  const labels = labelsOf(
    Array.from({ length: 5000 }, (_, at): Added => ["user", at, `user ${at}`, ""]),
  );
  expect(labels.isFull).toBe(true);
  expect(labels.columns.labels.user.at(-1)).toBe("user 999");
});
