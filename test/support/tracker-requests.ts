import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Type } from "typebox";
import { Value } from "typebox/value";

const FOLDER = join(import.meta.dir, "../ingest/tracker");
const Requests = Type.Array(
  Type.Object({
    path: Type.String(),
    headers: Type.Record(Type.String(), Type.String()),
    body: Type.String(),
  }),
);

/** Sessions whose batches were recorded: what the web tracker 19.0.1 sent from a browser. */
export const RECORDED = ["v1", "v2", "v2-timer", "v2-big", "v2-order"] as const;
export type Recorded = (typeof RECORDED)[number];

export type TrackerRequest = { path: string; headers: Record<string, string>; body: Uint8Array };

/** Returns the batch requests of a recorded session, in the order in which they were sent. */
export function trackerRequests(name: Recorded): TrackerRequest[] {
  const text = readFileSync(join(FOLDER, name, "requests.json"), "utf8");
  return Value.Parse(Requests, JSON.parse(text)).map(({ path, headers, body }) => ({
    path,
    headers,
    body: new Uint8Array(readFileSync(join(FOLDER, name, body))),
  }));
}

/** Batches of the tracker that are small enough to be read. */
export const WEB_VECTORS = {
  move: Uint8Array.fromHex(
    "5102030bb481e682b9660d68747470733a2f2f612e622f6300060000da80b3c19c3376050000047461623100060000da80b3c19c33140200000b15",
  ),
  /** Two batches: see SPLIT. */
  visual: Uint8Array.fromHex(
    "510203008a80e682b9660d68747470733a2f2f612e622f63000600008580b3c19c33760500000474616231000600008580b3c19c337605000004746162317a1700000d68747470733a2f2f612e622f63008080b3c19c33015407000000080800000100000344495600000600009e80b3c19c33140200000a1400060000bc80b3c19c3351030306bc80e682b9660d68747470733a2f2f612e622f63000600009e80b3c19c337605000004746162313c1a0000010468726566062f782e6373730c68747470733a2f2f612e622f",
  ),
  devtools: Uint8Array.fromHex(
    "51040307bc80e682b9660d68747470733a2f2f612e622f63000600009e80b3c19c33760500000474616231532a0000056665746368034745540f68747470733a2f2f612e622f617069027b7d027b7dc8019480b3c19c330a03",
  ),
  analytics: Uint8Array.fromHex(
    "51050308bc80e682b9660d68747470733a2f2f612e622f63000600009e80b3c19c337605000004746162311b060000026576027b7d",
  ),
  /** A page with a list, and the batch of its styles. */
  page: Uint8Array.fromHex(
    "510200008080e682b9660d68747470733a2f2f612e622f63000600008080b3c19c337603000002743105040000c002c8010700000008090000010000044845414400080a0000020100055354594c4500090300000302000809000004000104424f44590008070000050400024f4c0008070000060500024c4900090300000706000e03000007016108070000080501024c4900090300000908000e030000090162080700000a0502024c4900090300000b0a000e0300000b0163080a00000c040105494e50555400120300000c0008220e00008080b1a2b9d1cc0105636c617373220a00008180b1a2b9d1cc01016b23110000058080b1a2b9d1cc018180b1a2b9d1cc0100060000a880b3c19c33760300000274310b01000006080700000d0502024c4900090300000e0d000e0300000e01780a0300000c0400",
  ),
  pageStyles: Uint8Array.fromHex(
    "510300038080e682b9660d68747470733a2f2f612e622f63000600008080b3c19c33760300000274313d29000003196c697b6261636b67726f756e643a75726c28692e706e67297d0d68747470733a2f2f612e622f6300060000a880b3c19c333c1f000005057374796c6509636f6c6f723a7265640d68747470733a2f2f612e622f63",
  ),
};

/** Length of the first batch of `WEB_VECTORS.visual`, and both batches. */
export const SPLIT = 131;
export const PLAYER = WEB_VECTORS.visual.subarray(0, SPLIT);
export const ASSETS = WEB_VECTORS.visual.subarray(SPLIT);
