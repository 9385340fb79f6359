import { Type } from "typebox";
import { Value } from "typebox/value";

import { objectOf } from "./answers.ts";
import { TestApp } from "./app.ts";
import { mint } from "./presence.ts";
import { PushApi } from "./push-api.ts";
import { Documented, SchemaValues } from "./schema-values.ts";
import { UpdateApi, aSignature } from "./updates.ts";

const Parameter = Type.Object({
  name: Type.String(),
  in: Type.String(),
  required: Type.Optional(Type.Boolean()),
  schema: Documented,
});
const Content = Type.Object({ schema: Documented, example: Type.Optional(Type.Unknown()) });
type Content = Type.Static<typeof Content>;
const Operation = Type.Object({
  tags: Type.Array(Type.String()),
  parameters: Type.Optional(Type.Array(Parameter)),
  requestBody: Type.Optional(Type.Object({ content: Type.Record(Type.String(), Content) })),
});
type Operation = Type.Static<typeof Operation>;
const Documents = Type.Object({
  components: Type.Object({ schemas: Type.Record(Type.String(), Documented) }),
  paths: Type.Record(Type.String(), Type.Record(Type.String(), Operation)),
});

type Sent = { query?: string; body?: Bun.BodyInit };

/**
 * The routes of a server as its OpenAPI document describes them, such as `post /ping`. Requests have
 * every credential, and name what exists.
 */
export class DocumentedRoutes implements AsyncDisposable {
  readonly app: TestApp;
  readonly operations: Map<string, Operation>;
  readonly values: SchemaValues;
  readonly notificationId: number;
  readonly #send: (route: string, sent: Sent) => Promise<Response>;

  private constructor(
    app: TestApp,
    document: Type.Static<typeof Documents>,
    { notificationId, send }: { notificationId: number; send: DocumentedRoutes["send"] },
  ) {
    this.app = app;
    this.operations = new Map(
      Object.entries(document.paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, one]) => [`${method} ${path}`, one] as const),
      ),
    );
    this.values = new SchemaValues(document.components.schemas);
    this.notificationId = notificationId;
    this.#send = send;
  }

  static async of(app: TestApp): Promise<DocumentedRoutes> {
    const document = Value.Parse(Documents, await objectOf(app.fetch("/docs/json")));
    const push = new PushApi(app);
    const updates = await UpdateApi.of(app);
    const { external_id: device } = await push.putDevice();
    const { uuid, id } = await push.draft();
    const { sessionID } = await app.aSession();
    const { token } = await mint(app, { userid: "ann", clientid: "phone" });
    const client = await aSignature(app, "client");
    const paths: Record<string, string> = {
      "/devices/{external_id}/properties/{add}": `/devices/${device}/properties/:add`,
      "/devices/{external_id}/notifications": `/devices/${device}/notifications`,
      "/devices/-/{search}": "/devices/-/:search",
      "/notifications/{uuid}/status": `/notifications/${uuid}/status`,
      "/notifications/{uuid}/{launch}": "/notifications/-/:estimate",
      "/internal/devices/logs/{action}": "/internal/devices/logs/notification:add",
      "/internal/notifications/{uuid}/{action}": `/internal/notifications/${uuid}/sent:increase`,
      "/api/v1/updates/{version}": `/api/v1/updates/${(await updates.published()).Id}`,
      "/v1/sessions/{sessionID}/batches": `/v1/sessions/${sessionID}/batches`,
      "/v1/sessions/{sessionID}/images": `/v1/sessions/${sessionID}/images`,
      "/v1/sessions/{sessionID}/replay": `/v1/sessions/${sessionID}/replay`,
      "/v1/sessions/{sessionID}/replay/{file}": `/v1/sessions/${sessionID}/replay/dom.mobs`,
      "/v1/images/{projectId}/{hash}": `/v1/images/${app.project.id}/hash`,
      "/subscribe/{userid}": "/subscribe/ann",
      "/subscribe/{userid}/client/{clientid}": "/subscribe/ann/client/phone",
    };
    const send = async (route: string, { query = "", body }: Sent) => {
      const [method = "", template = ""] = route.split(" ");
      const signature = route === "post /api/v1/users" ? client : updates.signature;
      return await app.fetch(`${paths[template] ?? template}${query}`, {
        method: method.toUpperCase(),
        headers: { authorization: `Bearer ${token}`, signature },
        ...(body !== undefined && { body }),
      });
    };
    return new DocumentedRoutes(app, document, { notificationId: id, send });
  }

  /** Lists the routes that take a body of that type. */
  taking(type: string): string[] {
    return [...this.operations]
      .filter(([, { requestBody }]) => requestBody?.content[type] !== undefined)
      .map(([route]) => route);
  }

  body(route: string, type: string): Content {
    const content = this.#operation(route).requestBody?.content[type];
    if (content === undefined) throw new Error(`${route} takes no ${type}`);
    return content;
  }

  /** Returns the schemas of the parameters in the query, and the names that are required. */
  query(route: string): { schemas: [name: string, schema: Documented][]; required: string[] } {
    const { parameters = [] } = this.#operation(route);
    const inQuery = parameters.filter((one) => one.in === "query");
    return {
      schemas: inQuery.map(({ name, schema }) => [name, schema]),
      required: inQuery.filter((one) => one.required === true).map(({ name }) => name),
    };
  }

  async send(route: string, sent: Sent): Promise<Response> {
    return await this.#send(route, sent);
  }

  /** Sends a request and returns the status of the answer, whose body may never end. */
  async status(route: string, sent: Sent): Promise<number> {
    const answer = await this.#send(route, sent);
    await answer.body?.cancel();
    return answer.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]();
  }

  #operation(route: string): Operation {
    const found = this.operations.get(route);
    if (found === undefined) throw new Error(`${route} is not documented`);
    return found;
  }
}
