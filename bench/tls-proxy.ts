import { mkdtempSync } from "node:fs";
import { join } from "node:path";

import { freePort } from "../test/support/free-port.ts";
import { configuration, DEPLOYED, deployedServers, needNginx } from "../test/support/nginx.ts";
import { needPrograms, programPath } from "../test/support/packages.ts";
import { type Harness, OTHER_CORE, type Subject } from "./harness.ts";

const CONNECTIONS_MAX = 10_000;

/** Starts nginx with deploy/nginx.conf before a server, with a certificate of its own. */
export async function startTlsProxy(harness: Harness, server: Subject): Promise<Subject> {
  await needNginx();
  const folder = mkdtempSync(join(harness.folder, "nginx-"));
  const port = await freePort();
  const [key, certificate] = await createCertificate(harness, folder);
  const servers = deployedServers(await Bun.file(DEPLOYED).text(), {
    upstreams: [server],
    // Batches are accepted without it.
    auth: server,
    listen: `127.0.0.1:${port} ssl`,
  });
  const path = join(folder, "nginx.conf");
  const tls = `ssl_certificate ${certificate};\nssl_certificate_key ${key};\n${servers}`;
  await Bun.write(path, configuration(folder, tls, 2 * CONNECTIONS_MAX));
  const ca = await Bun.file(certificate).text();
  const proxy = await harness.processes.startServer({
    program: programPath("nginx") ?? "nginx",
    args: ["-e", "stderr", "-p", folder, "-c", path],
    core: harness.core(OTHER_CORE),
    port,
    ca,
  });
  return {
    ...server,
    url: proxy.url,
    ca,
    proxy: proxy.pid,
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** Creates a key and its self-signed certificate; returns both paths. */
async function createCertificate(
  harness: Harness,
  folder: string,
): Promise<[key: string, certificate: string]> {
  await needPrograms({
    programs: ["openssl"],
    packages: ["openssl"],
    otherwise: "The measurement with TLS needs openssl: install it",
  });
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  const kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"];
  await harness.processes.run({
    program: programPath("openssl") ?? "openssl",
    args: ["req", "-x509", ...kind, ...subject, "-days", "2", "-keyout", key, "-out", certificate],
  });
  return [key, certificate];
}
