import { type KeyObject } from "node:crypto";

import { type Bus } from "../platform/bus/bus.ts";
import { type Clients } from "../platform/http/clients.ts";
import { type Clock } from "../platform/clock.ts";
import { type Config } from "../platform/config/config.ts";
import { type Sql } from "../platform/database/database.ts";
import { type Log } from "../platform/logger.ts";
import { type Metrics } from "../platform/telemetry/metrics.ts";
import { type ObjectStore } from "../platform/objects/objects.ts";
import { type ReadFaults } from "../platform/objects/read-faults.ts";
import { type ApiKeys } from "../api-keys/service.ts";
import { downloadRoutes } from "./downloads.ts";
import { BuildGarbage } from "./garbage.ts";
import { Offers } from "./offers.ts";
import { checkRoutes, publishRoutes } from "./routes.ts";
import { Builds } from "./service.ts";

export type UpdatesDeps = {
  config: Config;
  sql: Sql;
  objects: ObjectStore;
  log: Log;
  bus: Bus;
  clock: Clock;
  metrics: Metrics;
  clients: Clients;
  apiKeys: ApiKeys;
  faults: ReadFaults;
  /** Public key of the signatures, if builds must be signed. */
  publicKey: KeyObject | undefined;
};

/** Builds the services and routes of app updates, for clients and publishers. */
export function buildUpdates(deps: UpdatesDeps) {
  const { sql, objects, log, bus, clock, metrics, clients, apiKeys, faults, publicKey } = deps;
  const { updates } = deps.config;
  const offers = new Offers({ sql, bus, log });
  const garbage = new BuildGarbage({ sql, objects, clock, log });
  const builds = new Builds({ sql, objects, garbage, offers, metrics }, { ...updates, publicKey });
  const bases = updates;
  const routes = [
    checkRoutes({ offers, clients, bases }),
    publishRoutes({ builds, apiKeys, clients, bases }),
    downloadRoutes({ offers, objects, metrics, faults, ...updates }),
  ];
  return { offers, routes };
}
