import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errnoCode } from '../errors.ts';
import { native } from '../fs/native.ts';
import { runCommand } from '../os/exec.ts';

/** Something by which a tree may still be changed. */
export interface TreeHold {
  /** Relative to the tree. */
  readonly path: string;
  /** Who has it, where that can be seen: it may be under way between two processes. */
  readonly pid: number | undefined;
  readonly command: string | undefined;
}

/** A mount closes a file a moment after its last user did. */
const PATIENCE_MS = 1_500;
const HOLDS_MAX = 10;

/**
 * What still holds the tree at `directory`, once those that were just about to let go have done so; empty when nothing can change it
 * any more but we. Such are files open for writing in any process, and whatever an ordinary user's process has open or works in:
 * it could open that again for writing.
 */
export async function holdsOf(directory: string): Promise<TreeHold[]> {
  const deadline = Date.now() + PATIENCE_MS;
  for (let pauseMs = 5; ; pauseMs = Math.min(2 * pauseMs, 200)) {
    const holds = await holdsNow(directory);
    if (holds.length === 0 || Date.now() > deadline) return holds;
    await delay(pauseMs);
  }
}

/** One line for all. */
export function describeHolds(holds: readonly TreeHold[]): string {
  const [first] = holds;
  if (first === undefined) return 'nothing';
  const who =
    first.pid === undefined
      ? 'something (a descriptor under way in a socket?)'
      : `${first.command} (pid ${first.pid})`;
  const more = holds.length === 1 ? '' : `, and ${holds.length - 1} more`;
  return `${first.path === '' ? '.' : first.path} by ${who}${more}`;
}

async function holdsNow(directory: string): Promise<TreeHold[]> {
  if (process.platform !== 'linux') return await holdsByLsof(directory);
  if (isOwnDevice(directory) && !isTouched(statSync(directory).dev)) return [];
  const written = await openForWriting(directory);
  const writers = written.length === 0 ? [] : findWriters(directory, written);
  const others = (await heldByUsers(directory)).filter(({ path }) => !written.includes(path));
  return [...writers, ...others].slice(0, HOLDS_MAX);
}

/** A snapshot's tree is a device of its own: one look at the processes tells what is open in it, without reading the tree. */
function isOwnDevice(directory: string): boolean {
  return statSync(directory).dev !== statSync(join(directory, '../..')).dev;
}

/** Whether any process has something of the device, or descriptors are under way that nobody has now. */
function isTouched(dev: number): boolean {
  return processes().some((pid) =>
    handlesOf(pid).some(({ stat, path }) => stat.dev === dev || (stat.isSocket() && hasPassengers(path))),
  );
}

/** A socket tells how many descriptors wait in it to be received. */
function hasPassengers(path: string): boolean {
  const info = unlessEnded(() => readFileSync(path.replace('/fd/', '/fdinfo/'), 'latin1'));
  return info !== undefined && /^scm_fds:\s*[1-9]/m.test(info);
}

/** A file system without leases cannot tell: there only what processes have open by themselves is seen. */
async function openForWriting(directory: string): Promise<string[]> {
  try {
    return await native().filesOpenForWriting(directory, HOLDS_MAX);
  } catch (error) {
    if (errnoCode(error) === 'EOPNOTSUPP') return [];
    throw error;
  }
}

function findWriters(directory: string, paths: readonly string[]): TreeHold[] {
  const handles = processes().flatMap((pid) => handlesOf(pid).map((handle) => ({ pid, ...handle })));
  return paths.map((path) => {
    const file = fileAt(join(directory, path));
    const holder = handles.find(({ stat }) => typeof file === 'object' && isSame(stat, file));
    return holder === undefined
      ? { path, pid: undefined, command: undefined }
      : { path, pid: holder.pid, command: commandOf(holder.pid) };
  });
}

async function heldByUsers(directory: string): Promise<TreeHold[]> {
  const { dev } = statSync(directory);
  const held = processes()
    .filter((pid) => !isRoots(pid))
    .flatMap((pid) => handlesOf(pid).map((handle) => ({ pid, handle })))
    .filter(({ handle }) => handle.stat.dev === dev)
    .map(({ pid, handle }) => ({ pid, ino: handle.stat.ino, path: pathIn(directory, handle) }));
  const isDeep = held.some(({ path }) => path === TOO_DEEP);
  const inodes = isDeep ? await inodesIn(directory) : new Set<number>();
  return held.flatMap(({ pid, ino, path }) => {
    const isIn = path === TOO_DEEP ? inodes.has(ino) : path !== undefined;
    return isIn ? [{ path: String(path), pid, command: commandOf(pid) }] : [];
  });
}

/** In place of a path that is longer than system calls take. */
const TOO_DEEP = '(too deep for a path)';

/**
 * Where in `directory` a file is that a process has: its mount namespace may have the tree elsewhere, so each end of that path is
 * tried. Undefined when it is not in it, TOO_DEEP when that cannot be told so.
 */
function pathIn(directory: string, { stat, path: link }: Handle): string | undefined {
  const target = unlessTooDeep(() => unlessEnded(() => readlinkSync(link)) ?? '');
  if (target === TOO_DEEP) return TOO_DEEP;
  const names = target.split('/');
  let isTooDeep = false;
  for (let start = 0; start <= names.length; start++) {
    const path = names.slice(start).join('/');
    if (path.split('/').includes('..')) continue;
    const found = fileAt(join(directory, path));
    if (typeof found === 'object' && isSame(found, stat)) return path;
    isTooDeep ||= found === TOO_DEEP;
  }
  return isTooDeep ? TOO_DEEP : undefined;
}

function fileAt(path: string): Stats | typeof TOO_DEEP | undefined {
  return unlessTooDeep(() => lstatSync(path, { throwIfNoEntry: false }));
}

function unlessTooDeep<T>(look: () => T): T | typeof TOO_DEEP {
  try {
    return look();
  } catch (error) {
    if (errnoCode(error) === 'ENAMETOOLONG') return TOO_DEEP;
    throw error;
  }
}

/** find goes down name by name. */
async function inodesIn(directory: string): Promise<Set<number>> {
  const { stdout } = await runCommand(['find', directory, '-xdev', '-printf', '%i\\n'], { okCodes: [0, 1] });
  return new Set(stdout.split('\n').map(Number));
}

function isSame(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

function processes(): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

function isRoots(pid: number): boolean {
  return unlessEnded(() => statSync(`/proc/${pid}`).uid === 0) ?? true;
}

interface Handle {
  readonly stat: Stats;
  /** In /proc. */
  readonly path: string;
}

/** Private ones change no file. */
const SHARED_MAPPING = /^([0-9a-f]+-[0-9a-f]+) ..[-x]s \S+ \S+ [1-9]/gm;

/** Descriptors, of threads with a table of their own too, and working directories, and what is mapped as shared. */
function handlesOf(pid: number): Handle[] {
  // Root's threads share one table; anybody else's may each have its own.
  const tasks = isRoots(pid) ? [String(pid)] : (unlessEnded(() => readdirSync(`/proc/${pid}/task`)) ?? []);
  const links = tasks.flatMap((task) => {
    const base = `/proc/${pid}/task/${task}`;
    const fds = unlessEnded(() => readdirSync(`${base}/fd`)) ?? [];
    return [...fds.map((fd) => `${base}/fd/${fd}`), `${base}/cwd`, `${base}/root`];
  });
  const maps = unlessEnded(() => readFileSync(`/proc/${pid}/maps`, 'latin1')) ?? '';
  const shared = [...maps.matchAll(SHARED_MAPPING)].map(([, addresses]) => addresses ?? '');
  return [...links, ...shared.map((map) => `/proc/${pid}/map_files/${map}`)].flatMap((path) => {
    const stat = unlessEnded(() => statSync(path));
    return stat === undefined ? [] : [{ stat, path }];
  });
}

function commandOf(pid: number): string {
  return unlessEnded(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim()) ?? '?';
}

/** What `look` finds; undefined when the process or the descriptor is gone, or is a kind of file that cannot be looked at. */
function unlessEnded<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM', 'ENXIO', 'ENOTCONN', 'EIO'].includes(errnoCode(error) ?? ''))
      return undefined;
    throw error;
  }
}

/** `p` PID, `c` command, `a` access, `n` name: what lsof says of each file of a process. */
async function holdsByLsof(directory: string): Promise<TreeHold[]> {
  const { stdout } = await runCommand(['lsof', '-n', '-P', '-w', '-F', 'pcan', '+D', directory], {
    okCodes: [0, 1],
  });
  let [pid, command, access] = ['', '', ''];
  const holds: TreeHold[] = [];
  for (const line of stdout.split('\n')) {
    const [field, text] = [line.slice(0, 1), line.slice(1)];
    if (field === 'p') pid = text;
    else if (field === 'c') command = text;
    else if (field === 'a') access = text;
    else if (field === 'n' && ['w', 'u'].includes(access)) {
      holds.push({ path: text.replace(`${directory}/`, ''), pid: Number(pid), command });
    }
  }
  return holds.slice(0, HOLDS_MAX);
}
