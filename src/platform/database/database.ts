import { type Socket } from "node:net";
import postgres from "postgres";

import { UsageError } from "../errors.ts";
import { type Log } from "../logger.ts";
import { Outage } from "./outage.ts";
import { DialError, tlsFiles } from "./postgres-dial.ts";
import { driverOptions } from "./postgres-options.ts";
import { type PostgresUrl, parsePostgresUrl } from "../config/postgres-url.ts";
import { Ways } from "./postgres-way.ts";

const types = {
  bigint: {
    to: 20,
    from: [20],
    serialize: (value: bigint) => value.toString(),
    parse: (value: string) => BigInt(value),
  },
};

/** Connection pool that knows whether its server refuses work. Disposing it closes the connections. */
export type Sql = postgres.Sql<{ bigint: bigint }> & AsyncDisposable & { readonly outage: Outage };
/** Pool or one of its transactions, for functions that run queries in either. */
export type Queryable = Sql | postgres.TransactionSql<{ bigint: bigint }>;

export type DatabaseOptions = {
  connections?: number;
  /** True for statements without a timeout. */
  unbounded?: boolean;
  /** Timeout of a statement, unless `unbounded`. */
  statementMs?: number;
  log?: Log;
};

const STATEMENT_MS = 10_000;
// Silence after which a server counts as frozen or cut off: otherwise it would have answered or
// canceled the statement.
const SILENCE_MS = STATEMENT_MS + 1000;
const SILENCE_CHECK_MS = 1000;
// Statements still running then are lost with their connections.
const END_S = 1;

/**
 * Opens a pool whose statements time out: none waits forever for a lock or a dead server. Throws
 * UsageError for a malformed URL.
 */
export function openDatabase(url: string, options: DatabaseOptions = {}): Sql {
  const address = readUrl(url);
  const ways = new Ways(address);
  const { statementMs = STATEMENT_MS } = options;
  const isBounded = options.unbounded !== true;
  const sockets = new Sockets(isBounded);
  const outage = new Outage({
    drop: () => {
      ways.forget();
      sockets.drop();
    },
    log: options.log,
  });
  const { connection, ...driver } = driverOptions(address, () => ways.host);
  // A separate constant, because the driver's types do not know all options.
  const settings = {
    ...driver,
    max: options.connections ?? 10,
    types,
    // Shorter than the silence that ends a connection.
    idle_timeout: STATEMENT_MS / 1000,
    socket: async () => {
      const socket = await ways.connect().catch((error: unknown) => {
        outage.refused(error);
        throw error;
      });
      // The socket's "close" event has already fired, so the driver would never learn of it.
      if (socket.destroyed) throw new DialError("ECONNRESET", "the server closed the connection");
      sockets.add(socket);
      return socket;
    },
    onrefusal: (error: unknown) => {
      // Not an error of PostgreSQL: a proxy without a server, for example, closes connections before
      // they are sessions. Another host may have one.
      if (!(error instanceof postgres.PostgresError)) ways.forget();
      outage.refused(error);
    },
    // A pooler does not accept statement_timeout for a session: let the driver cancel slow
    // statements.
    query_timeout: isBounded && address.isPooled ? statementMs / 1000 : undefined,
    connection: {
      ...connection,
      ...(!address.isPooled && { statement_timeout: isBounded ? statementMs : 0 }),
    },
  };
  const sql = postgres(settings);
  outage.watch(sql);
  const close = async () => await sql.end({ timeout: END_S });
  return Object.assign(sql, { outage, [Symbol.asyncDispose]: close });
}

function readUrl(url: string): PostgresUrl {
  try {
    const address = parsePostgresUrl(url);
    // Check the files now: on the first connection a bad one would look like an outage.
    tlsFiles(address.tls);
    return address;
  } catch (error) {
    if (error instanceof UsageError && !error.message.startsWith("DATABASE_URL"))
      throw new UsageError(`DATABASE_URL ${error.message}`, { cause: error });
    throw error;
  }
}

/**
 * The pool's sockets. If they are bounded, drops those whose server is silent for long: the driver
 * would wait forever, and block the pool. Does not use the sockets' own timeout, which the driver
 * renews by sending more.
 */
class Sockets {
  readonly #isBounded: boolean;
  /** Number of bytes that each had received when it was last heard, and the time of that. */
  readonly #heard = new Map<Socket, { bytes: number; ms: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(isBounded: boolean) {
    this.#isBounded = isBounded;
  }

  add(socket: Socket): void {
    this.#heard.set(socket, { bytes: socket.bytesRead, ms: performance.now() });
    socket.once("close", () => this.#delete(socket));
    // One timer for all of them, so that an idle pool seldom wakes the process.
    if (this.#isBounded)
      this.#timer ??= setInterval(() => this.#dropSilent(), SILENCE_CHECK_MS).unref();
  }

  /**
   * Destroys all sockets, without an error: after one the driver forgets the statements that came
   * before the close.
   */
  drop(): void {
    for (const socket of this.#heard.keys()) socket.destroy();
  }

  #delete(socket: Socket): void {
    this.#heard.delete(socket);
    if (this.#heard.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #dropSilent(): void {
    const ms = performance.now();
    for (const [socket, heard] of this.#heard)
      if (socket.bytesRead !== heard.bytes)
        this.#heard.set(socket, { bytes: socket.bytesRead, ms });
      // Without an error, as in `drop`.
      else if (ms - heard.ms > SILENCE_MS) socket.destroy();
  }
}
