import { S3Client } from "@aws-sdk/client-s3";
import { FetchHttpHandler } from "@smithy/fetch-http-handler";

import type { S3Config } from "../config/config.ts";
import { signUploads } from "./s3-checksum.ts";

export function openClient(config: S3Config): S3Client {
  const { endpoint, region, forcePathStyle = endpoint !== undefined } = config;
  const client = new S3Client({
    region: region ?? regionOfProfile,
    ...(endpoint !== undefined && { endpoint }),
    forcePathStyle,
    ...credentialsOf(config),
    maxAttempts: 1,
    // The SDK's own logger would also print the errors that it throws.
    logger: { debug: silent, info: silent, warn: silent, error: silent },
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // Measured on Bun for a PUT of 8 MiB: 3.3 ms of CPU and 130 MB resident; with the SDK's own
    // node:http handler 4.6 ms and 200 MB. Redirects are not followed: they would carry the signed
    // request to another host.
    requestHandler: new FetchHttpHandler({
      keepAlive: true,
      requestInit: () => ({ redirect: "manual" }),
    }),
  });
  signUploads(client);
  return client;
}

/**
 * Returns the configured keys. Without them the SDK's credential chain applies: a profile, a web
 * identity, or the role of a container or instance.
 */
function credentialsOf({ accessKeyId, secretAccessKey, sessionToken }: S3Config) {
  if (accessKeyId === undefined || secretAccessKey === undefined) return {};
  const token = sessionToken !== undefined && { sessionToken };
  return { credentials: { accessKeyId, secretAccessKey, ...token } };
}

async function regionOfProfile(): Promise<string> {
  return await new S3Client({}).config.region().catch(() => "us-east-1");
}

function silent(): void {}
