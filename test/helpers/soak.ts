import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { chown } from 'node:fs/promises';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { leasePrefix, type PrefixLease } from '../../src/fs/mount-supervisor.ts';
import { liveRecord, prefixFiles, type MountRecord } from '../../src/fs/run-directory.ts';
import { endProcessesOf, processesOf } from '../../src/sandbox/processes-linux.ts';
import { asUid, createScratchMount, mainProgram, mountsBelow, runProgram } from './scratch-mount.ts';

/** Uids of the soak's own. */
const USERS = [7736, 7737, 7738, 7739] as const;
const PROBE = { everyMs: 500, deadlineMs: 3_000 };
const HANG_MS = 60_000;

export interface SoakRequest {
  readonly seconds: number;
  readonly killEverySeconds: number;
  readonly seed: number;
}

export interface SoakReport {
  readonly seed: number;
  readonly kills: number;
  readonly hangs: number;
  readonly operations: number;
  /** Files whose write and close had been answered with success before a kill. */
  readonly completedWrites: number;
  /** Those of them that the backing does not hold as they were written. */
  readonly lostWrites: readonly string[];
  /** From a kill until another mount process served; for a hang the probe's time is part of it. */
  readonly slowestReplacementMs: number;
  /** Mounts and processes that are still there. */
  readonly leftovers: readonly string[];
}

/** Mixed load of several users on a leased mount, whose process is killed or stopped again and again. */
export async function soak(request: SoakRequest): Promise<SoakReport> {
  const scratch = createScratchMount();
  const random = randomFrom(request.seed);
  const counts = { kills: 0, hangs: 0, operations: 0, completedWrites: 0, slowestReplacementMs: 0 };
  const lostWrites: string[] = [];
  const { prefix, scoreboard, stateDir } = scratch;
  for (const uid of USERS) scratch.point(uid, scratch.makeTree(String(uid), uid));
  const lease = await leasePrefix({
    ...{ prefix, scoreboard, stateDir, subdirectory: 'local', program: [process.execPath, mainProgram] },
    endProcesses: async (uids) => {
      await Promise.all(uids.map((uid) => endProcessesOf(uid)));
    },
    probe: PROBE,
  });
  const files = prefixFiles(join(stateDir, 'run'), prefix);
  let serving: MountRecord = lease.record;
  const end = Date.now() + request.seconds * 1000;
  for (let round = 0; Date.now() < end; round++) {
    const loads = await Promise.all(
      USERS.map((uid) => startLoad(uid, scratch.prefix, scratch.path(`${uid}/local`), round, random())),
    );
    await delay(Math.min(request.killEverySeconds * (0.5 + random()) * 1000, Math.max(0, end - Date.now())));
    const isHang = random() < 0.25;
    const since = Date.now();
    process.kill(serving.pid, isHang ? 'SIGSTOP' : 'SIGKILL');
    if (isHang) counts.hangs++;
    else counts.kills++;
    serving = await nextMount(serving, files);
    if (!isHang) counts.slowestReplacementMs = Math.max(counts.slowestReplacementMs, Date.now() - since);
    for (const load of loads) {
      await load.ended();
      counts.operations += load.operations;
      counts.completedWrites += load.written.size;
      lostWrites.push(...lostOf(load));
    }
  }
  const leftovers = await closeAll(lease, scratch.directory);
  scratch.close();
  return { seed: request.seed, ...counts, lostWrites, leftovers };
}

/** Waits for the mount process that serves after `before`. */
async function nextMount(before: MountRecord, files: ReturnType<typeof prefixFiles>): Promise<MountRecord> {
  const deadline = Date.now() + HANG_MS;
  for (;;) {
    const now = liveRecord(files);
    if (now !== undefined && now.doorsName !== before.doorsName) return now;
    if (Date.now() > deadline) throw new Error(`the mount of pid ${before.pid} was not replaced`);
    await delay(5);
  }
}

async function closeAll(lease: PrefixLease, directory: string): Promise<string[]> {
  const left: string[] = [];
  for (const uid of USERS)
    for (const { pid, command } of await processesOf(uid)) left.push(`process ${pid} ${command} of ${uid}`);
  await lease.close();
  const serving = await lastingMountProcesses(directory);
  if (serving !== '') left.push(`mount process ${serving}`);
  return [...left, ...mountsBelow(directory).map((mount) => `mount ${mount}`)];
}

/** A mount process lets go of its lock, then it ends: that takes a moment. */
async function lastingMountProcesses(directory: string): Promise<string> {
  for (let attempt = 0; ; attempt++) {
    const found = runProgram(['pgrep', '-af', `mount ${directory}`]).stdout.trim();
    if (found === '' || attempt === 100) return found;
    await delay(50);
  }
}

interface Load {
  /** The directory below the tree itself, not through the mount, that this load writes to. */
  readonly backing: string;
  readonly written: Map<string, string>;
  operations: number;
  /** Resolves when its processes are gone, which the loss of the mount brings about. */
  ended(): Promise<void>;
}

async function startLoad(
  uid: number,
  prefix: string,
  tree: string,
  round: number,
  seed: number,
): Promise<Load> {
  const name = `round-${round}`;
  const backing = join(tree, name);
  if (round > 0) rmSync(join(tree, `round-${round - 1}`), { recursive: true, force: true });
  mkdirSync(backing);
  await chown(backing, uid, uid);
  const [command = '', ...args] = asUid(uid, [
    process.execPath,
    '-e',
    LOAD_PROGRAM,
    join(prefix, name),
    String(seed),
  ]);
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'ignore'], cwd: '/' });
  const written = new Map<string, string>();
  const load: Load = { backing, written, operations: 0, ended: () => untilEnded(child, uid) };
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    const [file = '', digest] = line.split(' ');
    if (digest === undefined) load.operations += Number(file);
    else written.set(file, digest);
  });
  await once(lines, 'line');
  return load;
}

async function untilEnded(child: ChildProcess, uid: number): Promise<void> {
  const isOver = () => child.exitCode !== null || child.signalCode !== null;
  if (!isOver()) await once(child, 'close', { signal: AbortSignal.timeout(HANG_MS) });
  await delay(0);
  await endProcessesOf(uid);
}

function lostOf({ backing, written }: Load): string[] {
  return [...written]
    .filter(([file, digest]) => !holds(join(backing, file), digest))
    .map(([file]) => join(backing, file));
}

function holds(path: string, digest: string): boolean {
  return existsSync(path) && createHash('sha1').update(readFileSync(path)).digest('hex') === digest;
}

/**
 * Files of its own that it never touches again, each told once its write has been answered; between them, everything else.
 * Lines: `FILE SHA1` of a completed write, or a count of operations.
 */
const LOAD_PROGRAM = `
const fs = require('node:fs'), crypto = require('node:crypto');
const [directory, seed] = process.argv.slice(1);
let state = Math.floor(Number(seed) * 2 ** 32) | 1;
const random = (n) => { state ^= state << 13; state ^= state >>> 17; state ^= state << 5; return (state >>> 0) % n; };
const say = (line) => fs.writeSync(1, line + '\\n');
const path = (name) => directory + '/' + name;
const scratch = () => path('s' + random(20));
const mixed = [
  () => fs.writeFileSync(scratch(), Buffer.alloc(random(200000), 'x')),
  () => fs.readFileSync(scratch()),
  () => fs.appendFileSync(scratch(), 'more'),
  () => fs.renameSync(scratch(), scratch()),
  () => fs.unlinkSync(scratch()),
  () => fs.linkSync(scratch(), scratch()),
  () => fs.symlinkSync('nowhere', scratch()),
  () => fs.truncateSync(scratch(), random(5000)),
  () => fs.chmodSync(scratch(), 0o600 + random(64)),
  () => fs.mkdirSync(path('d' + random(5)) + '/e/f', { recursive: true }),
  () => fs.rmSync(path('d' + random(5)), { recursive: true, force: true }),
  () => fs.readdirSync(directory),
  () => fs.statSync(directory + '/../who'),
];
say('0');
for (let i = 0; ; i++) {
  for (let j = 0; j < 10; j++) try { mixed[random(mixed.length)](); } catch (error) { if (error.code === 'ENOTCONN') process.exit(); }
  const content = crypto.randomBytes(random(30000));
  try {
    const fd = fs.openSync(path('kept' + i + '.new'), 'w');
    fs.writeSync(fd, content);
    if (random(10) === 0) fs.fsyncSync(fd);
    fs.closeSync(fd);
    fs.renameSync(path('kept' + i + '.new'), path('kept' + i));
  } catch { process.exit(); }
  say('kept' + i + ' ' + crypto.createHash('sha1').update(content).digest('hex'));
  say('11');
}`;

/** mulberry32: numbers in [0, 1) that a seed repeats. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
