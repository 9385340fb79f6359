import { type CommitLog } from "../log/commit-log.ts";
import { type Sql } from "../platform/database/database.ts";
import { AppError, UsageError } from "../platform/errors.ts";
import { type Service } from "../platform/lifecycle.ts";
import { type Log } from "../platform/logger.ts";
import { Snapshot } from "../platform/snapshot.ts";
import { decodeProjectID, encodeProjectID } from "./codec.ts";

const REFRESH_MS = 2000;
const KEY_LENGTH = 20;
const KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

export type ProjectPlatform = "ios" | "android" | "web";
export type CanvasQuality = "low" | "medium" | "high";

export type Project = {
  id: number;
  name: string;
  projectKey: string;
  platform: ProjectPlatform;
  active: boolean;
  /** percent of users whose sessions are recorded */
  sampleRate: number;
  /** overrides BEACON_SIZE_LIMIT */
  beaconBytesMax: number | null;
  /** overrides QUOTA_BYTES_PER_DAY */
  dailyBytesMax: number | null;
  /** The settings below override those of the configuration for web pages. */
  recordCanvas: boolean | null;
  canvasQuality: CanvasQuality | null;
  canvasFps: number | null;
  /** lifetime of a session's token, instead of two hours */
  sessionMs: number | null;
};

export type NewProject = { name: string; platform: ProjectPlatform; id?: number; key?: string };
export type ProjectChange = Partial<Omit<Project, "id" | "name" | "projectKey" | "platform">>;
export type ProjectsDeps = { sql: Sql; commitLog: CommitLog; log: Log };

/**
 * Returns the public form of a project, as the command line prints it; null means that the
 * configured default applies.
 */
export function describeProject({ id, name, platform, projectKey, ...settings }: Project) {
  return {
    id,
    name,
    platform,
    projectID: encodeProjectID(id),
    projectKey,
    active: settings.active,
    sampleRate: settings.sampleRate,
    beaconSize: settings.beaconBytesMax,
    dailyBytes: settings.dailyBytesMax,
    recordCanvas: settings.recordCanvas,
    canvasQuality: settings.canvasQuality,
    canvasFps: settings.canvasFps,
    sessionMs: settings.sessionMs,
  };
}

type Known = { byId: Map<number, Project>; byKey: Map<string, Project> };

/**
 * Keeps all projects in memory, so that no request waits for the database. A change reaches every
 * process within REFRESH_MS.
 */
export class Projects implements Service {
  readonly #deps: ProjectsDeps;
  readonly #known: Snapshot<Known>;

  constructor(deps: ProjectsDeps) {
    this.#deps = deps;
    this.#known = new Snapshot({
      name: "projects",
      empty: known([]),
      read: async () => known(await selectProjects(deps.sql)),
      everyMs: REFRESH_MS,
      log: deps.log,
    });
  }

  /** Reads the projects now and repeatedly from then on. */
  async start(signal: AbortSignal): Promise<void> {
    await this.#known.start(signal);
  }

  get all(): Project[] {
    return [...this.#known.value.byId.values()];
  }

  get(id: number): Project | undefined {
    return this.#known.value.byId.get(id);
  }

  /** Finds a project; asks the database for an unknown one, which may have just been created. */
  async find(by: { id: number } | { key: string }): Promise<Project | undefined> {
    const look = () => ("id" in by ? this.get(by.id) : this.#known.value.byKey.get(by.key));
    const found = look();
    if (found !== undefined) return found;
    await this.#known.again();
    return look();
  }

  /**
   * Returns the project that an SDK names by its encoded number or its key. Throws 403 if neither
   * is given, 422 if the number cannot be decoded, 404 if there is no such project.
   */
  async identify({
    projectID,
    projectKey,
  }: {
    projectID?: number | undefined;
    projectKey?: string | undefined;
  }): Promise<Project> {
    let project: Project | undefined;
    if (projectKey !== undefined) project = await this.find({ key: projectKey });
    else if (projectID !== undefined) {
      const id = decodeProjectID(projectID);
      if (id === undefined)
        throw new AppError("undecodable", "projectID is not an encoded project id");
      project = await this.find({ id });
    } else throw new AppError("forbidden", "projectID or projectKey is missing");
    if (project === undefined) throw new AppError("not_found", "project not found");
    return project;
  }

  async list(): Promise<Project[]> {
    return await selectProjects(this.#deps.sql);
  }

  async create({ name, platform, id, key }: NewProject): Promise<Project> {
    const { sql } = this.#deps;
    const projectKey = key ?? randomKey();
    for (;;) {
      const [taken] = await sql`
        select 1 from projects where id = ${id ?? 0} or project_key = ${projectKey}`;
      if (taken !== undefined) throw new UsageError("a project with that id or key exists");
      const project: Project = {
        id: id ?? (await nextId(sql)),
        name,
        platform,
        projectKey,
        active: true,
        sampleRate: 100,
        beaconBytesMax: null,
        dailyBytesMax: null,
        recordCanvas: null,
        canvasQuality: null,
        canvasFps: null,
        sessionMs: null,
      };
      // A rebuild of the database may just have restored an older project with this id: tries
      // another id, unless one was asked for.
      if (await this.#store(project)) return project;
    }
  }

  async update(id: number, change: ProjectChange): Promise<Project> {
    const project = (await this.list()).find((one) => one.id === id);
    if (project === undefined) throw new UsageError(`there is no project ${id}`);
    const changed = { ...project, ...change };
    if (!(await this.#store(changed)))
      throw new UsageError(`an older project ${id} was restored meanwhile`);
    return changed;
  }

  /**
   * Writes the project through the commit log, so that segments can rebuild the database. Returns
   * false if an older project has the id or the key.
   */
  async #store(project: Project): Promise<boolean> {
    const { sql, commitLog } = this.#deps;
    const { id, projectKey } = project;
    const [last] = await sql<{ changedAt: Date }[]>`
      select changed_at as "changedAt" from projects where id = ${id}`;
    // Later than the last change, even if the clock was set back: the newest change counts.
    const now = new Date(Math.max(Date.now(), (last?.changedAt.getTime() ?? 0) + 1)).toISOString();
    const row = {
      id,
      name: project.name,
      project_key: projectKey,
      platform: project.platform,
      active: project.active,
      sample_rate: project.sampleRate,
      beacon_bytes_max: project.beaconBytesMax,
      daily_bytes_max: project.dailyBytesMax,
      record_canvas: project.recordCanvas,
      canvas_quality: project.canvasQuality,
      canvas_fps: project.canvasFps,
      session_ms: project.sessionMs,
      // A change of an existing project uses `changed_at` alone.
      created_at: now,
      changed_at: now,
    };
    await commitLog.appendRow("project", row, { projectId: id, sessionId: 0n }).committed;
    const [stored] = await sql`
      select 1 from projects where id = ${id} and project_key = ${projectKey}`;
    return stored !== undefined;
  }
}

function known(projects: Project[]): Known {
  return {
    byId: new Map(projects.map((project) => [project.id, project])),
    byKey: new Map(projects.map((project) => [project.projectKey, project])),
  };
}

async function selectProjects(sql: Sql): Promise<Project[]> {
  return await sql<Project[]>`
    select id, name, project_key as "projectKey", platform, active, sample_rate as "sampleRate",
      beacon_bytes_max as "beaconBytesMax", daily_bytes_max::double precision as "dailyBytesMax",
      record_canvas as "recordCanvas", canvas_quality as "canvasQuality", canvas_fps as "canvasFps", session_ms as "sessionMs"
    from projects order by id`;
}

async function nextId(sql: Sql): Promise<number> {
  const [row] = await sql<[{ id: number }]>`
    select nextval(pg_get_serial_sequence('projects', 'id'))::integer as id`;
  return row.id;
}

function randomKey(): string {
  return Array.from(
    crypto.getRandomValues(new Uint32Array(KEY_LENGTH)),
    (n) => KEY_ALPHABET[n % KEY_ALPHABET.length],
  ).join("");
}
