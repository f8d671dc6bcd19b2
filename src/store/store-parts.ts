import { randomUUID } from 'node:crypto';
import { lstat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { lockFile, tryLockFile, type FileLock } from '../fs/file-lock.ts';
import type { StoreIndex } from './store-index.ts';
import type { StoreLayout } from './store-layout.ts';
import type { TreeCopier } from './tree-copier.ts';

/** A moment between two changes on disk. Crash tests stop there. */
export type Checkpoint =
  | 'result-begun'
  | 'result-filled'
  | 'result-indexed'
  | 'result-saved'
  | 'result-set-aside'
  | 'result-forgotten'
  | 'cache-copied'
  | 'cache-set-aside'
  | 'cache-replaced';

/** What the parts of one open store share. */
export interface StoreParts {
  readonly layout: StoreLayout;
  readonly copier: TreeCopier;
  readonly index: StoreIndex;
  readonly checkpoint: (point: Checkpoint) => Promise<void>;
}

const SET_ASIDE = '.removed-';

export function isSetAside(name: string): boolean {
  return name.startsWith(SET_ASIDE);
}

/**
 * Makes `path` vanish at once by moving it into `tmpDirectory` under a name of its own; undefined when it was not there. A tree is
 * never removed in place: half of it would look like the whole, and a dying process could still add to the next one of that name.
 */
export async function setAside(
  copier: TreeCopier,
  path: string,
  tmpDirectory: string,
): Promise<string | undefined> {
  const aside = join(tmpDirectory, `${SET_ASIDE}${basename(path).slice(0, 100)}-${randomUUID()}`);
  try {
    await copier.move(path, aside);
    return aside;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Removes the tree at `path`, if there is one, by way of `tmpDirectory`. */
export async function discard(copier: TreeCopier, path: string, tmpDirectory: string): Promise<void> {
  const aside = await setAside(copier, path, tmpDirectory);
  if (aside !== undefined) await copier.remove(aside);
}

export async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).isDirectory();
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** The lock, or undefined when `signal` fires first. `onWait` is called when somebody else holds it. */
export async function lockUnlessAborted(
  path: string,
  mode: 'shared' | 'exclusive',
  signal: AbortSignal,
  onWait: () => void = () => undefined,
): Promise<FileLock | undefined> {
  const free = tryLockFile(path, mode);
  if (free !== undefined) return free;
  if (signal.aborted) return undefined;
  onWait();
  const waiting = lockFile(path, mode);
  return await new Promise((resolve, reject) => {
    const giveUp = () => {
      resolve(undefined);
      // The wait itself cannot be broken off: give the lock back when it comes.
      waiting.then(
        (late) => late.release(),
        () => undefined,
      );
    };
    signal.addEventListener('abort', giveUp, { once: true });
    waiting.then((held) => {
      signal.removeEventListener('abort', giveUp);
      resolve(held);
    }, reject);
  });
}
