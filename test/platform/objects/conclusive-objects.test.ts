import { expect, test } from "bun:test";

import { DependencyAway } from "../../../src/platform/errors.ts";
import { ConclusiveObjects } from "../../../src/platform/objects/conclusive-objects.ts";
import { ObjectDamaged, ObjectMissing } from "../../../src/platform/objects/objects.ts";
import { failure } from "../../support/failure.ts";
import { FaultyObjects } from "../../support/faulty-objects.ts";
import { aFileStore } from "../../support/stores.ts";

const KEY = "segments/one";

async function aStore() {
  const fixture = await aFileStore();
  await fixture.store.put(KEY, Buffer.from("bytes"));
  const faults = new FaultyObjects();
  const objects = new ConclusiveObjects(faults.wrap(fixture.store));
  return { objects, faults, [Symbol.asyncDispose]: () => fixture[Symbol.asyncDispose]() };
}

const failed = () => {
  throw new Error("no answer");
};

test("bytes are read, and lost objects are told as the store tells them", async () => {
  await using store = await aStore();
  expect(Buffer.from(await store.objects.read(KEY, 1, 3)).toString()).toBe("yt");
  expect(await failure(store.objects.read("segments/two", 0, 1))).toBeInstanceOf(ObjectMissing);
  expect(await failure(store.objects.read(KEY, 0, 10))).toBeInstanceOf(ObjectDamaged);
});

test("an object that cannot be read while the store answers is damaged", async () => {
  await using store = await aStore();
  store.faults.beforeRead = failed;
  const error = await failure(store.objects.read(KEY, 0, 1));
  expect(error).toBeInstanceOf(ObjectDamaged);
  expect(String(error)).toContain("no answer");
});

test("a store that does not answer is away, also when it is listed", async () => {
  await using store = await aStore();
  store.faults.beforeRead = store.faults.beforePing = failed;
  const error = await failure(store.objects.read(KEY, 0, 1));
  expect(error).toBeInstanceOf(DependencyAway);
  expect(String(error)).toContain("the object store is away: no answer");
  const list = new ConclusiveObjects(
    Object.assign(Object.create(store.objects), { list: failed }),
  ).list("segments/");
  expect(await failure(Array.fromAsync(list))).toBeInstanceOf(DependencyAway);
});

test("a store that came back since is read once more", async () => {
  await using store = await aStore();
  let reads = 0;
  store.faults.beforeRead = () => {
    if (++reads === 1) failed();
  };
  expect(await store.objects.read(KEY, 0, 5)).toEqual(Buffer.from("bytes"));
});
