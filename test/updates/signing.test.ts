import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { describe, expect, test } from "bun:test";

import { TestApp } from "../support/app.ts";
import { PublishedBefore } from "../support/published-before.ts";
import { RawConnection } from "../support/raw-connection.ts";
import { UpdateApi, aVersion, plainOf } from "../support/updates.ts";

const OWNER = generateKeyPairSync("ed25519");
const STRANGER = generateKeyPairSync("ed25519");
const SIGNED = { UPDATE_PUBLIC_KEY: OWNER.publicKey.export({ type: "spki", format: "pem" }) };
const BYTES = Buffer.from("a signed build");

/** What the owner of a key says of a build: Ed25519 over the 32 bytes of its SHA-256. */
function signatureOf(bytes: Uint8Array, { privateKey } = OWNER): string {
  const digest = createHash("sha256").update(bytes).digest();
  return sign(null, digest, privateKey).toString("base64");
}

describe("where a public key is configured", () => {
  const app = TestApp.forTests({ env: SIGNED });
  const api = UpdateApi.forTests(app);

  test("a build that its owner has signed is published, and says so everywhere", async () => {
    const signature = signatureOf(BYTES);
    const update = await api.published({ bytes: BYTES, fields: { signature } });
    expect(update.Signature).toBe(signature);
    expect((await api.list()).find(({ Id }) => Id === update.Id)?.Signature).toBe(signature);
    const headers = { "x-build-sha256": update.SHA256, "x-build-signature": signature };
    const check = await api.check("0001_01");
    const download = await api.download(update);
    const part = await api.download(update, { range: "bytes=0-3" });
    const flat = await api.get(`/source/${update.Name}`);
    for (const answer of [check, download, part, flat])
      expect(Object.fromEntries(answer.headers)).toMatchObject(headers);
    expect(Object(await check.json())).toMatchObject({ Signature: signature });
    using connection = await RawConnection.open(app.url);
    connection.head(`HEAD /source/${update.Name}`);
    const head = await connection.response({ bodyless: true });
    expect(head.headers.get("x-build-signature")).toBe(signature);
  });

  test("a signature may come after the file, and in the query", async () => {
    const signature = signatureOf(BYTES);
    const version = aVersion();
    const form = new FormData();
    form.set("appVersion", version);
    form.set("tmpFile", new File([BYTES], "app.apk"));
    for (const where of ["form", "query"]) {
      if (where === "form") form.set("signature", signature);
      else form.delete("signature");
      const query = where === "form" ? "" : `?signature=${encodeURIComponent(signature)}`;
      const answer = await fetch(`${app.url}/api/v1/updates${query}`, {
        method: "POST",
        headers: api.headers,
        body: form,
      });
      expect([where, Object(await answer.json()).Signature]).toEqual([where, signature]);
    }
  });

  test("a build is refused without a signature, or with that of other bytes or of a stranger", async () => {
    await using other = await TestApp.start({ env: SIGNED });
    const first = Buffer.from("a build of 2264_00");
    const before = await PublishedBefore.in(other, { signature: signatureOf(first) });
    const right = signatureOf(BYTES);
    const flipped = Buffer.from(right, "base64");
    flipped[10] = (flipped[10] ?? 0) ^ 1;
    const raw = sign(null, BYTES, OWNER.privateKey).toString("base64");
    for (const signature of [
      undefined,
      "",
      signatureOf(first),
      signatureOf(BYTES, STRANGER),
      flipped.toString("base64"),
      // Over the bytes themselves, not over their hash.
      raw,
      right.slice(0, -4),
      `${right}AAAA`,
    ]) {
      const fields = signature === undefined ? {} : { signature };
      const build = { version: before.version, bytes: BYTES, fields };
      const [status, text] = await before.outlives(before.api.publish(build));
      expect([signature, status]).toEqual([signature, 400]);
      expect(text).toContain("signature");
    }
  });

  test("a signature is changed only for one that is right", async () => {
    const update = await api.published({ bytes: BYTES, fields: { signature: signatureOf(BYTES) } });
    for (const signature of ["", signatureOf(BYTES, STRANGER)]) {
      const [status, text] = await plainOf(api.patch(update.Id, { signature }));
      expect([signature, status]).toEqual([signature, 400]);
      expect(text).toContain("signature");
    }
    expect((await api.list()).find(({ Id }) => Id === update.Id)).toEqual(update);
  });
});

describe("where none is configured", () => {
  const app = TestApp.forTests();
  const api = UpdateApi.forTests(app);

  test("any signature of 64 bytes is kept, for clients to judge", async () => {
    const signature = signatureOf(BYTES, STRANGER);
    const update = await api.published({ bytes: BYTES, fields: { signature } });
    expect(update.Signature).toBe(signature);
    const other = signatureOf(BYTES);
    expect((await api.patched(update.Id, { signature: other })).Signature).toBe(other);
    expect((await api.download(update)).headers.get("x-build-signature")).toBe(other);
    const { headers } = await api.check("0001_01");
    expect(headers.get("x-build-signature")).toBe(other);
  });

  test("other bytes do not keep the signature of those before", async () => {
    const version = aVersion();
    await api.published({ version, bytes: BYTES, fields: { signature: signatureOf(BYTES) } });
    expect((await api.published({ version, bytes: Buffer.from("other") })).Signature).toBe("");
  });
});

test("a public key that is none ends the start", () => {
  const start = TestApp.start({ env: { UPDATE_PUBLIC_KEY: "not a key" } });
  expect(start).rejects.toThrow("UPDATE_PUBLIC_KEY");
});
