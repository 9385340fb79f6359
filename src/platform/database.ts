import { type Socket, connect } from "node:net";
import postgres from "postgres";

const types = {
  bigint: {
    to: 20,
    from: [20],
    serialize: (value: bigint) => value.toString(),
    parse: (value: string) => BigInt(value),
  },
};

export type Sql = postgres.Sql<{ bigint: bigint }>;
/** Either a pool or a transaction of it: what a private query function takes. */
export type Queryable = Sql | postgres.TransactionSql<{ bigint: bigint }>;

const STATEMENT_MS = 10_000;
// A server that is there answers or ends a statement by then; this one is frozen or cut off.
const SILENCE_MS = STATEMENT_MS + 1000;
const SILENCE_CHECK_MS = 1000;

/** A pool whose statements end by themselves: nothing waits for ever on a lock or a dead server. Unless they may take as long as they need. */
export function openDatabase(
  url: string,
  options: { connections?: number; unbounded?: boolean } = {},
): Sql {
  const isBounded = options.unbounded !== true;
  // A constant of its own, because the driver's types do not know `socket`.
  const settings = {
    max: options.connections ?? 10,
    types,
    connect_timeout: 5,
    // The driver's own waits grow to 20 s, longer than a request waits: a short outage would still fail what comes after it.
    backoff: () => 0.1 + Math.random() * 0.4,
    // Shorter than the silence that ends a connection.
    idle_timeout: STATEMENT_MS / 1000,
    ...(isBounded && { socket: watchedSocket() }),
    onnotice: () => undefined,
    connection: { application_name: "floodgate", statement_timeout: isBounded ? STATEMENT_MS : 0 },
  };
  return postgres(url, settings);
}

type Target = { host: string[]; port: number[]; path: string | false };

/**
 * Sockets that close when nothing comes for long: the driver itself would wait for ever, and with it the pool. Their bytes are
 * watched from outside: the driver goes on sending, which would renew the socket's own timeout, and drops all listeners for TLS.
 */
function watchedSocket() {
  let next = 0;
  return ({ host, port, path }: Target): Socket => {
    const turn = next++ % port.length;
    const socket = path === false ? connect(port[turn] ?? 5432, host[turn]) : connect(path);
    let heard = { bytes: 0, ms: performance.now() };
    const watch = setInterval(() => {
      if (socket.bytesRead !== heard.bytes)
        heard = { bytes: socket.bytesRead, ms: performance.now() };
      // Without an error: after one the driver forgets the statements that came before the close.
      else if (performance.now() - heard.ms > SILENCE_MS) socket.destroy();
      if (socket.destroyed) clearInterval(watch);
    }, SILENCE_CHECK_MS);
    watch.unref();
    // The name that the driver checks a certificate against.
    return Object.assign(socket, { host: host[turn] });
  };
}

const AWAY = /^(?:CONNECT|ECONN|ETIMEDOUT|EPIPE|ENOTFOUND|EHOST|ENET|EAI_|08|53|57P)/;
// A statement that took too long, or was given up for another one.
const GIVEN_UP = /^(?:40|57014)/;

/** Whether the error says that the database cannot be reached or takes no more connections. */
export function isAway(error: unknown): boolean {
  return AWAY.test(codeOf(error));
}

/** Whether the error says that the database is away or overloaded, not that the statement is wrong: it may go well the next time. */
export function isOutage(error: unknown): boolean {
  return isAway(error) || GIVEN_UP.test(codeOf(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
