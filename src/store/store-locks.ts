import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { errnoCode } from '../errors.ts';
import { lockFile, tryLockFile, type FileLock } from '../fs/file-lock.ts';
import { isDiskFull } from './store-space.ts';

export type LockMode = 'shared' | 'exclusive';

/** A process that has a lock. The kernel alone decides who has it: this is only for people to read. */
export interface LockHolder {
  readonly pid: number;
  /** Undefined where several share the lock. */
  readonly since: Date | undefined;
}

/** As `tryLockFile`; who gets it exclusively leaves a note in the file, for those who wait. */
export function tryLock(path: string, mode: LockMode): FileLock | undefined {
  const lock = tryLockFile(path, mode);
  if (mode === 'exclusive' && lock !== undefined) leaveNote(path, lock);
  return lock;
}

/** As `lockFile`; with the note of `tryLock`. */
export async function waitForLock(path: string, mode: LockMode): Promise<FileLock> {
  const lock = await lockFile(path, mode);
  if (mode === 'exclusive') leaveNote(path, lock);
  return lock;
}

/** The lock, or undefined when `signal` fires first. `onWait` is called when somebody else holds it. */
export async function lockUnlessAborted(
  path: string,
  mode: LockMode,
  signal: AbortSignal,
  onWait: (holder: LockHolder | undefined) => void = () => undefined,
): Promise<FileLock | undefined> {
  const free = tryLock(path, mode);
  if (free !== undefined) return free;
  if (signal.aborted) return undefined;
  const waiting = waitForLock(path, mode);
  const held = new Promise<FileLock | undefined>((resolve, reject) => {
    const giveUp = () => {
      resolve(undefined);
      // The wait itself cannot be broken off: give the lock back when it comes.
      waiting.then(
        (late) => late.release(),
        () => undefined,
      );
    };
    signal.addEventListener('abort', giveUp, { once: true });
    waiting.then((lock) => {
      signal.removeEventListener('abort', giveUp);
      resolve(lock);
    }, reject);
  });
  // Only now: who hears it may fire the signal at once.
  onWait(holdersOf(path)[0]);
  return await held;
}

/** Who has the lock on `path`, which was not to be had just now; empty when the machine does not tell. */
export function holdersOf(path: string): LockHolder[] {
  const pids = pidsInProc(path);
  const note = readNote(path);
  if (note !== undefined && (pids === undefined || pids.includes(note.pid))) return [note];
  return (pids ?? []).map((pid) => ({ pid, since: undefined }));
}

/** `pid 12, since 13:14:15`, of this process as of others. */
export function describeHolder({ pid, since }: LockHolder): string {
  const name = pid === process.pid ? 'this process' : `pid ${pid}`;
  return since === undefined ? name : `${name}, since ${since.toTimeString().slice(0, 8)}`;
}

function leaveNote(path: string, lock: FileLock): void {
  try {
    writeFileSync(path, `${process.pid} ${new Date().toISOString()}\n`);
  } catch (error) {
    if (isDiskFull(error)) return;
    lock.release();
    throw error;
  }
}

function readNote(path: string): LockHolder | undefined {
  const [, pid, since] = /^(\d+) (\S+)\n$/.exec(readFileSync(path, 'utf8')) ?? [];
  if (pid === undefined || since === undefined || !isAlive(Number(pid))) return undefined;
  return { pid: Number(pid), since: new Date(since) };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errnoCode(error) === 'EPERM';
  }
}

/** Undefined where the kernel does not list locks, or names another device than stat does (btrfs). */
function pidsInProc(path: string): number[] | undefined {
  if (process.platform !== 'linux') return undefined;
  const { ino } = statSync(path);
  // Those that wait have an arrow before it.
  const lock = new RegExp(`^\\d+: FLOCK +ADVISORY +(?:READ|WRITE) +(\\d+) [0-9a-f]+:[0-9a-f]+:${ino} `, 'gm');
  const pids = [...readFileSync('/proc/locks', 'latin1').matchAll(lock)].map(([, pid]) => Number(pid));
  return pids.length === 0 ? undefined : [...new Set(pids)];
}
