import { BOUNDARY, FORM_END } from "./image-form.ts";

export const BUILDS_PATH = "/api/v1/updates";
export const BUILD_NAME = "app.apk";
export const BUILD_ABI = "arm64";

/** Returns the bytes before and after a build's file in the form that publishes it. */
export function frameBuild(version: string): { before: Uint8Array; after: Uint8Array } {
  const fields = Object.entries({ appVersion: version, targetABI: BUILD_ABI }).map(
    ([name, value]) =>
      `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`,
  );
  const file =
    `--${BOUNDARY}\r\nContent-Disposition: form-data; name="tmpFile"; filename="${BUILD_NAME}"\r\n` +
    "Content-Type: application/octet-stream\r\n\r\n";
  return { before: new TextEncoder().encode(fields.join("") + file), after: FORM_END };
}
