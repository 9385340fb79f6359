import { type Static, type TSchema, Type } from "typebox";
import { Value } from "typebox/value";

import { type TestApp } from "./app.ts";

const STRICT = { additionalProperties: false };
const TIME = Type.String({ pattern: String.raw`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$` });
const COUNT = Type.Integer({ minimum: 0 });
const NULLABLE_TEXT = Type.Union([Type.String(), Type.Null()]);

const Success = Type.Object(
  { success: Type.Literal(true), result: Type.Unknown(), reason: Type.Null() },
  STRICT,
);
const Refusal = Type.Object(
  { success: Type.Literal(false), result: Type.Null(), reason: Type.String({ minLength: 1 }) },
  STRICT,
);

export const Device = Type.Object(
  {
    _id: Type.String({ pattern: "^[0-9a-f]{24}$" }),
    id: Type.Integer({ minimum: 1 }),
    random_bucket: Type.Integer({ minimum: 1, maximum: 10_000 }),
    external_id: Type.String(),
    push_token: Type.String(),
    send_platform: Type.Integer({ minimum: 0, maximum: 2 }),
    device_platform: Type.Integer({ minimum: 0, maximum: 3 }),
    device_properties: Type.Array(
      Type.Record(Type.String(), Type.Unknown(), { minProperties: 1, maxProperties: 1 }),
    ),
  },
  STRICT,
);
export type Device = Static<typeof Device>;

export const Notification = Type.Object(
  {
    id: Type.Integer({ minimum: 1 }),
    uuid: Type.String({ pattern: "^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$" }),
    title: Type.String(),
    body: Type.String(),
    sent: Type.Object({ android: COUNT, ios: COUNT }, STRICT),
    deep_link: NULLABLE_TEXT,
    image_url: NULLABLE_TEXT,
    icon_url: NULLABLE_TEXT,
    conditions: Type.Record(Type.String(), Type.Unknown()),
    // Present if a campaign names any; never in lists.
    external_ids: Type.Optional(Type.Array(Type.String())),
    status: Type.Integer({ minimum: 0, maximum: 5 }),
    scheduled_at: TIME,
    created_at: TIME,
    modified_at: Type.Union([TIME, Type.Null()]),
    sent_web: COUNT,
    targeted: COUNT,
    failed: COUNT,
    error: NULLABLE_TEXT,
  },
  STRICT,
);
export type Notification = Static<typeof Notification>;

export const Events = Type.Object(
  {
    total: COUNT,
    events: Type.Array(
      Type.Object(
        {
          id: Type.Integer({ minimum: 1 }),
          notification: Notification,
          event: Type.String(),
          created_at: TIME,
        },
        STRICT,
      ),
    ),
  },
  STRICT,
);
export type Events = Static<typeof Events>;

type Page<T> = { total: number; items: T[] };
type Headers = Record<string, string>;

/** Client for the routes of devices and notifications; throws for answers outside the contract. */
export class PushApi {
  readonly #app: Pick<TestApp, "fetch">;
  readonly #headers: Headers;

  constructor(app: Pick<TestApp, "fetch">, headers: Headers = {}) {
    this.#app = app;
    this.#headers = headers;
  }

  /** Sends text and bytes unchanged, anything else as JSON. */
  async send(
    method: string,
    path: string,
    body?: unknown,
    headers: Headers = {},
  ): Promise<Response> {
    return await this.#app.fetch(path, {
      method,
      headers: { ...this.#headers, ...headers },
      ...(body !== undefined && { body: bodyOf(body) }),
    });
  }

  /** Sends a request and returns the result of the success. */
  async ok(method: string, path: string, body?: unknown, headers: Headers = {}): Promise<unknown> {
    return await resultOf(await this.send(method, path, body, headers));
  }

  /** Sends a request and returns the status and reason of the refusal. */
  async refused(
    method: string,
    path: string,
    body?: unknown,
    headers: Headers = {},
  ): Promise<[status: number, reason: string]> {
    return await refusalOf(await this.send(method, path, body, headers));
  }

  /** Creates a device, by default one with FCM on Android. */
  async putDevice(fields: object = {}): Promise<Device> {
    const body = {
      external_id: `device-${crypto.randomUUID()}`,
      push_token: "token",
      send_platform: 1,
      device_platform: 1,
      ...fields,
    };
    return valid(Device, await this.ok("PUT", "/devices", body));
  }

  async device(externalId: string): Promise<Device> {
    return valid(Device, await this.ok("GET", devicePath(externalId)));
  }

  async setProperties(externalId: string, properties: unknown): Promise<Device> {
    const path = devicePath(externalId, "/properties/:add");
    return valid(Device, await this.ok("POST", path, { properties }));
  }

  async events(externalId: string, query = ""): Promise<Events> {
    return valid(Events, await this.ok("GET", devicePath(externalId, `/notifications${query}`)));
  }

  async search(body: object = {}): Promise<Page<Device>> {
    return await page(Device, await this.send("POST", "/devices/-/:search", body));
  }

  /** Creates a notification, by default for every device. */
  async draft(fields: object = {}): Promise<Notification> {
    const body = { title: "Hello", body: "There is news.", conditions: {}, ...fields };
    return valid(Notification, await this.ok("POST", "/notifications", body));
  }

  async notification(uuid: string): Promise<Notification> {
    return valid(Notification, await this.ok("GET", `/notifications/${uuid}`));
  }

  async list(query = ""): Promise<Page<Notification>> {
    return await page(Notification, await this.send("GET", `/notifications${query}`));
  }

  async launch(uuid: string): Promise<Notification> {
    return valid(Notification, await this.ok("POST", `/notifications/${uuid}/:launch`));
  }

  async setStatus(uuid: string, status: number): Promise<Notification> {
    return valid(Notification, await this.ok("PUT", `/notifications/${uuid}/status`, { status }));
  }
}

export function devicePath(externalId: string, rest = ""): string {
  return `/devices/${encodeURIComponent(externalId)}${rest}`;
}

/** Returns a condition node as the server describes it. */
export function node(fields: object = {}): Record<string, unknown> {
  return {
    conditions: null,
    key: null,
    value: null,
    operator: null,
    join_type: null,
    ...fields,
  };
}

export async function resultOf(response: Response): Promise<unknown> {
  if (response.status !== 200)
    throw new Error(`answered ${response.status}: ${await response.text()}`);
  return valid(Success, await jsonOf(response)).result;
}

export async function refusalOf(response: Response): Promise<[status: number, reason: string]> {
  if (response.status < 400)
    throw new Error(`answered ${response.status}: ${await response.text()}`);
  return [response.status, valid(Refusal, await jsonOf(response)).reason];
}

/** Checks a value and returns it unchanged. */
export function valid<T extends TSchema>(schema: T, value: unknown): Static<T> {
  if (Value.Check(schema, value)) return value;
  const [problem] = Value.Errors(schema, value);
  throw new Error(`${problem?.instancePath} ${problem?.message}: ${JSON.stringify(value)}`);
}

async function page<T extends TSchema>(schema: T, response: Response): Promise<Page<Static<T>>> {
  const items = valid(Type.Array(schema), await resultOf(response));
  const total = response.headers.get("x-total-count") ?? "";
  if (!/^\d+$/.test(total)) throw new Error(`X-Total-Count is "${total}"`);
  return { total: Number(total), items };
}

async function jsonOf(response: Response): Promise<unknown> {
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("application/json")) throw new Error(`an answer of type "${type}"`);
  return await response.json();
}

function bodyOf(body: unknown): Bun.BodyInit {
  return typeof body === "string" || body instanceof Uint8Array || body instanceof ReadableStream
    ? body
    : JSON.stringify(body);
}
