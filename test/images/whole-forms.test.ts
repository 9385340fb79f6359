import { expect, setDefaultTimeout, test } from "bun:test";

import { metric } from "../support/answers.ts";
import { TestApp, type TestSession } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";
import { BOUNDARY, encodeForm } from "../support/forms.ts";
import { aFile, imageOf, imagesOf, projectField } from "../support/images.ts";
import { Random } from "../support/random.ts";
import { RawConnection } from "../support/raw-connection.ts";

setDefaultTimeout(60_000);

const FILE_BYTES = 100_000;
const BEGUN_BYTES = 50_000;
// An eighth of it is for forms that are read in one piece: two of these.
const ENV = { INFLIGHT_BYTES_MAX: String(2 ** 21), COMMIT_BYTES: String(2 ** 19) };

/** A form of one small image, sent in two pieces over a connection of its own. */
class SlowForm implements Disposable {
  readonly bytes: Uint8Array;
  readonly #form: Uint8Array;
  readonly #connection: RawConnection;

  private constructor(connection: RawConnection, bytes: Uint8Array, form: Uint8Array) {
    this.#connection = connection;
    this.bytes = bytes;
    this.#form = form;
  }

  static async begin(app: TestApp, { token }: TestSession, name: string): Promise<SlowForm> {
    const bytes = new Random(name.length).bytes(FILE_BYTES);
    const form = encodeForm([projectField(app), aFile(name, bytes)]);
    const connection = await RawConnection.open(app.url);
    connection.head("POST /v1/ios/images", {
      authorization: `Bearer ${token}`,
      "content-type": `multipart/form-data; boundary=${BOUNDARY}`,
      "content-length": form.length,
    });
    connection.write(form.subarray(0, BEGUN_BYTES));
    return new SlowForm(connection, bytes, form);
  }

  async end(): Promise<number> {
    this.#connection.write(this.#form.subarray(BEGUN_BYTES));
    return (await this.#connection.response()).status;
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }
}

test("small forms are read in one piece within an eighth of the memory, further ones as they arrive", async () => {
  await using app = await TestApp.start({ env: ENV });
  const session = await app.aSession();
  const inflight = () => metric(app, "floodgate_inflight_bytes");
  using one = await SlowForm.begin(app, session, "1");
  using two = await SlowForm.begin(app, session, "22");
  using three = await SlowForm.begin(app, session, "333");
  // The bytes of a form count as soon as they are parsed, which for the first two is at their end.
  await eventually("the third one is parsed", async () => (await inflight()) > 0);
  expect(await inflight()).toBeLessThanOrEqual(BEGUN_BYTES);
  expect(await Promise.all([one, two, three].map((form) => form.end()))).toEqual([200, 200, 200]);
  for (const [name, form] of [
    ["1", one],
    ["22", two],
    ["333", three],
  ] as const)
    expect(await imageOf(app, name)).toEqual(form.bytes);
  await eventually("nothing is held", async () => (await inflight()) === 0);
});

test("a small form that is cut short stores nothing, and gives its memory to the next one", async () => {
  await using app = await TestApp.start({ env: ENV });
  const session = await app.aSession();
  const inflight = () => metric(app, "floodgate_inflight_bytes");
  for (let time = 0; time < 5; time++) {
    const cut = await SlowForm.begin(app, session, "cut");
    cut[Symbol.dispose]();
  }
  using whole = await SlowForm.begin(app, session, "whole");
  using last = await SlowForm.begin(app, session, "last");
  expect(await whole.end()).toBe(200);
  expect(await inflight()).toBe(0);
  expect(await last.end()).toBe(200);
  expect(await imagesOf(app, session)).toEqual(["last", "whole"]);
});
