import { join } from "node:path";

import { type Config } from "./config.ts";
import { FileObjects } from "./file-objects.ts";
import { type ObjectStore } from "./objects.ts";
import { S3Objects } from "./s3-objects.ts";

/** The configured object store: S3 once a bucket is named, else files in the data folder. */
export async function openObjects({ s3, dataDir }: Config): Promise<ObjectStore> {
  return s3 === undefined ? await FileObjects.open(join(dataDir, "objects")) : new S3Objects(s3);
}
