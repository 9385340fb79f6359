import { type Log } from "./log.ts";

export type BusListener = {
  /** What another process published, as JSON carried it. */
  message: (message: unknown) => void;
  /** Messages may have been lost: the connection is there, for the first time or again. */
  missed: () => void;
};

/** What processes tell one another at once and at most once; whoever needs certainty reads the database. */
export interface Bus extends AsyncDisposable {
  readonly name: "redis" | "postgres";
  /** Whether other processes are heard. */
  readonly isUp: boolean;
  /** Sends JSON to the other processes, within milliseconds; dropped while the bus is away. */
  publish: (channel: string, message: unknown) => void;
  subscribe: (channels: string[], listener: BusListener) => void;
}

const COALESCE_MS = 10;
// What waits while the bus is slow; more than that is lost, as on a bus that is away.
const WAITING_MAX = 50_000;

/** Collects messages for some milliseconds: one round trip carries many. */
export class Outbox {
  readonly #send: (byChannel: Map<string, string[]>) => Promise<void>;
  #byChannel = new Map<string, string[]>();
  #waiting = 0;
  #isSending = false;

  /** `send` takes JSON texts by channel and never rejects. */
  constructor(send: (byChannel: Map<string, string[]>) => Promise<void>) {
    this.#send = send;
  }

  add(channel: string, message: unknown): void {
    if (this.#waiting >= WAITING_MAX) return;
    this.#waiting++;
    const texts = this.#byChannel.get(channel);
    if (texts === undefined) this.#byChannel.set(channel, [JSON.stringify(message)]);
    else texts.push(JSON.stringify(message));
    if (!this.#isSending) void this.#flush();
  }

  async #flush(): Promise<void> {
    this.#isSending = true;
    while (this.#waiting > 0) {
      await Bun.sleep(COALESCE_MS);
      const byChannel = this.#byChannel;
      this.#byChannel = new Map();
      this.#waiting = 0;
      await this.#send(byChannel);
    }
    this.#isSending = false;
  }
}

/** Hands messages to their channel's listeners, except this process's own. */
export class Listeners {
  readonly #origin = crypto.randomUUID();
  readonly #log: Log;
  readonly #byChannel = new Map<string, Set<BusListener>>();

  constructor(log: Log) {
    this.#log = log;
  }

  get channels(): string[] {
    return [...this.#byChannel.keys()];
  }

  add(channels: string[], listener: BusListener): void {
    for (const channel of channels) {
      const listeners = this.#byChannel.get(channel) ?? new Set();
      this.#byChannel.set(channel, listeners.add(listener));
    }
  }

  missed(): void {
    const all = new Set([...this.#byChannel.values()].flatMap((listeners) => [...listeners]));
    for (const listener of all) listener.missed();
  }

  /** `texts` are JSON. */
  pack(texts: string[]): string {
    return `["${this.#origin}",${texts.join(",")}]`;
  }

  /** Anybody who may use the server behind the bus can write there. */
  #parse(packed: string): unknown[] {
    try {
      const list: unknown = JSON.parse(packed);
      if (Array.isArray(list)) return list.slice(1);
    } catch {
      // Told below.
    }
    this.#log.warn("a message on the bus is not ours");
    return [];
  }

  unpack(channel: string, packed: string): void {
    if (packed.startsWith(this.#origin, 2)) return;
    const messages = this.#parse(packed);
    for (const listener of this.#byChannel.get(channel) ?? [])
      for (const message of messages) listener.message(message);
  }
}
