import { closeSync, openSync } from 'node:fs';
import { native } from './native.ts';

/** An advisory lock (flock) on a file; the kernel drops it when its holder dies, however it dies. */
export interface FileLock {
  /** Turns a shared lock into an exclusive one if nobody else holds it; when not, the lock is lost. Never waits. */
  tryUpgrade(): boolean;
  /** Idempotent. */
  release(): void;
}

/**
 * Waits for the lock on `path` (created 0600 where missing) and answers it.
 * A process that must be able to end meanwhile may: the wait holds nothing.
 */
export async function lockFile(path: string, mode: 'shared' | 'exclusive'): Promise<FileLock> {
  const fd = openSync(path, 'a', 0o600);
  try {
    if (!native().flockTry(fd, mode === 'exclusive')) await native().flockWait(fd, mode === 'exclusive');
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
