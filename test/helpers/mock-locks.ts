import type { FileLock } from '../../src/fs/file-lock.ts';
import type { Locks } from '../../src/store/store-parts.ts';

interface Waiter {
  mode: 'shared' | 'exclusive';
  grant: (lock: FileLock) => void;
}

/** File locks among the users of one value, as flock gives them among processes. */
export function createMockLocks(): Locks {
  const held = new Map<string, { mode: 'shared' | 'exclusive'; count: number }>();
  const waiting = new Map<string, Waiter[]>();

  function tryLockFile(path: string, mode: 'shared' | 'exclusive'): FileLock | undefined {
    const current = held.get(path);
    if (current !== undefined && (mode === 'exclusive' || current.mode === 'exclusive')) return undefined;
    held.set(path, { mode, count: (current?.count ?? 0) + 1 });
    let isHeld = true;
    return {
      release() {
        if (!isHeld) return;
        isHeld = false;
        const now = held.get(path);
        if (now === undefined) throw new Error('BUG: lock released twice');
        if (now.count > 1) held.set(path, { mode: now.mode, count: now.count - 1 });
        else held.delete(path);
        wake(path);
      },
    };
  }

  function wake(path: string): void {
    const queue = waiting.get(path) ?? [];
    for (let next = queue[0]; next !== undefined; next = queue[0]) {
      const lock = tryLockFile(path, next.mode);
      if (lock === undefined) return;
      queue.shift();
      next.grant(lock);
    }
  }

  function lockFile(path: string, mode: 'shared' | 'exclusive'): Promise<FileLock> {
    const free = tryLockFile(path, mode);
    if (free !== undefined) return Promise.resolve(free);
    return new Promise((grant) => {
      waiting.set(path, [...(waiting.get(path) ?? []), { mode, grant }]);
    });
  }

  return { lockFile, tryLockFile };
}
