import { readdir } from 'node:fs/promises';
import type { FileLock } from '../fs/file-lock.ts';
import { describeHolder, holdersOf, lockUnlessAborted } from './store-locks.ts';
import type { StoreParts } from './store-parts.ts';
import { sweep } from './store-recovery.ts';
import type { PausedStore } from './store.ts';

/**
 * A step holds the steps lock, shared, for as long as it is made, and gets it by way of the gate: who closes the gate
 * has only to wait for the steps that are inside. Undefined when `signal` fires first.
 */
export async function enterStep(
  { layout }: StoreParts,
  signal: AbortSignal,
  onWait: (what: string) => void,
): Promise<FileLock | undefined> {
  const gate = await lockUnlessAborted(layout.gateLock, 'shared', signal, (holder) =>
    onWait(`the store, which is paused${holder === undefined ? '' : ` (${describeHolder(holder)})`}`),
  );
  if (gate === undefined) return undefined;
  try {
    return await lockUnlessAborted(layout.stepsLock, 'shared', signal);
  } finally {
    gate.release();
  }
}

/** Store.pause says what it promises. */
export async function pauseSteps(
  parts: StoreParts,
  onWait: (holders: string) => void,
  signal: AbortSignal,
): Promise<PausedStore | undefined> {
  const { layout } = parts;
  const tell = (path: string) => () => onWait(holdersOf(path).map(describeHolder).join('; '));
  const gate = await lockUnlessAborted(layout.gateLock, 'exclusive', signal, tell(layout.gateLock));
  if (gate === undefined) return undefined;
  const steps = await lockUnlessAborted(layout.stepsLock, 'exclusive', signal, tell(layout.stepsLock)).catch(
    (error: unknown) => {
      gate.release();
      throw error;
    },
  );
  if (steps === undefined) {
    gate.release();
    return undefined;
  }
  return {
    async sweep() {
      const before = await countLeftovers(parts);
      await parts.reserve.spend(() => sweep(parts));
      return before - (await countLeftovers(parts));
    },
    resume() {
      steps.release();
      gate.release();
    },
  };
}

async function countLeftovers({ layout }: StoreParts): Promise<number> {
  const [results, caches] = await Promise.all([readdir(layout.resultsTmp), readdir(layout.cachesTmp)]);
  return results.length + caches.length;
}
