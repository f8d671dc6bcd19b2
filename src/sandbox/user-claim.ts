import { lockFile, type FileLock } from '../fs/file-lock.ts';

/** The right to run a step as one build user; the others of this process wait in line, those of other processes for the lock. */
export interface UserClaim {
  /** Waits for the turn and answers how to give it up; undefined when `signal` fired first. */
  take(signal: AbortSignal): Promise<(() => void) | undefined>;
}

export function createUserClaim(lockPath: string): UserClaim {
  /** Resolves when all who came so far have left. */
  let line: Promise<unknown> = Promise.resolve();

  /** Stands in line: `turn` resolves when all before have left, `leave` lets the next one come up. */
  function queue(): { turn: Promise<unknown>; leave: () => void } {
    const turn = line;
    let leave: () => void = () => undefined;
    const left = new Promise<void>((resolve) => (leave = resolve));
    line = turn.then(() => left);
    return { turn, leave };
  }

  return {
    async take(signal) {
      const { turn, leave } = queue();
      let lock: FileLock | undefined;
      try {
        const locked = turn.then(() => (signal.aborted ? undefined : lockFile(lockPath, 'exclusive')));
        lock = await untilAborted(locked, signal, (late) => late?.release());
      } finally {
        if (lock === undefined) leave();
      }
      return lock === undefined ? undefined : giveUp(lock, leave);
    },
  };
}

function giveUp(lock: FileLock, leave: () => void): () => void {
  return () => {
    lock.release();
    leave();
  };
}

/** What `promise` resolves to, or undefined once `signal` fires; then `late` gets what it resolves to after all. */
export async function untilAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  late: (value: T) => void = () => undefined,
): Promise<T | undefined> {
  let stopWaiting: () => void = () => undefined;
  const aborted = new Promise<undefined>((resolve) => (stopWaiting = () => resolve(undefined)));
  if (signal.aborted) stopWaiting();
  signal.addEventListener('abort', stopWaiting);
  try {
    const first = await Promise.race([promise.then((value) => ({ value })), aborted]);
    if (first !== undefined) return first.value;
    promise.then(late, () => undefined);
    return undefined;
  } finally {
    signal.removeEventListener('abort', stopWaiting);
  }
}
