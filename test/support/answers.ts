import { Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp, type TestSession } from "./app.ts";

const Refusal = Type.Object({ error: Type.String() }, { additionalProperties: false });
const Fields = Type.Record(Type.String(), Type.Unknown());

/**
 * Returns the status and text of a refusal. Throws if the answer does not have the error format of
 * the SDK and reading routes.
 */
export async function refusalOf(
  answer: Response | Promise<Response>,
): Promise<[status: number, text: string]> {
  const response = await answer;
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("application/json")) throw new Error(`an error of type "${type}"`);
  return [response.status, Value.Parse(Refusal, await response.json()).error];
}

/** Returns the object in a 200. Throws for any other answer. */
export async function objectOf(
  answer: Response | Promise<Response>,
): Promise<Record<string, unknown>> {
  const response = await answer;
  if (response.status !== 200)
    throw new Error(`answered ${response.status}: ${await response.text()}`);
  return Value.Parse(Fields, await response.json());
}

/** Reads the session back. */
export async function sessionRow(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<Record<string, unknown>> {
  return await objectOf(app.fetch(`/v1/sessions/${sessionID}`));
}

/** Returns a number of a server's metrics, or `absent` while it has none of that name. */
export async function metric(
  { url }: { url: string },
  series: string,
  absent = 0,
): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const line = text.split("\n").find((one) => one.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1) ?? absent);
}
