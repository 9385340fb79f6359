import { Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp, type TestSession } from "./app.ts";

const Batches = Type.Object({
  batches: Type.Array(
    Type.Object({
      kind: Type.String(),
      header: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
      messages: Type.Optional(Type.Array(Type.Record(Type.String(), Type.Unknown()))),
      body: Type.Optional(Type.String()),
    }),
  ),
});

export type ReadBatch = {
  kind: string;
  header: Record<string, unknown> | undefined;
  messages: Record<string, unknown>[] | undefined;
  body: string | undefined;
};

/** Reads a session's batches as JSON, without when they were received. */
export async function readBatches(
  app: TestApp,
  { sessionID }: Pick<TestSession, "sessionID">,
  query = "",
): Promise<ReadBatch[]> {
  const answer = await app.fetch(`/v1/sessions/${sessionID}/batches${query}`);
  const { batches } = Value.Parse(Batches, await answer.json());
  return batches.map(({ kind, header, messages, body }) => ({ kind, header, messages, body }));
}

/** Returns the kinds of a session's batches. */
export async function kindsOf(
  app: TestApp,
  session: Pick<TestSession, "sessionID">,
  query = "",
): Promise<string[]> {
  return (await readBatches(app, session, query)).map(({ kind }) => kind);
}
