import { type TestApp, type TestSession } from "./app.ts";
import { objectOf } from "./answers.ts";
import { BOUNDARY, type FormPart, encodeForm } from "./forms.ts";

export type UploadOptions = {
  path?: string;
  /** what comes before the files; the session's own project unless told otherwise */
  fields?: FormPart[];
  headers?: Record<string, string>;
};

/** Sends the parts as one form of the session. */
export async function upload(
  app: TestApp,
  { token }: Pick<TestSession, "token">,
  parts: FormPart[],
  { path = "/v1/ios/images", fields = [projectField(app)], headers = {} }: UploadOptions = {},
): Promise<Response> {
  return await app.post(path, encodeForm([...fields, ...parts]), {
    authorization: `Bearer ${token}`,
    "content-type": `multipart/form-data; boundary=${BOUNDARY}`,
    ...headers,
  });
}

export function projectField(app: TestApp): FormPart {
  return { field: "projectID", value: String(app.projectID) };
}

export function aFile(file: string, content: string | Uint8Array = `bytes of ${file}`): FormPart {
  return { file, bytes: typeof content === "string" ? Buffer.from(content) : content };
}

/** The stored bytes of a name; undefined when there are none. */
export async function imageOf(
  app: TestApp,
  name: string,
  projectId: number = app.project.id,
): Promise<Uint8Array | undefined> {
  const answer = await app.fetch(`/v1/images/${projectId}/${encodeURIComponent(name)}`);
  if (answer.status === 404) return undefined;
  if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
  return await answer.bytes();
}

/** The names that a session was the first to store. */
export async function imagesOf(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<string[]> {
  const { images } = await objectOf(app.fetch(`/v1/sessions/${sessionID}/images?limit=1000`));
  if (!Array.isArray(images)) throw new Error("no list of images");
  return images.map(({ name }) => String(name));
}

/** What a start answers as imagesHashList. */
export async function hashList(app: TestApp, projectID = app.projectID): Promise<unknown> {
  return (await objectOf(app.start({ projectID })))["imagesHashList"];
}
