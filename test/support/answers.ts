import { Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp, type TestSession } from "./app.ts";

const Refusal = Type.Object({ error: Type.String() }, { additionalProperties: false });
const Fields = Type.Record(Type.String(), Type.Unknown());

/** The status and text of a refusal; throws when the answer is not in the error format of the SDK and reading routes. */
export async function refusalOf(
  answer: Response | Promise<Response>,
): Promise<[status: number, text: string]> {
  const response = await answer;
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("application/json")) throw new Error(`an error of type "${type}"`);
  return [response.status, Value.Parse(Refusal, await response.json()).error];
}

/** The object in a 200. */
export async function objectOf(
  answer: Response | Promise<Response>,
): Promise<Record<string, unknown>> {
  const response = await answer;
  if (response.status !== 200)
    throw new Error(`answered ${response.status}: ${await response.text()}`);
  return Value.Parse(Fields, await response.json());
}

/** The session as it is read back. */
export async function sessionRow(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
): Promise<Record<string, unknown>> {
  return await objectOf(app.fetch(`/v1/sessions/${sessionID}`));
}

/** A counter's value in the server's metrics; 0 while it has not been counted. */
export async function metric(app: TestApp, series: string): Promise<number> {
  const text = await (await app.fetch("/metrics")).text();
  const line = text.split("\n").find((one) => one.startsWith(`${series} `));
  return Number(line?.slice(series.length + 1) ?? 0);
}
