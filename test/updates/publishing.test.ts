import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { MULTIPART, encodeForm } from "../support/forms.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";
import {
  UPDATE_FIELDS,
  UpdateApi,
  aVersion,
  eventuallyClean,
  formParts,
  garbage,
  hashesOf,
  leftovers,
  updateOf,
} from "../support/updates.ts";

const LARGE = new Random(5).bytes(9 * 2 ** 20 + 1);
// Above 2^53, where numbers lose their last digit.
const MANY = 9_007_199_254_740_993n;

describe.each(["files", "s3"] as const)("a build in %s", (store) => {
  const app = TestApp.forTests({ store });
  const api = UpdateApi.forTests(app);

  test("is described by the answer, and lies in the store under a key of its own", async () => {
    const bytes = new Random(1).bytes(70_000);
    const build = { version: aVersion("01"), abi: "arm", name: "we.apk", notes: "Что нового\n✓" };
    const answer = await api.publish({ ...build, bytes });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([
      200,
      "application/json; charset=utf-8",
    ]);
    const update: Record<string, unknown> = Object(await answer.json());
    expect(Object.keys(update)).toEqual(UPDATE_FIELDS);
    expect(update).toEqual({
      Id: expect.any(Number),
      TargetABI: "arm",
      ...hashesOf(bytes),
      Name: "we.apk",
      Message: "Что нового\n✓",
      Size: "70.0 kB",
      Version: build.version,
      Skipped: true,
      Uploads: 0,
      URI: `${app.url}/source/arm/${build.version}/we.apk`,
      Signature: "",
      Channel: "stable",
      Rollout: 100,
      Withdrawn: false,
      FloorPerABI: false,
    });
    const [row] = await app.sql`select object_id from builds where id = ${Number(update["Id"])}`;
    const key = `builds/${row?.["object_id"]}`;
    expect(await app.objects.read(key, 0, bytes.length)).toEqual(bytes);
    await eventuallyClean(app);
  });

  test("of nine megabytes and of none are stored whole", async () => {
    for (const [bytes, size] of [
      [LARGE, "9.4 MB"],
      [new Uint8Array(0), "0 B"],
    ] as const) {
      const update = await api.published({ bytes });
      expect(update).toMatchObject({ ...hashesOf(bytes), Size: size });
      expect(hashesOf(await (await api.download(update)).bytes())).toEqual(hashesOf(bytes));
    }
    await eventuallyClean(app);
  });

  test("published again replaces what it was, under the same id", async () => {
    const version = aVersion("00");
    const first = await api.published({ version, name: "a.apk", notes: "first" });
    await app.sql`update builds set uploads = 6 where id = ${first.Id}`;
    const bytes = new Random(2).bytes(1250);
    const answer = await api.publish({ version, name: "b.apk", notes: "second", bytes });
    expect(await updateOf(answer)).toMatchObject({
      ...hashesOf(bytes),
      Id: first.Id,
      Name: "b.apk",
      Message: "second",
      Size: "1.2 kB",
      Skipped: false,
      Uploads: 6,
    });
    const { status } = await api.download(first);
    expect(status).toBe(404);
    const stored = await api.download({ ...first, Name: "b.apk" });
    expect(await stored.bytes()).toEqual(bytes);
    // The object before stays for those who are reading it.
    expect(await leftovers(app)).toHaveLength(1);
    const [line] = await app.sql`select due_at - now() < '11 minutes' as soon,
      due_at - now() > '9 minutes' as late from build_garbage`;
    expect(line).toEqual({ soon: true, late: true });
    await app.sql`update builds set uploads = 7 where id = ${first.Id}`;
    expect(await api.published({ version, name: "b.apk" })).toMatchObject({ Uploads: 7 });
    expect(await garbage(app)).toBe(2);
  });
});

describe("publishing", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  test.each([
    ["00", false],
    ["01", true],
    ["10", true],
    ["99", true],
  ])("a version that ends in _%s has it skipped: %p", async (suffix, skipped) => {
    const version = aVersion(suffix);
    expect((await api.published({ version })).Skipped).toBe(skipped);
    expect((await api.list()).find(({ Version }) => Version === version)?.Skipped).toBe(skipped);
  });

  test.each(["1_01", "123456789_01", "00012_01"])("takes the version %s", async (version) => {
    expect((await api.published({ version })).Version).toBe(version);
  });

  test.each(["", "arm64-v8a", "x86_64", "A".repeat(32)])("takes the ABI '%s'", async (abi) => {
    expect((await api.published({ abi })).TargetABI).toBe(abi);
  });

  test.each(["a", "We Messe 1.0.apk", "сборка.apk", "a".repeat(255), ".apk"])(
    "takes the name %s",
    async (name) => {
      const update = await api.published({ name });
      expect(update.Name).toBe(name);
      expect((await api.download(update)).status).toBe(200);
    },
  );

  test("takes the fields before the file and after it", async () => {
    const version = aVersion();
    const [first, ...others] = formParts({ version, notes: "n", fields: { channel: "beta" } });
    if (first === undefined) throw new Error("a form has parts");
    for (const parts of [[first, ...others], [...others, first], [first, ...others].toReversed()])
      expect(await updateOf(api.postForm(encodeForm(parts)))).toMatchObject({
        Version: version,
        TargetABI: "arm64",
        Message: "n",
        Channel: "beta",
      });
  });

  test("takes the fields from the query, where the form does not have them", async () => {
    const version = aVersion();
    const query = new URLSearchParams({
      appVersion: version,
      targetABI: "arm",
      appNotes: "from the query & well",
      channel: "beta",
      rollout: "12.5",
      withdrawn: "true",
      floorPerABI: "true",
    });
    const file = formParts().filter((part) => "file" in part);
    const options = { query: `?${query.toString()}` };
    expect(await updateOf(api.postForm(encodeForm(file), options))).toMatchObject({
      Version: version,
      TargetABI: "arm",
      Message: "from the query & well",
      Channel: "beta",
      Rollout: 12.5,
      Withdrawn: true,
      FloorPerABI: true,
    });
    const mixed = await updateOf(
      api.postForm(encodeForm([{ field: "appNotes", value: "form" }, ...file]), options),
    );
    expect(mixed).toMatchObject({ Version: version, Message: "form" });
    const form = formParts({ version: aVersion(), abi: "x86" });
    const both = await updateOf(api.postForm(encodeForm(form), options));
    expect(both).toMatchObject({ TargetABI: "x86", Message: "from the query & well" });
  });

  test("takes the form that a client library makes, and leaves unknown fields alone", async () => {
    const version = aVersion();
    const form = new FormData();
    form.set("appVersion", version);
    for (const name of ["something", "toString", "constructor", "__proto__", "Id"])
      form.set(name, "else");
    form.set("tmpFile", new File(["bytes"], "lib.apk"));
    const answer = await fetch(`${api.url}/api/v1/updates`, {
      method: "POST",
      headers: api.headers,
      body: form,
    });
    const expected = { Version: version, TargetABI: "", Name: "lib.apk", Size: "5 B" };
    expect(await updateOf(answer)).toMatchObject(expected);
  });

  test("takes a body that is sent in chunks, of a byte each", async () => {
    const bytes = new Random(3).bytes(300);
    const form = encodeForm(formParts({ bytes }));
    const connection = await RawConnection.open(app.url);
    using _ = connection;
    const headers = { ...MULTIPART, ...api.headers, "transfer-encoding": "chunked" };
    connection.head("POST /api/v1/updates", headers);
    for (const byte of form) connection.write("1\r\n", Uint8Array.of(byte), "\r\n");
    connection.write("0\r\n\r\n");
    const { status, body } = await connection.response();
    expect([status, JSON.parse(body.toString()).SHA256]).toEqual([200, hashesOf(bytes).SHA256]);
  });

  test("with empty notes or none keeps the notes that were", async () => {
    const build = { version: aVersion() };
    await api.published({ ...build, notes: "kept" });
    for (const notes of [{ notes: "" }, {}])
      expect((await api.published({ ...build, ...notes })).Message).toBe("kept");
    const [listed] = (await api.list()).filter(({ Version }) => Version === build.version);
    expect(listed?.Message).toBe("kept");
  });

  test("takes notes of 64 KiB", async () => {
    const notes = "n".repeat(65_536);
    expect((await api.published({ notes })).Message).toBe(notes);
  });

  test("the same version for two ABIs is two builds", async () => {
    const version = aVersion();
    const arm = await api.published({ version, abi: "arm" });
    const arm64 = await api.published({ version, abi: "arm64" });
    expect(arm64.Id).toBeGreaterThan(arm.Id);
    expect((await api.download(arm)).status).toBe(200);
  });
});

test("the list has every build by id, with links to the own server", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const empty = await api.get("/api/v1/updates", api.headers);
  expect(await empty.text()).toBe("[]");
  const first = await api.published({ abi: "arm", fields: { withdrawn: "true" } });
  const second = await api.published({ abi: "", fields: { channel: "beta", rollout: "0" } });
  const third = await api.published({ version: "0007_00" });
  const answer = await api.get("/api/v1/updates?x=1", api.headers);
  expect(answer.headers.get("content-type")).toBe("application/json; charset=utf-8");
  expect(await answer.json()).toEqual([first, second, third]);
  await api.published({ version: first.Version, abi: "arm", name: "other.apk" });
  const text = await (await api.get("/api/v1/updates", api.headers)).text();
  expect([...text.matchAll(/"Id":(\d+)/g)].map(([, id]) => Number(id))).toEqual(
    [first, second, third].map(({ Id }) => Id),
  );
  expect(text).toContain(`${app.url}/source/arm/${first.Version}/other.apk`);
});

test("a count of any 64 bits loses no digit", async () => {
  await using app = await TestApp.start();
  const api = await UpdateApi.of(app);
  const { Id } = await api.published({ version: "2264_00" });
  await app.sql`update builds set uploads = ${MANY.toString()} where id = ${Id}`;
  for (const answer of [
    await api.get("/api/v1/updates", api.headers),
    await api.patch(Id, { rollout: 100 }),
    await api.check("2263_01"),
    await api.publish({ version: "2264_00" }),
  ])
    expect(await answer.text()).toContain(`"Uploads":${MANY}`);
});
