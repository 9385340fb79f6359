import { sessionRow } from "./answers.ts";
import { type TestApp, type TestSession } from "./app.ts";

const FORMS = ["application/json", "application/msgpack", "application/octet-stream"];
const FILES = ["dom.mobs", "dom.mobe", "devtools.mob"];

/** Everything that the reading routes say about a session's batches, by what was asked for. */
export async function answersAbout(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<Record<string, string>> {
  const path = `/v1/sessions/${sessionID}`;
  const answers: Record<string, string> = {};
  const ask = async (name: string, to: string, headers: Record<string, string> = {}) => {
    const answer = await app.fetch(path + to, { headers });
    const text = (await answer.bytes()).toBase64();
    answers[name] = `${answer.status} ${answer.headers.get("etag")} ${text}`;
  };
  // The other fields are written some time after the batches.
  answers["summary"] = JSON.stringify((await sessionRow(app, { sessionID }))["batches"]);
  await ask("replay files", "/replay");
  for (const accept of FORMS)
    for (const query of ["", "?quarantined=true"])
      await ask(`${accept}${query}`, `/batches${query}`, { accept });
  for (const file of FILES)
    for (const range of ["", "bytes=5-1000000"])
      await ask(`${file} ${range}`, `/replay/${file}`, {
        "accept-encoding": "identity",
        ...(range !== "" && { range }),
      });
  return answers;
}
