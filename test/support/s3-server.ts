import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { join } from "node:path";

import { freePort } from "./free-port.ts";
import { locked } from "./lock.ts";
import { needPrograms } from "./packages.ts";
import { SHARED_FOLDER } from "./run-folder.ts";

const NEED = {
  programs: [
    "ceph-mon",
    "ceph-osd",
    "radosgw",
    "radosgw-admin",
    "ceph",
    "ceph-authtool",
    "monmaptool",
  ],
  packages: ["ceph-mon", "ceph-osd", "radosgw", "ceph-common"],
  otherwise:
    "The tests need an S3 server: set TEST_S3_ENDPOINT, TEST_S3_ACCESS_KEY_ID and TEST_S3_SECRET_ACCESS_KEY",
};
const DAEMONS = ["mon.a", "osd.0", "client.admin"];
const START_MS_MAX = 60_000;

// One server per user of the machine, which every test process of theirs shares.
const FOLDER = join(SHARED_FOLDER, `floodgate-s3-${userInfo().uid}`);
const LOCK = `${FOLDER}.lock`;
const CONFIG = join(FOLDER, "ceph.conf");
const ENDPOINT = join(FOLDER, "endpoint");
const USERS = join(FOLDER, "users");

type Access = { endpoint: string; accessKeyId: string; secretAccessKey: string; region: string };
export type S3Server = Access & { createBucket: (name: string) => Promise<void> };

let running: Promise<string> | undefined;

/**
 * Returns a real S3 server: that of TEST_S3_*, or Ceph's gateway, running already or started here.
 */
export async function s3Server(): Promise<S3Server> {
  const access = fromEnvironment() ?? {
    ...KEYS,
    endpoint: await (running ??= locked(LOCK, startOrAdopt)),
  };
  return { ...access, createBucket: (name) => createBucket(access, name) };
}

/** Ends the use of the server by a process; the last user stops it. */
export async function releaseS3Server(user: number): Promise<void> {
  const entry = join(USERS, String(user));
  if (!existsSync(entry)) return;
  await locked(LOCK, async () => {
    await rm(entry, { force: true });
    for (const pid of await readdir(USERS).catch(() => []))
      if ((await commandLine(pid)) !== "") return;
    await removeAll();
  });
}

const KEYS = { accessKeyId: "test", secretAccessKey: "testsecret", region: "us-east-1" };

function fromEnvironment(): Access | undefined {
  const endpoint = process.env["TEST_S3_ENDPOINT"];
  if (!endpoint) return undefined;
  return {
    endpoint,
    accessKeyId: process.env["TEST_S3_ACCESS_KEY_ID"] ?? "",
    secretAccessKey: process.env["TEST_S3_SECRET_ACCESS_KEY"] ?? "",
    region: process.env["TEST_S3_REGION"] ?? KEYS.region,
  };
}

async function createBucket(access: Access, name: string): Promise<void> {
  // Imported here, because few of those who load this file need the client.
  const { CreateBucketCommand, S3Client } = await import("@aws-sdk/client-s3");
  const { endpoint, region, ...credentials } = access;
  const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: name }));
  client.destroy();
}

async function startOrAdopt(): Promise<string> {
  const known = await readFile(ENDPOINT, "utf8").catch(() => undefined);
  const usable =
    known !== undefined && (await daemons()).length === DAEMONS.length && (await answers(known));
  if (!usable) return await startAfresh();
  await noteUse();
  return known;
}

async function noteUse(): Promise<void> {
  await writeFile(join(USERS, String(process.pid)), "");
}

async function startAfresh(): Promise<string> {
  await removeAll();
  for (const name of ["mon", "osd", "rgw", "run", "log", "users"])
    await mkdir(join(FOLDER, name), { recursive: true, mode: 0o700 });
  // Before anything runs, so that a run that is killed now leaves nothing.
  await noteUse();
  await needPrograms(NEED);
  const port = await freePort();
  await startCluster(port, await freePort());
  const address = `http://127.0.0.1:${port}`;
  await writeFile(ENDPOINT, address);
  return address;
}

/** Starts a monitor, an OSD in memory and a gateway, each of which forks when it is ready. */
async function startCluster(port: number, monitorPort: number): Promise<void> {
  const [fsid, osd] = [crypto.randomUUID(), crypto.randomUUID()];
  const [keyring, monmap] = [join(FOLDER, "keyring"), join(FOLDER, "monmap")];
  await writeFile(CONFIG, configuration(fsid, port, monitorPort));
  await writeFile(keyring, "");
  const addKey = (name: string, ...caps: string[]) =>
    run("ceph-authtool", keyring, "--gen-key", "-n", name, ...caps);
  await addKey("mon.", "--cap", "mon", "allow *");
  await addKey("client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *");
  await addKey("osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *");
  await run(
    "monmaptool",
    "--create",
    "--fsid",
    fsid,
    "--addv",
    "a",
    `[v2:127.0.0.1:${monitorPort}]`,
    monmap,
  );
  await run(
    "ceph-mon",
    "-c",
    CONFIG,
    "--mkfs",
    "-i",
    "a",
    "--monmap",
    monmap,
    "--keyring",
    keyring,
  );
  await run("ceph-mon", "-c", CONFIG, "-i", "a");
  await run("ceph", "-c", CONFIG, "osd", "create", osd);
  await run("ceph-osd", "-c", CONFIG, "-i", "0", "--mkfs", "--osd-uuid", osd, "--no-mon-config");
  await run("ceph-osd", "-c", CONFIG, "-i", "0");
  const user = ["--uid=test", "--display-name=test", `--access-key=${KEYS.accessKeyId}`];
  await run(
    "radosgw-admin",
    "-c",
    CONFIG,
    "user",
    "create",
    ...user,
    `--secret-key=${KEYS.secretAccessKey}`,
  );
  await run("radosgw", "-c", CONFIG, "-n", "client.admin");
  for (const until = Date.now() + START_MS_MAX; !(await answers(`http://127.0.0.1:${port}`));)
    if (Date.now() > until) throw new Error(`Ceph's gateway does not answer; see ${FOLDER}/log`);
    else await Bun.sleep(50);
}

// Without the paxos lines each change of the cluster's map takes a second, and the start 13 s.
const configuration = (fsid: string, port: number, monitorPort: number) => `[global]
fsid = ${fsid}
mon host = v2:127.0.0.1:${monitorPort}
public addr = 127.0.0.1
paxos propose interval = 0.02
paxos min wait = 0.01
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 0
mon data avail warn = 0
run dir = ${FOLDER}/run
admin socket = ${FOLDER}/run/$name.$pid.asok
pid file = ${FOLDER}/run/$name.pid
log file = ${FOLDER}/log/$name.log
mon cluster log file = ${FOLDER}/log/cluster.log
mon data = ${FOLDER}/mon
osd data = ${FOLDER}/osd
rgw data = ${FOLDER}/rgw
keyring = ${FOLDER}/keyring
osd objectstore = memstore
memstore device bytes = 4294967296
rgw frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1
rgw thread pool size = 64
# Deleted objects must be freed soon.
rgw gc obj min wait = 2
rgw gc processor period = 2
`;

async function run(...command: string[]): Promise<void> {
  // Writes to a file, because a daemon in the background would hold a pipe open.
  const output = Bun.file(join(FOLDER, "log", "start"));
  // Not the TMPDIR of this run, with which it would end: other runs use the server, too.
  const env = { ...process.env, TMPDIR: SHARED_FOLDER };
  const child = Bun.spawn(command, { env, stdout: output, stderr: output });
  if ((await child.exited) !== 0)
    throw new Error(`${command.join(" ")} failed: ${(await output.text()).slice(-2000)}`);
}

async function removeAll(): Promise<void> {
  // Kills the daemons, because on SIGTERM the OSD would write its memory to disk.
  for (let pids = await daemons(); pids.length > 0; pids = await daemons()) {
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await Bun.sleep(20);
  }
  await rm(FOLDER, { recursive: true, force: true });
}

/** Lists our running daemons. Checks the command line, because a pid may have been reused. */
async function daemons(): Promise<number[]> {
  const pids = DAEMONS.map(async (name) => {
    const pid = await readFile(join(FOLDER, "run", `${name}.pid`), "utf8").catch(() => "none");
    return (await commandLine(pid.trim())).includes(CONFIG) ? [Number(pid)] : [];
  });
  return (await Promise.all(pids)).flat();
}

/** Returns the command line; empty if the process has ended. */
async function commandLine(pid: string): Promise<string> {
  return readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
}

async function answers(endpoint: string): Promise<boolean> {
  return fetch(endpoint, { signal: AbortSignal.timeout(2000) }).then(
    (response) => response.ok,
    () => false,
  );
}
