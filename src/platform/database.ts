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

/** A pool whose statements end by themselves: nothing waits for ever on a lock or a dead server. */
export function openDatabase(url: string, options: { connections?: number } = {}): Sql {
  return postgres(url, {
    max: options.connections ?? 10,
    types,
    connect_timeout: 5,
    // The driver's own waits grow to 20 s, longer than a request waits: a short outage would still fail what comes after it.
    backoff: () => 0.1 + Math.random() * 0.4,
    idle_timeout: 60,
    onnotice: () => undefined,
    connection: { application_name: "floodgate", statement_timeout: 10_000 },
  });
}
