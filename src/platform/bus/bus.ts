import { type Log } from "../logger.ts";
import { warnRarely } from "../rare-warnings.ts";
import { WriteBehind } from "../write-behind.ts";

export type BusListener = {
  /** Called with a message of another process, parsed from JSON. */
  message: (message: unknown) => void;
  /** Called when messages may have been lost, such as after every connect. */
  missed: () => void;
};

/**
 * Channel between processes, which delivers at once and at most once; read the database where
 * certainty is needed.
 */
export interface Bus extends AsyncDisposable {
  readonly name: "redis" | "postgres";
  /** True if this process can send to and receive from the other processes. */
  readonly isUp: boolean;
  /**
   * True if every recently known process is heard. While one is not, its changes must be read from
   * the database.
   */
  readonly hearsAll: boolean;
  /** Sends JSON to the other processes within milliseconds; drops it while the bus is down. */
  publish: (channel: string, message: unknown) => void;
  subscribe: (channels: string[], listener: BusListener) => void;
}

const COALESCE_MS = 10;
// Most messages that wait while the bus is slow; more are dropped, as while it is down.
const WAITING_MAX = 50_000;

/** Collects messages for some milliseconds: one round trip carries many. */
export class Outbox {
  readonly #send: (byChannel: Map<string, string[]>) => Promise<void>;
  #byChannel = new Map<string, string[]>();
  #waiting = 0;
  readonly #writer = new WriteBehind(COALESCE_MS, async () => await this.#flush());

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
    this.#writer.soon();
  }

  async #flush(): Promise<void> {
    const byChannel = this.#byChannel;
    this.#byChannel = new Map();
    this.#waiting = 0;
    await this.#send(byChannel);
  }
}

/** Channel of the heartbeats by which each process announces itself. */
export const PULSE = "pulse";
const PEER_SILENT_MS = 3000;
// Time until a silent process is forgotten: it was killed, and its devices are in the database by
// then.
const PEER_FORGOTTEN_MS = 30_000;
/** Heartbeat of a process that shuts down. */
export const FAREWELL = -1;

/** The other processes, tracked by their heartbeats. */
class Peers {
  readonly #known = new Map<string, { heardMs: number; losses: number }>();

  /**
   * Records a heartbeat; `losses` counts how often the peer may have lost its own messages. Returns
   * whether messages of the peer may have been missed here.
   */
  hear(origin: string, losses: number): boolean {
    if (losses === FAREWELL) {
      this.#known.delete(origin);
      return false;
    }
    const before = this.#known.get(origin);
    const nowMs = performance.now();
    this.#known.set(origin, { heardMs: nowMs, losses });
    if (before === undefined) return losses > 0;
    return before.losses !== losses || nowMs - before.heardMs > PEER_SILENT_MS;
  }

  get areHeard(): boolean {
    const nowMs = performance.now();
    for (const [origin, { heardMs }] of this.#known)
      if (nowMs - heardMs > PEER_FORGOTTEN_MS) this.#known.delete(origin);
      else if (nowMs - heardMs > PEER_SILENT_MS) return false;
    return true;
  }
}

/** Hands messages to their channel's listeners, except this process's own. */
export class Listeners {
  readonly #origin = crypto.randomUUID();
  readonly #log: Log;
  readonly #byChannel = new Map<string, Set<BusListener>>();
  readonly #peers = new Peers();
  #losses = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  get channels(): string[] {
    return [PULSE, ...this.#byChannel.keys()];
  }

  get hearsPeers(): boolean {
    return this.#peers.areHeard;
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

  /**
   * Counts a published message that may not have arrived; the next heartbeat tells the other
   * processes.
   */
  lost(): void {
    this.#losses++;
  }

  /** Value of the next heartbeat, to be published on PULSE. */
  get pulse(): number {
    return this.#losses;
  }

  /** Packs JSON texts into one message that names this process. */
  pack(texts: string[]): string {
    return `["${this.#origin}",${texts.join(",")}]`;
  }

  /** Delivers a message to its listeners. Returns whether it is this process's own. */
  unpack(channel: string, packed: string): boolean {
    if (packed.startsWith(this.#origin, 2)) return true;
    const [origin, ...messages] = this.#parse(packed);
    if (channel === PULSE) this.#hearPulse(origin, messages);
    for (const listener of this.#byChannel.get(channel) ?? [])
      for (const message of messages) listener.message(message);
    return false;
  }

  #hearPulse(origin: unknown, [losses]: unknown[]): void {
    if (typeof origin !== "string" || typeof losses !== "number") return;
    if (this.#peers.hear(origin, losses)) this.missed();
  }

  /** Parses a message; returns an empty list for one that some other program published. */
  #parse(packed: string): unknown[] {
    try {
      const list: unknown = JSON.parse(packed);
      if (Array.isArray(list)) return list;
    } catch {
      // Reported below.
    }
    warnRarely(this.#log, {}, "ignored a message on the bus that is not from Floodgate");
    return [];
  }
}
