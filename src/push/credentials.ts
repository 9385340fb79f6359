import { createPrivateKey, type KeyObject } from "node:crypto";

import { Type } from "typebox";
import { Value } from "typebox/value";

import { UsageError } from "../platform/errors.ts";
import { parseJson } from "../platform/json.ts";
import { unescapePem } from "../platform/config/env-file.ts";

const ServiceAccountFile = Type.Object({
  project_id: Type.String({ pattern: "^[A-Za-z0-9.:_-]{1,100}$" }),
  client_email: Type.String({ minLength: 1, maxLength: 320 }),
  private_key: Type.String({ minLength: 1 }),
  token_uri: Type.String({ pattern: "^https?://" }),
});
export type ServiceAccount = Type.Static<typeof ServiceAccountFile>;

/** Parses the JSON key file of a Google service account. Error texts contain nothing of the file. */
export function parseServiceAccount(json: string): ServiceAccount {
  const file = parseJson(json);
  if (file === undefined) throw new UsageError("the service account is not JSON");
  const [problem] = Value.Errors(ServiceAccountFile, file);
  if (problem !== undefined)
    throw new UsageError(`the service account has no valid ${field(file)}`);
  const { project_id, client_email, private_key, token_uri } = Value.Parse(
    ServiceAccountFile,
    file,
  );
  if (!URL.canParse(token_uri)) throw new UsageError("the service account has no valid token_uri");
  serviceAccountKey(private_key);
  return { project_id, client_email, private_key, token_uri };
}

/** Reads the text of a .p8 file. Throws UsageError if it is not a key of Apple's kind. */
export function apnsKey(pem: string): KeyObject {
  const key = readKey(pem);
  if (key?.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    throw new UsageError("the APNs key is not a P-256 private key in PEM form (a .p8 file)");
  return key;
}

export function serviceAccountKey(pem: string): KeyObject {
  const key = readKey(pem);
  if (key?.asymmetricKeyType !== "rsa")
    throw new UsageError("the service account's private_key is not an RSA private key in PEM form");
  return key;
}

function readKey(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(unescapePem(pem));
  } catch {
    return undefined;
  }
}

/** Returns the name of the first field that is missing or wrong. */
function field(file: unknown): string {
  if (typeof file !== "object" || file === null) return "fields";
  for (const [name, schema] of Object.entries(ServiceAccountFile.properties))
    if (!Value.Check(schema, Reflect.get(file, name))) return name;
  return "fields";
}
