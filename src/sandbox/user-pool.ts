import { join } from 'node:path';
import { lockFile, tryLockFile, type FileLock } from '../fs/file-lock.ts';

/** The right to run a step as one build user. */
export interface UserClaim {
  readonly uid: number;
  /** Idempotent. */
  giveUp(): void;
}

export interface ClaimRequest {
  /** Taken where it is free; any other will do where it is not. */
  readonly preferred?: number;
  /** Called once if all are busy. */
  readonly onWait?: (() => void) | undefined;
}

/**
 * The build users of a machine. Steps of several processes take turns by a flock for each uid, which dies with its holder, so a
 * killed process holds nobody up. Within one process who came first is served first; between processes the kernel decides.
 */
export interface UserPool {
  /** Waits for a build user; undefined when `signal` fired first. */
  take(request: ClaimRequest, signal: AbortSignal): Promise<UserClaim | undefined>;
}

interface Waiter {
  readonly preferred: number | undefined;
  tell(): void;
  take(claim: UserClaim): void;
  fail(error: unknown): void;
}

/** @param lockDirectory of the locks; every process that shares these users must name the same one. */
export function createUserPool(uids: readonly number[], lockDirectory: string): UserPool {
  const lockPath = (uid: number) => lockPathOf(lockDirectory, uid);
  const line: Waiter[] = [];
  /** Uids whose lock a thread waits for. It cannot be called back: a lock that comes when nobody wants it is released. */
  const awaited = new Set<number>();

  function serve(): void {
    for (let first = line[0]; first !== undefined; first = line[0]) {
      try {
        const claim = takeFree(first.preferred);
        if (claim === undefined) break;
        line.shift();
        first.take(claim);
      } catch (error) {
        line.shift();
        first.fail(error);
      }
    }
    for (const waiter of line) waiter.tell();
    if (line.length > 0) for (const uid of uids) awaitLock(uid);
  }

  function takeFree(preferred: number | undefined): UserClaim | undefined {
    const inOrder = uids.filter((uid) => uid === preferred).concat(uids.filter((uid) => uid !== preferred));
    for (const uid of inOrder) {
      const lock = tryLockFile(lockPath(uid), 'exclusive');
      if (lock !== undefined) return claimOf(uid, lock);
    }
    return undefined;
  }

  function awaitLock(uid: number): void {
    if (awaited.has(uid)) return;
    awaited.add(uid);
    const settle = (use: () => void) => {
      awaited.delete(uid);
      use();
      if (line.length > 0) serve();
    };
    lockFile(lockPath(uid), 'exclusive').then(
      (lock) =>
        settle(() => {
          const next = line.shift();
          if (next === undefined) lock.release();
          else next.take(claimOf(uid, lock));
        }),
      (error: unknown) => settle(() => line.shift()?.fail(error)),
    );
  }

  return {
    take: ({ preferred, onWait }, signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) {
          resolve(undefined);
          return;
        }
        let isTold = false;
        const end = () => signal.removeEventListener('abort', leave);
        const waiter: Waiter = {
          preferred,
          tell() {
            if (!isTold) onWait?.();
            isTold = true;
          },
          take(claim) {
            end();
            resolve(claim);
          },
          fail(error) {
            end();
            reject(error instanceof Error ? error : new Error(String(error)));
          },
        };
        function leave(): void {
          line.splice(line.indexOf(waiter), 1);
          resolve(undefined);
        }
        signal.addEventListener('abort', leave, { once: true });
        line.push(waiter);
        serve();
      }),
  };
}

/** Held exclusively by whoever runs a step as this build user, or removes it. */
export function lockPathOf(lockDirectory: string, uid: number): string {
  return join(lockDirectory, `uid-${uid}.lock`);
}

function claimOf(uid: number, lock: FileLock): UserClaim {
  return { uid, giveUp: () => lock.release() };
}
