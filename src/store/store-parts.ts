import { randomUUID } from 'node:crypto';
import { lstat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { errnoCode } from '../errors.ts';
import type { StoreDurability } from './store-durability.ts';
import type { StoreIndex } from './store-index.ts';
import type { StoreLayout } from './store-layout.ts';
import type { StoreReserve } from './store-reserve.ts';
import type { TreeCopier } from './tree-copier.ts';

/** Moments between two changes on disk, in the order in which a build, a removal and a cache's use reach them. Crash tests stop there. */
export const BUILD_CHECKPOINTS = [
  'result-claimed',
  'result-begun',
  'result-filled',
  'result-settled',
  'result-indexed',
  'result-moved',
  'result-saved',
] as const;
export const REMOVAL_CHECKPOINTS = [
  'result-set-aside',
  'result-hidden',
  'result-forgotten',
  'result-removed',
] as const;
export const CACHE_CHECKPOINTS = [
  'cache-claimed',
  'cache-copied',
  'cache-settled',
  'cache-set-aside',
  'cache-replaced',
  'cache-saved',
] as const;

export type Checkpoint =
  | (typeof BUILD_CHECKPOINTS)[number]
  | (typeof REMOVAL_CHECKPOINTS)[number]
  | (typeof CACHE_CHECKPOINTS)[number];

/** What the parts of one open store share. */
export interface StoreParts {
  readonly layout: StoreLayout;
  readonly copier: TreeCopier;
  readonly index: StoreIndex;
  readonly durability: StoreDurability;
  readonly reserve: StoreReserve;
  readonly checkpoint: (point: Checkpoint) => Promise<void>;
}

const SET_ASIDE = '.removed-';

export function isSetAside(name: string): boolean {
  return name.startsWith(SET_ASIDE);
}

/** A new name for what is to be removed; it is all that says so. */
export function setAsidePath(name: string, tmpDirectory: string): string {
  return join(tmpDirectory, `${SET_ASIDE}${name.slice(0, 100)}-${randomUUID()}`);
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
  const aside = setAsidePath(basename(path), tmpDirectory);
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
