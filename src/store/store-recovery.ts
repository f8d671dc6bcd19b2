import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { ensureCache } from './store-caches.ts';
import { isResultId, type StoreLayout } from './store-layout.ts';
import { tryLock } from './store-locks.ts';
import { discard, isDirectory, isSetAside, type StoreParts } from './store-parts.ts';
import { isForWantOfSpace } from './store-space.ts';

/**
 * Clears away what killed processes left and makes the index agree with the disk.
 * Other processes may be using the store: only what no lock protects is touched.
 */
export async function recover(parts: StoreParts): Promise<void> {
  await sweep(parts);
  await reconcileIndex(parts);
}

/** The first half: what is left in result-tmp and cache-tmp. */
export async function sweep(parts: StoreParts): Promise<void> {
  await sweepResults(parts);
  await sweepCaches(parts);
}

/** Only for who is alone with the store: a lock file that somebody has open must keep its name. */
export async function removeLockFiles(layout: StoreLayout): Promise<void> {
  for (const name of await readdir(layout.locks)) await rm(join(layout.locks, name), { force: true });
}

/**
 * What nobody works on any more in result-tmp. On ZFS what was cloned from a tree must go before it: as long as anything goes, the rest
 * is tried again.
 */
export async function sweepResults(parts: StoreParts): Promise<void> {
  const { layout } = parts;
  let countBefore = Infinity;
  let names = await readdir(layout.resultsTmp);
  while (names.length < countBefore) {
    countBefore = names.length;
    for (const name of names) await leavingWhatStays(parts, () => sweepResult(parts, name));
    names = await readdir(layout.resultsTmp);
  }
}

async function sweepResult({ layout, copier }: StoreParts, name: string): Promise<void> {
  const path = join(layout.resultsTmp, name);
  if (isSetAside(name)) await copier.remove(path);
  else if (isResultId(name)) {
    await ifUnlocked(layout.resultLock(name), () => discard(copier, path, layout.resultsTmp));
  }
}

const CACHE_COPY = /^\d+-/;
const PREVIOUS_CACHE = /^previous-/;

async function sweepCaches(parts: StoreParts): Promise<void> {
  const { layout, copier } = parts;
  for (const name of await readdir(layout.cachesTmp)) {
    const path = join(layout.cachesTmp, name);
    await leavingWhatStays(parts, async () => {
      if (isSetAside(name)) await copier.remove(path);
      else if (CACHE_COPY.test(name)) {
        await ifUnlocked(layout.cacheCopyLock(name), () => discard(copier, path, layout.cachesTmp));
      } else if (PREVIOUS_CACHE.test(name)) {
        const escapedName = name.replace(PREVIOUS_CACHE, '');
        await ifUnlocked(layout.cacheLock(escapedName), async () => {
          await ensureCache(parts, escapedName);
          await discard(copier, path, layout.cachesTmp);
        });
      }
    });
  }
}

/** One thing that cannot be removed must not keep the whole store from opening: `store verify` tells of it. */
async function leavingWhatStays({ layout }: StoreParts, remove: () => Promise<void>): Promise<void> {
  try {
    await remove();
  } catch (error) {
    // For want of space it is tried again with the reserve's.
    if (errnoCode(error) === undefined || (await isForWantOfSpace(error, layout.root))) throw error;
  }
}

async function reconcileIndex(parts: StoreParts): Promise<void> {
  const { layout, index } = parts;
  const onDisk = new Set((await readdir(layout.results)).filter(isResultId));
  const indexed = new Set(index.rows().map((row) => row.id));
  const strayRows = [...indexed].filter((id) => isResultId(id) && !onDisk.has(id));
  const strayDirectories = [...onDisk].filter((id) => !indexed.has(id));
  for (const id of [...strayRows, ...strayDirectories]) {
    await ifUnlocked(layout.resultLock(id), async () => {
      const exists = await isDirectory(layout.result(id));
      if (!exists) index.remove(id);
      else if (!indexed.has(id)) index.add(id, undefined, new Date());
    });
  }
  index.recountAll();
}

/** Whoever holds the lock is alive and sees to it. */
async function ifUnlocked(lockPath: string, action: () => Promise<void>): Promise<void> {
  const lock = tryLock(lockPath, 'exclusive');
  if (lock === undefined) return;
  try {
    await action();
  } finally {
    lock.release();
  }
}
