import { join } from "node:path";

import { type Config } from "../config/config.ts";
import { FileObjects } from "./file-objects.ts";
import { type ObjectStore } from "./objects.ts";
import { RetryingObjects } from "./retrying-objects.ts";

/**
 * Opens the configured object store: S3 if a bucket is set, else files in the data folder. Reads
 * are retried. Without `create`, rejects if the folder is missing.
 */
export async function openObjects(
  { s3, dataDir }: Config,
  options: { create?: boolean } = {},
): Promise<ObjectStore> {
  if (s3 === undefined)
    return new RetryingObjects(await FileObjects.open(join(dataDir, "objects"), options));
  // The AWS SDK takes 16 MB, which a server with files need not spend.
  const { S3Objects } = await import("./s3-objects.ts");
  return new RetryingObjects(new S3Objects(s3));
}
