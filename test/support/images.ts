import { readFileSync } from "node:fs";
import { join } from "node:path";

import { type TestApp, type TestSession } from "./app.ts";
import { objectOf } from "./answers.ts";
import { type FormPart, MULTIPART, encodeForm } from "./forms.ts";

export type UploadOptions = {
  path?: string;
  /** fields before the files; by default the session's project */
  fields?: FormPart[];
  headers?: Record<string, string>;
};

/** A server, and a project of its. */
export type ImageTarget = { url: string; projectID: number };

/** Sends the parts as one form of the session. */
export async function upload(
  target: ImageTarget,
  { token }: Pick<TestSession, "token">,
  parts: FormPart[],
  { path = "/v1/ios/images", fields = [projectField(target)], headers = {} }: UploadOptions = {},
): Promise<Response> {
  return await fetch(target.url + path, {
    method: "POST",
    body: encodeForm([...fields, ...parts]),
    headers: {
      authorization: `Bearer ${token}`,
      ...MULTIPART,
      ...headers,
    },
  });
}

/** Sends one image. */
export async function uploadImage(
  target: ImageTarget,
  session: Pick<TestSession, "token">,
  name: string,
  bytes: Uint8Array,
): Promise<Response> {
  return await upload(target, session, [aFile(name, bytes)]);
}

export function projectField({ projectID }: Pick<ImageTarget, "projectID">): FormPart {
  return { field: "projectID", value: String(projectID) };
}

export function aFile(file: string, content: string | Uint8Array = `bytes of ${file}`): FormPart {
  return { file, bytes: typeof content === "string" ? Buffer.from(content) : content };
}

/** Returns headers that make the request come from that network, if the peer is a trusted proxy. */
export function from(network: number): Record<string, string> {
  return { "x-forwarded-for": `203.0.113.${network}` };
}

/**
 * Returns the stored bytes of a name, or undefined if there are none. `query` selects one of its
 * images.
 */
export async function imageOf(
  app: TestApp,
  name: string,
  projectId: number = app.project.id,
  query = "",
): Promise<Uint8Array | undefined> {
  const answer = await app.fetch(`/v1/images/${projectId}/${encodeURIComponent(name)}${query}`);
  if (answer.status === 404) return undefined;
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.bytes();
}

/** Returns the image that a session last sent under a name, as text. */
export async function textOf(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
  name: string,
): Promise<string | undefined> {
  const bytes = await imageOf(app, name, app.project.id, `?session=${sessionID}`);
  return bytes && Buffer.from(bytes).toString();
}

/** Lists a session's images. */
export async function imageList(
  app: Pick<TestApp, "fetch">,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<Record<string, unknown>[]> {
  const { images } = await objectOf(app.fetch(`/v1/sessions/${sessionID}/images?limit=1000`));
  if (!Array.isArray(images)) throw new Error("no list of images");
  return images;
}

/** Returns the names of the images that a session sent. */
export async function imagesOf(
  app: Pick<TestApp, "fetch">,
  session: Pick<TestSession, "sessionID">,
): Promise<string[]> {
  return (await imageList(app, session)).map(({ name }) => String(name));
}

export function sha256Of(content: string | Uint8Array): string {
  return Bun.SHA256.hash(content, "hex");
}

/** Returns the `imagesHashList` of a start. */
export async function hashList(app: TestApp, projectID = app.projectID): Promise<unknown> {
  return (await objectOf(app.start({ projectID })))["imagesHashList"];
}

/** Forms as tracker 19.0.1 sends them, one after another, with ten frames of one canvas each. */
export const RECORDED_CANVAS = ["01", "02", "03"].map(
  (name) => new Uint8Array(readFileSync(join(import.meta.dir, "../images/tracker", `${name}.bin`))),
);

/** Sends a recorded form, whose boundary is its first line. */
export async function sendRecorded(
  app: Pick<TestApp, "post">,
  { token }: Pick<TestSession, "token">,
  form: Uint8Array,
): Promise<Response> {
  const [first = ""] = Buffer.from(form).toString("latin1").split("\r\n");
  return await app.post("/ingest/v1/web/images", form, {
    authorization: `Bearer ${token}`,
    "content-type": `multipart/form-data; boundary=${first.slice(2)}`,
  });
}

/** Returns the file in a recorded form. */
export function fileIn(form: Uint8Array): Uint8Array {
  const text = Buffer.from(form).toString("latin1");
  const [boundary = ""] = text.split("\r\n");
  const file = text.indexOf("filename=");
  const start = text.indexOf("\r\n\r\n", file) + 4;
  return form.subarray(start, text.indexOf(`\r\n${boundary}`, start));
}

/** Encodes a frame as SDKs do; it may claim another size than it has. */
export function frameRecord(
  at: number,
  bytes: Uint8Array,
  claimed: number = bytes.length,
): Uint8Array {
  const header = Buffer.alloc(12);
  header.writeBigUInt64LE(BigInt(at));
  header.writeUInt32LE(claimed, 8);
  return Buffer.concat([header, bytes]);
}
