import { join } from "node:path";

import { type Config } from "./config.ts";
import { FileObjects } from "./file-objects.ts";
import { type ObjectStore } from "./objects.ts";

/** The configured object store: S3 once a bucket is named, else files in the data folder. */
export async function openObjects({ s3, dataDir }: Config): Promise<ObjectStore> {
  if (s3 === undefined) return await FileObjects.open(join(dataDir, "objects"));
  // The AWS SDK takes 16 MB, which a server with files need not spend.
  const { S3Objects } = await import("./s3-objects.ts");
  return new S3Objects(s3);
}
