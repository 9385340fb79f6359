import { afterAll, beforeAll, expect, test } from "bun:test";
import * as fc from "fast-check";

import { TestApp } from "../support/app.ts";
import { EventStream, type Presence } from "../support/event-stream.ts";
import { FakeClock } from "../support/fake-clock.ts";
import { aUser, flood, ping, watching } from "../support/presence.ts";

const USERS = 4;
const RUNS = 40;

const user = fc.nat(USERS - 1);
// How many of the events arrive before the connection breaks, if it breaks.
const cutAfter = fc.option(fc.nat(USERS), { nil: undefined });
const racing = fc.option(user, { nil: undefined });
const several = fc.uniqueArray(user, { minLength: 2 });

const schedules = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant("ping" as const), user }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constant("burst" as const), users: several, cutAfter }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant("drop" as const) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("connect" as const), cutAfter, racing }) },
  ),
  { minLength: 6, maxLength: 16 },
);
type Step = (typeof schedules extends fc.Arbitrary<infer Steps> ? Steps : never)[number];

/** A client that loses its connection and resumes, and what it must have been told by then. */
class Client implements Disposable {
  readonly #app: TestApp;
  readonly #users = Array.from({ length: USERS }, () => aUser());
  /** the status of each user that has pinged */
  readonly #current = new Map<string, string>();
  /** users of whose last change the client has not been told */
  readonly #untold = new Set<string>();
  readonly #ids = new Set<string>();
  #stream: EventStream | undefined;
  #lastEventId: string | undefined;
  #pings = 0;

  constructor(app: TestApp) {
    this.#app = app;
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case "ping":
        await this.#ping([this.#userid(step.user)]);
        return await this.#expectTold();
      case "burst":
        await this.#ping(step.users.map((index) => this.#userid(index)));
        await this.#expectTold(step.cutAfter);
        if (step.cutAfter !== undefined) this.#drop();
        return;
      case "drop":
        return this.#drop();
      case "connect":
        if (this.#stream !== undefined) return;
        if (step.racing !== undefined) return await this.#connectAgainst(this.#userid(step.racing));
        await this.#connect();
        await this.#expectTold(step.cutAfter);
        if (step.cutAfter !== undefined) this.#drop();
    }
  }

  /** Whatever was missed or told twice shows at the latest here. */
  async finish(): Promise<void> {
    if (this.#stream === undefined) await this.#connect();
    await this.#expectTold();
    for (const userid of this.#users) {
      await this.#ping([userid]);
      await this.#expectTold();
    }
    expect(this.#stream?.waiting).toBe(0);
  }

  [Symbol.dispose](): void {
    this.#drop();
  }

  #userid(index: number): string {
    return this.#users[index] ?? "";
  }

  async #ping(userids: string[]): Promise<void> {
    const pings = userids.map(async (userid) => {
      const status = `s${++this.#pings}`;
      await ping(this.#app, { userid, status });
      this.#current.set(userid, status);
      this.#untold.add(userid);
    });
    await Promise.all(pings);
  }

  async #connect(): Promise<void> {
    const path = watching(...this.#users);
    const id = this.#lastEventId;
    // Who has no id yet is told of everyone.
    if (id === undefined) for (const userid of this.#current.keys()) this.#untold.add(userid);
    const headers = id === undefined ? {} : { "last-event-id": id };
    this.#stream = await EventStream.open(this.#app, path, headers);
  }

  /** The ping is told as state or as event; before it the state that it replaces may be told. */
  async #connectAgainst(userid: string): Promise<void> {
    const before = this.#current.get(userid);
    const isUntold = this.#lastEventId === undefined || this.#untold.has(userid);
    await Promise.all([this.#ping([userid]), this.#connect()]);
    let isOldTold = false;
    while (this.#untold.size > 0) {
      const event = await this.#next();
      if (event.userid === userid && event.status === before && isUntold && !isOldTold)
        isOldTold = true;
      else this.#told(event);
    }
  }

  /** One event of each change that is due, or of as many as arrive. */
  async #expectTold(count: number = this.#untold.size): Promise<void> {
    if (this.#stream === undefined) return;
    for (let left = Math.min(count, this.#untold.size); left > 0; left--)
      this.#told(await this.#next());
  }

  async #next(): Promise<Presence> {
    if (this.#stream === undefined) throw new Error("not connected");
    const event = await this.#stream.presence();
    expect(this.#ids).not.toContain(event.id);
    this.#ids.add(event.id);
    this.#lastEventId = event.id;
    return event;
  }

  #told({ userid, status }: Presence): void {
    expect([userid, status]).toEqual([userid, this.#current.get(userid) ?? "nothing"]);
    expect([...this.#untold]).toContain(userid);
    this.#untold.delete(userid);
  }

  #drop(): void {
    this.#stream?.[Symbol.dispose]();
    this.#stream = undefined;
  }
}

async function check(app: TestApp): Promise<void> {
  const property = fc.asyncProperty(schedules, async (steps) => {
    using client = new Client(app);
    for (const step of steps) await client.take(step);
    await client.finish();
  });
  await fc.assert(property, { numRuns: RUNS });
}

let app: TestApp;
let frozen: TestApp;

beforeAll(async () => {
  [app, frozen] = await Promise.all([TestApp.start(), TestApp.start({ clock: new FakeClock() })]);
});

afterAll(async () => {
  await Promise.all([app, frozen].map(async (one) => await one[Symbol.asyncDispose]()));
});

/** The users of the events that a stream resuming from `id` has at once. */
async function toldSince(target: TestApp, users: string[], id: string): Promise<string[]> {
  const end = aUser("end");
  const headers = { "last-event-id": id };
  using stream = await EventStream.open(target, watching(...users, end), headers);
  await ping(target, { userid: end, status: "end" });
  const told: string[] = [];
  for (;;) {
    const { userid } = await stream.presence();
    if (userid === end) return told.toSorted();
    told.push(userid);
  }
}

test("a connection may break between any two of its first events", async () => {
  for (const target of [app, frozen]) {
    const users = Array.from({ length: 10 }, () => aUser());
    await flood(
      target,
      users.map((userid) => ({ userid, status: "0" })),
    );
    using stream = await EventStream.open(target, watching(...users));
    const lacking = new Set(users);
    while (lacking.size > 0) {
      const { id, userid } = await stream.presence();
      lacking.delete(userid);
      expect(await toldSince(target, users, id)).toEqual([...lacking].toSorted());
    }
  }
});

test("a connection may break between any two events of a flood", async () => {
  const users = Array.from({ length: USERS }, () => aUser());
  using stream = await EventStream.open(app, watching(...users));
  const pings = Array.from({ length: 200 }, (_, nth) => ({
    userid: users[nth % USERS] ?? "",
    status: `s${nth}`,
  }));
  await flood(app, pings);
  const events: Presence[] = [];
  for (const _ of pings) events.push(await stream.presence());
  for (const [index, { id }] of events.entries()) {
    if (index < pings.length - 20) continue;
    const later = new Set(events.slice(index + 1).map(({ userid }) => userid));
    expect(await toldSince(app, users, id)).toEqual([...later].toSorted());
  }
});

test("wherever a connection breaks, the next one misses nothing and doubles nothing", async () => {
  await check(app);
});

test("also when everything happens in one millisecond", async () => {
  await check(frozen);
});
