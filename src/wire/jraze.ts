import { type StaticDecode, type TObject, type TProperties } from "@sinclair/typebox";
import { t } from "elysia";

import { ORDER_BYS_RULE, ordering } from "../platform/database/ordering.ts";
import { errors, json } from "../platform/http/docs.ts";
import { AppError, STATUS } from "../platform/errors.ts";
import { Input } from "../platform/input.ts";
import { recordOf } from "../platform/json.ts";
import { readJson as readPlainJson } from "../platform/bodies/json.ts";
import { decimal } from "../platform/schema.ts";

const BODY_BYTES_MAX = 2 ** 20;

// Responses of the routes of devices and campaigns, in the format of the jraze server.

/** Renders a success. */
export function envelope(result: unknown, headers: Record<string, string> = {}): Response {
  return Response.json({ success: true, result, reason: null }, { headers });
}

/** Renders an error; its text is hidden unless it is an AppError. */
export function renderEnvelope(error: unknown): Response {
  const isTold = error instanceof AppError;
  const reason = isTold ? error.message : "internal error";
  const status = isTold ? STATUS[error.code] : STATUS.internal;
  return Response.json(
    { success: false, result: null, reason },
    { status, headers: isTold ? error.headers : {} },
  );
}

/** Reads a JSON body. Throws 400 with the text that clients know, and 413 over 1 MiB. */
export async function readJson(request: Request): Promise<unknown> {
  return await readPlainJson(request, BODY_BYTES_MAX, { problem: "Not JSON type" });
}

// Fields that at least one route of devices or campaigns accepts in its body, and the name by which a
// device's properties are answered.
const KNOWN_FIELDS = [
  "external_id",
  "push_token",
  "send_platform",
  "device_platform",
  "device_properties",
  "properties",
  "external_ids",
  "conditions",
  "start",
  "size",
  "order_bys",
  "title",
  "body",
  "image_url",
  "icon_url",
  "deep_link",
  "scheduled_at",
  "status",
  "device_ids",
  "notification_id",
  "ios",
  "android",
];

/**
 * JSON body of a route of devices or campaigns. Unknown fields are ignored, but fields that only
 * other routes use are refused, because the client believes that they have an effect.
 */
export class PushBody<P extends TProperties> extends Input<P> {
  readonly #others = KNOWN_FIELDS.filter((name) => !(name in this.schema.properties));

  async of(request: Request): Promise<StaticDecode<TObject<P>>> {
    return this.read(await readJson(request));
  }

  override read(value: unknown): StaticDecode<TObject<P>> {
    const fields = recordOf(value, "the body");
    const idle = this.#others.filter((name) => (fields[name] ?? null) !== null);
    if (idle.length > 0)
      throw new AppError(
        "invalid",
        `${idle.join(", ")} ${idle.length === 1 ? "has" : "have"} no effect here`,
      );
    return super.read(fields);
  }
}

/** A field that is ignored, because clients send back what they were answered. */
export const IGNORED = t.Optional(t.Any({ description: "ignored" }));

/** Checks a path segment with a literal colon, which the router takes for a parameter. Throws 404. */
export function literal(captured: string, wanted: string): void {
  if (captured !== wanted) throw new AppError("no_route", "no such route");
}

/** Parameters that page through a list. */
export const PAGING = {
  start: decimal(0, 2 ** 31 - 1, { default: 0, description: "how many to pass over" }),
  size: decimal(1, 1000, { default: 10, description: "how many" }),
};

/** Describes and reads the parameter of a query that orders a list by columns. */
export function orderBys(columns: Record<string, string>) {
  const description = `${Object.keys(columns).join(", ")}; ${ORDER_BYS_RULE}`;
  return t
    .Transform(t.String({ default: "", description }))
    .Decode((text) => ordering(text.split(","), columns))
    .Encode(String);
}

/** Describes a route that answers in the envelope, by an example of its result. */
export function detail(summary: string, result: unknown, ...statuses: number[]) {
  return {
    summary,
    responses: { 200: json({ success: true, result, reason: null }), ...errors(...statuses) },
  };
}
