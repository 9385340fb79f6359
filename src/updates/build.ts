import { type Queryable } from "../platform/database/database.ts";
import { humanSize } from "./size.ts";

/** A build: its object is `builds/<objectId>`. */
export type Build = {
  id: number;
  version: string;
  targetAbi: string;
  name: string;
  notes: string;
  bytes: number;
  md5: string;
  sha256: string;
  objectId: string;
  /** false if clients are forced to update */
  skipped: boolean;
  /** number of installs that clients reported */
  uploads: bigint;
  channel: string;
  /** percent of devices that are offered the build */
  rollout: number;
  withdrawn: boolean;
  /** true if only clients of its own ABI are forced */
  floorPerAbi: boolean;
  /** Ed25519 over the 32 bytes of the SHA-256, base64; empty if it is not signed */
  signature: string;
  /** Publication time in whole seconds, later than that of every earlier build of the same name. */
  publishedAt: Date;
};

/** Returns the key of a build's object: every upload has its own. */
export function objectKey(objectId: string): string {
  return `builds/${objectId}`;
}

export function buildColumns(sql: Queryable) {
  return sql`id::float8 as id, version, target_abi as "targetAbi", name, notes, bytes::float8 as bytes, md5, sha256,
    object_id as "objectId", skipped, uploads, channel, rollout, withdrawn,
    floor_per_abi as "floorPerAbi", signature, published_at as "publishedAt"`;
}

/** Describes a build with the fields of the WeMesse server, and then those that it did not have. */
export function describeBuild(build: Build, uri: string) {
  return {
    Id: build.id,
    TargetABI: build.targetAbi,
    Checksum: build.md5,
    Name: build.name,
    Message: build.notes,
    Size: humanSize(build.bytes),
    Version: build.version,
    Skipped: build.skipped,
    Uploads: build.uploads,
    URI: uri,
    SHA256: build.sha256,
    Signature: build.signature,
    Channel: build.channel,
    Rollout: build.rollout,
    Withdrawn: build.withdrawn,
    FloorPerABI: build.floorPerAbi,
  };
}

/** Returns the mirror's link, which leads to whatever build the mirror has under that name. */
export function mirrorUri(base: string, { name }: Build): string {
  return [base, encoded(name)].join("/");
}

/** Returns the link that leads to this build only. */
export function sourceUri(base: string, { targetAbi, version, name }: Build): string {
  return [base, ...[targetAbi, version, name].map(encoded)].join("/");
}

/**
 * Encodes a path segment for every client. Leaves semicolons as they are, because some proxies
 * refuse encoded ones.
 */
function encoded(part: string): string {
  return encodeURIComponent(part).replaceAll("%3B", ";");
}

/** Returns headers by which clients verify a build, for answers to checks and downloads. */
export function integrityHeaders({ sha256, signature }: Build): Record<string, string> {
  return {
    "x-build-sha256": sha256,
    ...(signature !== "" && { "x-build-signature": signature }),
  };
}
