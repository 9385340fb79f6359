import type { Harness, Subject } from "../harness.ts";
import type { StageResult, WebType } from "../load/plan.ts";
import { RECORDED_CURVE, type Store, type StoreKind } from "../stores.ts";
import { batchWork, type Context, measureStage } from "./measure.ts";

export type LoadParameters = {
  connections: number;
  batchBytes: number;
  warmupSeconds: number;
  seconds: number;
  /** Limit of the simulator, like that of a real gateway; 0 is unlimited. */
  putsPerSecond: number;
};

export type Saturation = {
  phase: string;
  name: string;
  round: number;
  /** Absent for a server that stores nothing. */
  store: StoreKind | undefined;
  /** Starts the server, by default Floodgate's serving process. */
  start?: (harness: Harness, store: Store) => Promise<Subject>;
  connections?: number;
  batchBytes?: number;
  gzip?: boolean;
  /** Absent for batches of a mobile SDK. */
  web?: WebType;
};

/** Measures a fresh server on an empty store, with every connection always busy. */
export async function saturate(
  { harness, findings, parameters }: Context<LoadParameters>,
  request: Saturation,
): Promise<StageResult> {
  const { phase, name, round, start, gzip, web } = request;
  const { connections, batchBytes, warmupSeconds, seconds, putsPerSecond } = {
    ...parameters,
    ...request,
  };
  const curve = { ...RECORDED_CURVE, putsPerSecond };
  await using store = await harness.stores.open(request.store ?? "files", curve);
  await using subject = await (start?.(harness, store) ?? harness.startFloodgate(store));
  // Awaited here, because the subject must run until there is a result.
  return await measureStage(
    { harness, findings, parameters },
    {
      phase,
      name: request.store === undefined ? name : `${name}, ${store.label}`,
      round,
      subject,
      store: request.store === undefined ? undefined : store,
      work: {
        ...batchWork(subject, batchBytes),
        ...(gzip === true && { gzip }),
        ...(web !== undefined && { web }),
      },
      connections,
      stage: { name: "saturation", warmupSeconds, seconds },
    },
  );
}

/** Starts Floodgate as `floodgate start` does, with so many serving processes on one port. */
export function workers(count: number): NonNullable<Saturation["start"]> {
  return async (harness, store) =>
    harness.startFloodgate(store, { WORKERS: String(count) }, "start");
}
