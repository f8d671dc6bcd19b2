import { constants } from 'node:fs';
import { chown, open, stat, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { errnoCode } from '../errors.ts';
import type { FileLock } from '../fs/file-lock.ts';
import { escapeCacheName } from './store-layout.ts';
import { tryLock, waitForLock } from './store-locks.ts';
import { discard, isDirectory, type StoreParts } from './store-parts.ts';
import type { TreeCopier } from './tree-copier.ts';

interface CacheCopy {
  readonly escapedName: string;
  readonly directory: string;
  /** Held as long as the copy is in use; a copy whose lock is free is a leftover. */
  readonly lock: FileLock;
  /**
   * The cache directory that was copied, held open: its inode number stays its own, so the cache is unchanged
   * exactly when its path still leads to that inode. (A release puts another directory there.)
   */
  readonly original: FileHandle;
}

/** A private copy of cache `name`; Store.openCache says what it promises. */
export async function openCacheCopy(
  parts: StoreParts,
  name: string,
  owner: { readonly uid: number; readonly gid: number } | undefined,
  signal: AbortSignal,
): Promise<{ directory: string; release(): Promise<void> }> {
  const escapedName = escapeCacheName(name);
  const { directory, lock } = await claimCopy(parts, escapedName);
  let original: FileHandle | undefined;
  try {
    original = await copyCurrent(parts, escapedName, directory, signal);
    if (owner !== undefined) await chown(directory, owner.uid, owner.gid);
    await parts.checkpoint('cache-copied');
    const copy = { escapedName, directory, lock, original };
    let released: Promise<void> | undefined;
    return { directory, release: () => (released ??= releaseCopy(parts, copy)) };
  } catch (error) {
    await original?.close();
    // What cannot be removed now must not hide what went wrong; the next start removes it.
    await discard(parts.copier, directory, parts.layout.cachesTmp).catch(() => undefined);
    lock.release();
    throw error;
  }
}

/** A place in cache-tmp that nobody else uses, with nothing there. */
async function claimCopy(
  { layout, copier, checkpoint }: StoreParts,
  escapedName: string,
): Promise<{ directory: string; lock: FileLock }> {
  for (let number = 0; ; number++) {
    const directory = layout.cacheCopy(number, escapedName);
    const lock = tryLock(layout.cacheCopyLock(basename(directory)), 'exclusive');
    if (lock === undefined) continue;
    try {
      await discard(copier, directory, layout.cachesTmp);
      await checkpoint('cache-claimed');
      return { directory, lock };
    } catch (error) {
      lock.release();
      throw error;
    }
  }
}

async function copyCurrent(
  parts: StoreParts,
  escapedName: string,
  directory: string,
  signal: AbortSignal,
): Promise<FileHandle> {
  const { layout, copier } = parts;
  await withLock(
    await waitForLock(layout.cacheLock(escapedName), 'exclusive'),
    async () => await ensureCache(parts, escapedName),
  );
  return await withLock(await waitForLock(layout.cacheLock(escapedName), 'shared'), async () => {
    const path = layout.cache(escapedName);
    const original = await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      await copier.copy(path, directory, signal);
      return original;
    } catch (error) {
      await original.close();
      throw error;
    }
  });
}

/** Puts back what a killed release had set aside, takes over what OBuilder left, or makes the cache. The caller holds its lock. */
export async function ensureCache({ layout, copier }: StoreParts, escapedName: string): Promise<void> {
  const path = layout.cache(escapedName);
  if (await isDirectory(path)) return;
  const sources = [layout.previousCache(escapedName), layout.obuilderCache(escapedName)];
  for (const source of sources) if (source !== undefined && (await movedTo(copier, source, path))) return;
  await copier.create(path);
}

async function movedTo(copier: TreeCopier, source: string, path: string): Promise<boolean> {
  try {
    await copier.move(source, path);
    return true;
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
    return false;
  }
}

async function releaseCopy(parts: StoreParts, copy: CacheCopy): Promise<void> {
  const { layout, copier } = parts;
  try {
    await withLock(await waitForLock(layout.cacheLock(copy.escapedName), 'exclusive'), async () => {
      if (await isUnchanged(copy.original, layout.cache(copy.escapedName))) await replaceCache(parts, copy);
      else await discard(copier, copy.directory, layout.cachesTmp);
    });
  } finally {
    await copy.original.close();
    copy.lock.release();
  }
}

async function isUnchanged(original: FileHandle, path: string): Promise<boolean> {
  try {
    const [then, now] = [await original.stat({ bigint: true }), await stat(path, { bigint: true })];
    return then.dev === now.dev && then.ino === now.ino;
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return false;
    throw error;
  }
}

/** Between the two renames only `previous` exists; ensureCache and recovery put it back. */
async function replaceCache(parts: StoreParts, copy: CacheCopy): Promise<void> {
  const { layout, copier, durability, checkpoint } = parts;
  const [path, previous] = [layout.cache(copy.escapedName), layout.previousCache(copy.escapedName)];
  await durability.tree(copy.directory);
  await checkpoint('cache-settled');
  await discard(copier, previous, layout.cachesTmp);
  await copier.move(path, previous);
  await checkpoint('cache-set-aside');
  await copier.move(copy.directory, path);
  await checkpoint('cache-replaced');
  // The new content must be findable before the old one is destroyed.
  await durability.names(layout.caches);
  await discard(copier, previous, layout.cachesTmp);
  await checkpoint('cache-saved');
}

async function withLock<T>(lock: FileLock, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } finally {
    lock.release();
  }
}
