import { closeSync, openSync } from 'node:fs';
import { native } from './native.ts';

/** An advisory lock (flock) on a file; the kernel drops it when its holder dies, however it dies. */
export interface FileLock {
  release(): void;
}

/**
 * Waits for the lock on `path` (created 0600 where missing) and answers it.
 * `tryLockFile` does not wait: undefined when another process, or another lock in this one, holds it.
 */
export async function lockFile(path: string, mode: 'shared' | 'exclusive'): Promise<FileLock> {
  const fd = openSync(path, 'a', 0o600);
  try {
    await native().flockWait(fd, mode === 'exclusive');
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return heldLock(fd);
}

export function tryLockFile(path: string, mode: 'shared' | 'exclusive'): FileLock | undefined {
  const fd = openSync(path, 'a', 0o600);
  if (native().flockTry(fd, mode === 'exclusive')) return heldLock(fd);
  closeSync(fd);
  return undefined;
}

function heldLock(fd: number): FileLock {
  let isHeld = true;
  return {
    release() {
      if (!isHeld) return;
      isHeld = false;
      closeSync(fd);
    },
  };
}
