import { closeSync, openSync } from 'node:fs';
import { native } from './native.ts';

/** An advisory lock (flock) on a file; the kernel drops it when its holder dies, however it dies. */
export interface FileLock {
  /** Turns a shared lock into an exclusive one if nobody else holds it; when not, the lock is lost. Never waits. */
  tryUpgrade(): boolean;
  /** Idempotent. */
  release(): void;
}

/** Waits for the lock on `path` (created 0600 where missing) and answers it. */
export async function lockFile(path: string, mode: 'shared' | 'exclusive'): Promise<FileLock> {
  return waitForLock(path, mode, true);
}

/** Resolves when nobody holds `path` exclusively. */
export async function untilUnlocked(path: string): Promise<void> {
  (await waitForLock(path, 'shared', true)).release();
}

/** As `untilUnlocked`, for a watcher in the background: a process with nothing else to do may end before. */
export async function watchUntilUnlocked(path: string): Promise<void> {
  (await waitForLock(path, 'shared', false)).release();
}

async function waitForLock(
  path: string,
  mode: 'shared' | 'exclusive',
  keepsProcess: boolean,
): Promise<FileLock> {
  const fd = openSync(path, 'a', 0o600);
  try {
    const isExclusive = mode === 'exclusive';
    if (!native().flockTry(fd, isExclusive)) await native().flockWait(fd, isExclusive, keepsProcess);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return heldLock(fd);
}

/** Does not wait: undefined when another process, or another lock in this one, holds it. */
export function tryLockFile(path: string, mode: 'shared' | 'exclusive'): FileLock | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (native().flockTry(fd, mode === 'exclusive')) return heldLock(fd);
  closeSync(fd);
  return undefined;
}

function heldLock(fd: number): FileLock {
  let isHeld = true;
  return {
    tryUpgrade: () => isHeld && native().flockTry(fd, true),
    release() {
      if (!isHeld) return;
      isHeld = false;
      closeSync(fd);
    },
  };
}
