import { type Sql } from "../../src/platform/database/database.ts";
import { type ObjectStore } from "../../src/platform/objects/objects.ts";
import { KEYED, splitBatches } from "./app.ts";
import { aBatch } from "./batches.ts";
import { undelayedMs } from "./eventually.ts";
import { type IndexState, indexState } from "./index-state.ts";
import { imageList } from "./images.ts";
import { Random } from "./random.ts";

const SETTLE_MS_MAX = 30_000;
const RETRY_MS = 40;

export type AuditorOptions = {
  /** Current URL of the server, which a restart may change. */
  target: { url: string };
  projectId: number;
  projectID: number;
  clients: number;
  /** Number of clients that send images, too. */
  imageClients: number;
  seed: number;
};

type Client = {
  random: Random;
  session: { token: string; sessionID: string };
  /** Acknowledged batches by hash. */
  acknowledged: Map<string, Uint8Array>;
  /** Acknowledged images by hash. */
  images: Map<string, { name: string; bytes: Uint8Array }>;
};

export type AuditReport = IndexState & {
  acknowledged: number;
  /** attempts that ended without an answer or with 503, and were retried */
  retried: number;
  /** acknowledged batches that were sent once more on purpose */
  repeated: number;
  images: number;
  /** rows whose bytes were read back */
  read: number;
  /** violations of the durability promise, a sentence each */
  faults: string[];
};

/**
 * Simulates clients that retry requests with the same bytes until they are acknowledged, and then
 * checks that everything acknowledged can be read back.
 */
export class Auditor {
  readonly #options: AuditorOptions;
  readonly #clients: Client[] = [];
  readonly #faults: string[] = [];
  #retried = 0;
  #repeated = 0;

  constructor(options: AuditorOptions) {
    this.#options = options;
  }

  get acknowledged(): number {
    return this.#clients.reduce((sum, client) => sum + client.acknowledged.size, 0);
  }

  /** Sends until the signal, then retries unanswered requests until they are answered. */
  async run(signal: AbortSignal): Promise<void> {
    const { clients, imageClients } = this.#options;
    await Promise.all(
      Array.from({ length: clients }, (_, number) =>
        this.#client(number, number < imageClients, signal),
      ),
    );
  }

  /** Checks that everything acknowledged is read back once, byte for byte, and nothing else. */
  async report(sql: Sql, objects: ObjectStore): Promise<AuditReport> {
    let read = 0;
    for (const client of this.#clients) read += await this.#readBack(client);
    const state = await indexState(sql, objects);
    if (state.batches !== state.distinct)
      this.#faults.push(`${state.batches - state.distinct} duplicate rows`);
    if (state.batches !== read)
      this.#faults.push(`${read} of ${state.batches} rows could be read back`);
    if (state.missing.length > 0) this.#faults.push(`${state.missing.length} objects are missing`);
    return {
      ...state,
      acknowledged: this.acknowledged,
      retried: this.#retried,
      repeated: this.#repeated,
      images: this.#clients.reduce((sum, { images }) => sum + images.size, 0),
      read,
      faults: this.#faults,
    };
  }

  async #client(number: number, sendsImages: boolean, signal: AbortSignal): Promise<void> {
    const random = new Random(this.#options.seed + number);
    const response = await this.#until200("start", "/v1/ios/start", () => ({
      body: JSON.stringify({ projectID: this.#options.projectID, trackerVersion: "1.0.14" }),
    }));
    if (response === undefined) return;
    const session: Client["session"] = JSON.parse(response);
    const client: Client = { random, session, acknowledged: new Map(), images: new Map() };
    this.#clients.push(client);
    for (let i = 0; !signal.aborted; i++) {
      await this.#sendBatch(client, `${number}/${i}`);
      if (random.chance(0.05)) await this.#repeat(client);
      if (sendsImages && random.chance(0.2)) await this.#sendImage(client);
    }
  }

  async #sendBatch(client: Client, salt: string): Promise<void> {
    const { random } = client;
    const messages = random.integer(1, 60);
    const batch = aBatch({ messages, bytes: random.integer(messages * 40, 30_000), salt });
    if (await this.#append(client, batch, random.chance(0.3)))
      client.acknowledged.set(hashOf(batch), batch);
  }

  /** Repeats an acknowledged batch, like a client that did not get the answer. */
  async #repeat(client: Client): Promise<void> {
    const sent = [...client.acknowledged.values()];
    const batch = sent[client.random.integer(0, sent.length - 1)];
    if (batch === undefined) return;
    await this.#append(client, batch, client.random.chance(0.3));
    this.#repeated++;
  }

  async #append(client: Client, batch: Uint8Array, gzip: boolean): Promise<boolean> {
    const answer = await this.#until200("append", "/v1/ios/append", () => ({
      headers: { ...bearer(client), ...(gzip && { "content-encoding": "gzip" }) },
      body: gzip ? Bun.gzipSync(Buffer.from(batch)) : batch,
    }));
    return answer !== undefined;
  }

  async #sendImage(client: Client): Promise<void> {
    const { random } = client;
    // Use few names for ever different bytes.
    const bytes = random.bytes(random.integer(1000, 300_000));
    const name = random.chance(0.5) ? `shot-${random.integer(0, 3)}` : hashOf(bytes);
    const answer = await this.#until200("images", "/v1/ios/images", () => {
      const form = new FormData();
      form.set("projectID", String(this.#options.projectID));
      form.set("file", new File([bytes], name, { type: "image/png" }));
      return { headers: bearer(client), body: form };
    });
    if (answer !== undefined) client.images.set(hashOf(bytes), { name, bytes });
  }

  /** Retries until a 200, and returns its text. Otherwise adds a fault and returns undefined. */
  async #until200(
    what: string,
    path: string,
    make: () => RequestInit,
  ): Promise<string | undefined> {
    const until = undelayedMs() + SETTLE_MS_MAX;
    while (undelayedMs() < until) {
      const status = await this.#attempt(path, make());
      if (typeof status === "string") return status;
      if (status !== undefined && status !== 503) {
        this.#faults.push(`${what} was answered ${status}`);
        return undefined;
      }
      this.#retried++;
      await Bun.sleep(RETRY_MS);
    }
    this.#faults.push(`${what} had no answer within ${SETTLE_MS_MAX} ms`);
    return undefined;
  }

  /** Returns the body of a 200, another status, or undefined if the connection broke. */
  async #attempt(path: string, init: RequestInit): Promise<string | number | undefined> {
    try {
      const response = await fetch(this.#options.target.url + path, { method: "POST", ...init });
      const text = await response.text();
      return response.status === 200 ? text : response.status;
    } catch {
      return undefined;
    }
  }

  async #readBack({ session, acknowledged, images }: Client): Promise<number> {
    const { target, projectId } = this.#options;
    const response = await fetch(`${target.url}/v1/sessions/${session.sessionID}/batches`, {
      headers: { ...KEYED, accept: "application/octet-stream" },
    });
    if (response.status !== 200) {
      this.#faults.push(`session ${session.sessionID} was answered ${response.status}`);
      return 0;
    }
    const batches = splitBatches(await response.bytes());
    const times = new Map<string, number>();
    for (const hash of batches.map(hashOf)) times.set(hash, (times.get(hash) ?? 0) + 1);
    for (const [hash, count] of times) {
      if (count > 1) this.#faults.push(`a batch came back ${count} times`);
      if (!acknowledged.has(hash)) this.#faults.push("a batch came back that was never sent");
    }
    for (const hash of acknowledged.keys())
      if (!times.has(hash)) this.#faults.push("an acknowledged batch is lost");
    const listed = await imageList(
      { fetch: (path) => fetch(target.url + path, { headers: KEYED }) },
      session,
    );
    for (const [hash, { name, bytes }] of images) {
      if (!listed.some((one) => one["sha256"] === hash && one["name"] === name))
        this.#faults.push("an acknowledged image is not listed");
      const query = `session=${session.sessionID}&sha256=${hash}`;
      const stored = await fetch(`${target.url}/v1/images/${projectId}/${name}?${query}`, {
        headers: KEYED,
      });
      if (stored.status !== 200 || !Buffer.from(await stored.bytes()).equals(bytes))
        this.#faults.push("an acknowledged image is lost or torn");
    }
    return batches.length;
  }
}

function bearer({ session }: Client): Record<string, string> {
  return { authorization: `Bearer ${session.token}` };
}

function hashOf(bytes: Uint8Array): string {
  return Bun.SHA256.hash(bytes, "hex");
}
