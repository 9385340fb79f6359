import { readFileSync } from "node:fs";
import { type Socket, connect, isIP } from "node:net";
import tls from "node:tls";

import { UsageError } from "../errors.ts";
import { TimeLimit } from "../time-limit.ts";
import { type Tls } from "../config/postgres-parameters.ts";
import { type PostgresHost } from "../config/postgres-url.ts";

// SSLRequest message: its length and code.
const TLS_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
const YES = 0x53;
const NO = 0x4e;

/** Use of TLS; `ask` uses it if the server offers it. */
export type Encryption = "always" | "ask" | "never";
export type Dialled = { socket: Socket; isEncrypted: boolean };

/**
 * Thrown if a connection cannot be made. The code is the socket's own, CONNECT_TIMEOUT, CONNECT_TLS
 * or CONNECT_SOCKET.
 */
export class DialError extends Error {
  override readonly name = "DialError";
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Connects to one host. Throws DialError, and UsageError for files that cannot be read. */
export async function dial(
  host: PostgresHost,
  { encryption, tls: settings, timeoutS }: { encryption: Encryption; tls: Tls; timeoutS: number },
): Promise<Dialled> {
  const isLocal = "path" in host.to;
  const socket = "path" in host.to ? connect(host.to.path) : connect(host.to.port, host.to.host);
  using limit = new TimeLimit(timeoutS * 1000, () => {
    const message = `CONNECT_TIMEOUT: ${host.name} did not answer in ${timeoutS} s`;
    return new DialError("CONNECT_TIMEOUT", message);
  });
  try {
    await until(socket, "connect", limit.signal).catch((cause: unknown) => {
      // A separate code: a missing socket must not look like any other missing file (ENOENT).
      throw isLocal ? new DialError("CONNECT_SOCKET", messageOf(cause), { cause }) : cause;
    });
    if (isLocal || encryption === "never") return { socket, isEncrypted: false };
    if (!settings.direct && !(await offersTls(socket, limit.signal))) {
      if (encryption === "ask") return { socket, isEncrypted: false };
      throw new DialError("CONNECT_TLS", `${host.name} does not offer TLS`);
    }
    return { socket: await encrypt(socket, host, settings, limit.signal), isEncrypted: true };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

/** Reads the TLS files. Throws UsageError if one cannot be read. */
export function tlsFiles({ mode, rootCert, cert, key, keyPassword }: Tls) {
  return {
    ...(rootCert !== undefined && {
      ca:
        rootCert === "system" ? tls.getCACertificates("system") : readText(rootCert, "sslrootcert"),
    }),
    ...(cert !== undefined && { cert: readText(cert, "sslcert") }),
    ...(key !== undefined && { key: readText(key, "sslkey") }),
    ...(keyPassword !== undefined && { passphrase: keyPassword }),
    rejectUnauthorized: mode === "verify-ca" || mode === "verify-full",
  };
}

async function offersTls(socket: Socket, signal: AbortSignal): Promise<boolean> {
  socket.write(TLS_REQUEST);
  const answer = await until(socket, "data", signal);
  // Exactly one byte is expected: any more was injected by a man in the middle.
  if (!Buffer.isBuffer(answer) || answer.length !== 1 || (answer[0] !== YES && answer[0] !== NO))
    throw new DialError("CONNECT_TLS", "the server did not say whether it offers TLS");
  return answer[0] === YES;
}

async function encrypt(
  socket: Socket,
  { name }: PostgresHost,
  settings: Tls,
  signal: AbortSignal,
): Promise<Socket> {
  const encrypted = tls.connect({
    socket,
    ...tlsFiles(settings),
    ...(isIP(name) === 0 && { servername: name }),
    ...(settings.direct && { ALPNProtocols: ["postgresql"] }),
    checkServerIdentity: (_, certificate) =>
      settings.mode === "verify-full" ? tls.checkServerIdentity(name, certificate) : undefined,
  });
  try {
    await until(encrypted, "secureConnect", signal);
    return encrypted;
  } catch (cause) {
    encrypted.destroy();
    if (cause instanceof DialError && cause.code === "CONNECT_TIMEOUT") throw cause;
    throw new DialError("CONNECT_TLS", `no TLS with ${name}: ${messageOf(cause)}`, { cause });
  }
}

/** Resolves with the first argument of the event; rejects if the socket fails or closes first. */
async function until(socket: Socket, event: string, signal: AbortSignal): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const onclose = () => reject(new DialError("ECONNRESET", "the server closed the connection"));
  const onabort = () => reject(signal.reason);
  socket.once(event, resolve);
  socket.once("error", reject);
  socket.once("close", onclose);
  signal.addEventListener("abort", onabort);
  try {
    return await promise;
  } finally {
    socket.off(event, resolve);
    socket.off("error", reject);
    socket.off("close", onclose);
    signal.removeEventListener("abort", onabort);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function readText(path: string, name: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new UsageError(`DATABASE_URL: the file of ${name} cannot be read`, { cause });
  }
}
