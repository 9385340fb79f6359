import { pino } from "pino";

import { buildWrite } from "../../src/app.ts";
import { encodeProjectID } from "../../src/projects/codec.ts";
import { type NewProject, type Project, type ProjectChange } from "../../src/projects/service.ts";
import { type TestApp } from "./app.ts";

export type TestProject = Project & { projectID: number };

/** Creates another project of the app, with the changes in effect. */
export async function aProject(
  app: TestApp,
  { platform = "ios", id, key, ...change }: Partial<NewProject> & ProjectChange = {},
): Promise<TestProject> {
  const { config, sql, objects } = app;
  const log = pino({ level: "silent" });
  const { projects, commitLog } = buildWrite({ config, sql, objects, log });
  const create = { name: "another", platform, ...(id && { id }), ...(key && { key }) };
  const created = await projects.create(create);
  const project = await projects.update(created.id, change);
  await commitLog.flush();
  // The server asks its database for unknown projects at most ten times a second.
  await Bun.sleep(110);
  return { ...project, projectID: encodeProjectID(project.id) };
}
