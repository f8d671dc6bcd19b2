import { constants, copyFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { cloneTree, createDirectory, flushFileSystem, removeDirectory } from './plain-units.ts';
import { fillByRsync } from './rsync-copier.ts';
import type { TreeCopier } from './tree-copier.ts';

/**
 * Copies trees so that their files share storage with the originals until one of them is written to: reflink on XFS and btrfs, clonefile
 * on APFS. What comes from another file system is copied with rsync.
 */
export function createCloneCopier(): TreeCopier {
  return {
    create: createDirectory,
    async copy(source, target, signal) {
      await createDirectory(target);
      await fillByClone(source, target, signal);
    },
    fill: fillByClone,
    settle: flushFileSystem,
    move: rename,
    remove: removeDirectory,
  };
}

/** TreeCopier.fill: by sharing where possible. */
export async function fillByClone(source: string, target: string, signal: AbortSignal): Promise<void> {
  try {
    await cloneTree({ source, target, isCopy: false }, signal);
  } catch (error) {
    if (errnoCode(error) !== 'EXDEV') throw error;
    await fillByRsync(source, target, signal);
  }
}

/** Whether files in the existing directory can share storage, found out by trying. */
export async function canClone(directory: string): Promise<boolean> {
  const probe = await mkdtemp(join(directory, '.clone-probe-'));
  try {
    const original = join(probe, 'original');
    await writeFile(original, 'shared');
    await copyFile(original, join(probe, 'clone'), constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch (error) {
    if (CANNOT_CLONE.has(errnoCode(error))) return false;
    throw error;
  } finally {
    await rm(probe, { recursive: true, force: true });
  }
}

/** What file systems say that have no clones; XFS without reflink says EOPNOTSUPP, some of FUSE's ENOTTY. */
const CANNOT_CLONE = new Set<string | undefined>([
  'EOPNOTSUPP',
  'ENOTSUP',
  'ENOTTY',
  'EINVAL',
  'ENOSYS',
  'EXDEV',
]);
