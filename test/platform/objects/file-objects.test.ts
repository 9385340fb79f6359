import { expect, test } from "bun:test";
import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { FileObjects } from "../../../src/platform/objects/file-objects.ts";
import { failure } from "../../support/failure.ts";

test("no temporary file is left, whether a PUT succeeds or fails", async () => {
  await using folder = await aFolder();
  const store = await FileObjects.open(folder.path);
  await store.put("a", Buffer.from("one"));
  await store.put("a", Buffer.from("one"));
  expect(String(await failure(store.put("a", Buffer.from("two"))))).toContain("other bytes");
  expect(String(await failure(store.put("a/below-a-file", Buffer.from("x"))))).toContain("ENOTDIR");
  expect(await readdir(join(folder.path, ".tmp"))).toEqual([]);
});

test("what killed writers left is never listed, and goes once it is an hour old", async () => {
  await using folder = await aFolder();
  const [old, young] = [join(folder.path, ".tmp", "old"), join(folder.path, ".tmp", "young")];
  const store = await FileObjects.open(folder.path);
  await writeFile(old, "half an obj");
  await writeFile(young, "half an obj");
  await utimes(old, new Date(), new Date(Date.now() - 61 * 60 * 1000));
  expect(await Array.fromAsync(store.list(""))).toEqual([]);
  await FileObjects.open(folder.path);
  expect(await readdir(join(folder.path, ".tmp"))).toEqual(["young"]);
});

test("a full disk rejects the PUT, leaves nothing behind, and smaller objects still fit", async () => {
  await using folder = await aFolder();
  // A limit on the size of files fails a write halfway, as a full disk does, and needs no rights to set.
  const child = Bun.spawn(
    ["sh", "-c", 'ulimit -f 64 && exec "$0" -e "$1" "$2"', process.execPath, PUTS, folder.path],
    { stdout: "pipe", stderr: "inherit" },
  );
  expect(JSON.parse(await child.stdout.text())).toEqual({ large: "EFBIG", small: "stored" });
  expect(await readdir(join(folder.path, ".tmp"))).toEqual([]);
  const store = await FileObjects.open(folder.path);
  expect(await Array.fromAsync(store.list(""))).toEqual([{ key: "deep/small", bytes: 1000 }]);
});

const PUTS = `
  import { FileObjects } from ${JSON.stringify(join(import.meta.dir, "../../../src/platform/objects/file-objects.ts"))};
  const store = await FileObjects.open(process.argv[1]);
  const put = (key, bytes) => store.put(key, new Uint8Array(bytes)).then(() => "stored", (error) => error.code);
  console.log(JSON.stringify({ large: await put("deep/large", 1_000_000), small: await put("deep/small", 1000) }));
`;

test("a folder that was removed is made again, the root is not", async () => {
  await using folder = await aFolder();
  const root = join(folder.path, "root");
  const store = await FileObjects.open(root);
  await store.put("2026/01/one", Buffer.from("1"));
  await rm(join(root, "2026"), { recursive: true });
  expect(String(await failure(store.put("2026/01/two", Buffer.from("2"))))).toContain("ENOENT");
  await store.put("2026/01/two", Buffer.from("2"));
  await rm(root, { recursive: true });
  for (const key of ["2026/01/two", "2027/01/two"])
    expect(String(await failure(store.put(key, Buffer.from("2"))))).toContain("ENOENT");
  expect(await readdir(folder.path)).toEqual([]);
});

test("processes that write the same key at once agree on one winner", async () => {
  await using folder = await aFolder();
  const stores = await Promise.all(
    Array.from({ length: 8 }, () => FileObjects.open(join(folder.path, "new", "store"))),
  );
  const outcomes = await Promise.allSettled(
    stores.map((store, i) => store.put("2026/01/one", Buffer.from(`${i}`))),
  );
  expect(outcomes.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
});

async function aFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), "floodgate-files-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
