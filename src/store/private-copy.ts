import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { FileLock } from '../fs/file-lock.ts';
import type { StepOutcome } from '../sandbox/sandbox.ts';
import { withCopyProgress, type CopyProgress } from './copy-progress.ts';
import { waitForLock } from './store-locks.ts';
import { discard, isDirectory, type StoreParts } from './store-parts.ts';

/** A tree that nobody removes as long as `lock` is held. */
export interface HeldTree {
  readonly directory: string;
  readonly lock: FileLock;
}

/** Result `id`, or else what was kept under it of a failed step. @throws {ObuilderError} NO_SUCH_RESULT */
export async function holdTree({ layout }: StoreParts, id: string): Promise<HeldTree> {
  const trees = [
    { directory: layout.result(id), lockPath: layout.resultLock(id) },
    { directory: layout.failedTree(id), lockPath: layout.failedTreeLock(id) },
  ];
  for (const { directory, lockPath } of trees) {
    if (!(await isDirectory(directory))) continue; // not to wait for who is making it
    const lock = await waitForLock(lockPath, 'shared');
    if (await isDirectory(directory)) return { directory, lock };
    lock.release();
  }
  throw new ObuilderError('NO_SUCH_RESULT', `${id}: no such result in the store`, {
    hint: 'see: obuilder-fs store list; the tree of a failed step is there after build --on-failure=keep',
  });
}

interface Copying {
  readonly source: string;
  readonly copying: (progress: CopyProgress | undefined) => void;
}

/**
 * Gives `look` a copy of `source` in result-tmp, under an id of its own: like a result that is being made it is locked, and swept
 * when its owner was killed, but it never becomes one.
 */
export async function lookAtCopy(
  { layout, copier }: StoreParts,
  { source, copying }: Copying,
  look: (directory: string) => Promise<StepOutcome>,
  signal: AbortSignal,
): Promise<StepOutcome> {
  const id = randomBytes(32).toString('hex');
  const target = layout.resultTmp(id);
  const lock = await waitForLock(layout.resultLock(id), 'exclusive');
  try {
    await withCopyProgress({ source, target }, copying, () => copier.copy(source, target, signal));
    await rm(join(target, 'log'), { force: true });
    return await look(target);
  } catch (error) {
    if (signal.aborted) return { status: 'cancelled' };
    throw error;
  } finally {
    await discard(copier, target, layout.resultsTmp).catch(() => undefined); // the next start removes it
    lock.release();
  }
}
