import { chmod, lstat, rename, statfs } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import { fillByClone } from './clone-copier.ts';
import { flushFileSystem, removeDirectory, SUBVOLUME_INODE } from './plain-units.ts';
import type { TreeCopier } from './tree-copier.ts';

/**
 * Every unit is a subvolume, as in OBuilder's btrfs store, and a copy is a snapshot of it: what it costs does not depend on its size.
 * Takes root.
 */
export function createBtrfsCopier(): TreeCopier {
  return { create, copy, fill: fillByClone, settle: flushFileSystem, move, remove };
}

async function create(target: string): Promise<void> {
  await subvolume('create', target);
  await chmod(target, 0o700);
}

/** A snapshot leaves out subvolumes that lie in it, and a step may have made some: then the files are cloned, into one. */
async function copy(source: string, target: string, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if ((await isSubvolume(source)) && !(await holdsSubvolumes(source))) {
    await subvolume('snapshot', source, target);
  } else {
    await create(target);
    await fillByClone(source, target, signal);
  }
}

async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (errnoCode(error) !== 'EROFS') throw error;
    await runCommand(['btrfs', 'property', 'set', '-f', '-t', 'subvol', from, 'ro', 'false']); // as OBuilder leaves results
    await rename(from, to);
  }
}

async function remove(directory: string): Promise<void> {
  if ((await isSubvolume(directory)) && !(await holdsSubvolumes(directory))) {
    await subvolume('delete', directory);
  } else {
    await removeDirectory(directory);
  }
}

async function subvolume(action: 'create' | 'snapshot' | 'delete', ...paths: string[]): Promise<void> {
  await runCommand(['btrfs', '--quiet', 'subvolume', action, '--', ...paths]);
}

async function holdsSubvolumes(directory: string): Promise<boolean> {
  return (await runCommand(['btrfs', 'subvolume', 'list', '-o', directory])).stdout !== '';
}

async function isSubvolume(path: string): Promise<boolean> {
  try {
    return (await lstat(path)).ino === SUBVOLUME_INODE && (await isBtrfs(path));
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return false;
    throw error;
  }
}

const BTRFS_MAGIC = 0x9123683e;

export async function isBtrfs(path: string): Promise<boolean> {
  return process.platform === 'linux' && (await statfs(path)).type === BTRFS_MAGIC;
}
