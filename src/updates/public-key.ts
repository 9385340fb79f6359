import { createPublicKey, type KeyObject } from "node:crypto";

import { UsageError } from "../platform/errors.ts";
import { unescapePem, variableText } from "../platform/config/env-file.ts";

const NAME = "UPDATE_PUBLIC_KEY";

/**
 * Reads the public key that verifies builds, from its PEM or the path of a file. Throws UsageError
 * for anything but Ed25519.
 */
export async function readPublicKey(value: string | undefined): Promise<KeyObject | undefined> {
  if (value === undefined) return undefined;
  const pem = await variableText(NAME, value, /-----BEGIN/);
  // `createPublicKey` would accept a private key, which must not be given to a server.
  if (pem.includes("PRIVATE KEY")) throw new UsageError(`${NAME} is a private key`);
  const key = parseKey(pem);
  if (key?.asymmetricKeyType !== "ed25519") throw new UsageError(`${NAME} is not an Ed25519 key`);
  return key;
}

function parseKey(pem: string): KeyObject | undefined {
  try {
    return createPublicKey(unescapePem(pem));
  } catch {
    return undefined;
  }
}
