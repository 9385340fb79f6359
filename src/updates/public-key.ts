import { createPublicKey, type KeyObject } from "node:crypto";

import { UsageError } from "../platform/errors.ts";

/** The key that builds are signed with, from its PEM or the path of that. Throws a UsageError for anything but Ed25519. */
export async function readPublicKey(value: string | undefined): Promise<KeyObject | undefined> {
  if (value === undefined) return undefined;
  try {
    const pem = value.includes("-----BEGIN") ? value : await Bun.file(value).text();
    if (pem.includes("PRIVATE KEY")) throw new Error("a private key");
    const key = createPublicKey(pem.replaceAll("\\n", "\n").trim());
    if (key.asymmetricKeyType === "ed25519") return key;
  } catch (cause) {
    throw new UsageError("UPDATE_PUBLIC_KEY cannot be read", { cause });
  }
  throw new UsageError("UPDATE_PUBLIC_KEY is no Ed25519 key");
}
