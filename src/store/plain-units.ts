import { mkdir } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { native } from '../fs/native.ts';
import { readMountTable } from '../fs/mount-table.ts';
import { runCommand } from '../os/exec.ts';

/** Units that are directories like any other: what copiers have in common where the storage has no units of its own. */

export async function createDirectory(target: string): Promise<void> {
  await mkdir(target, { mode: 0o700 });
}

/**
 * TreeCopier.fill on threads of our own; `isCopy` as the addon has it. Returns only when they have ended, cancelled or not: what they write
 * must not outlive the call.
 */
export async function cloneTree(
  { source, target, isCopy }: { readonly source: string; readonly target: string; readonly isCopy: boolean },
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const clone = native().cloneTree(source, target, isCopy);
  const cancel = () => clone.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    await clone.finished;
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

/** TreeCopier.settle by flushing the whole file system, which takes less than a call for each file. */
export async function flushFileSystem(directory: string): Promise<void> {
  await runCommand(process.platform === 'linux' ? ['sync', '-f', directory] : ['sync']);
}

const REMOVE_ATTEMPTS_MAX = 10;

/**
 * rm walks by directory descriptors and never follows a link, unlike node:fs, whose path-based walk a living process could redirect.
 * A process that is just dying may still add files: rm then says "not empty" and is run again.
 */
export async function removeDirectory(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await runCommand([...REMOVE, '--', directory]);
      return;
    } catch (error) {
      if (attempt === REMOVE_ATTEMPTS_MAX || errnoCode(error) !== 'COMMAND_FAILED') throw error;
    }
    await removeNestedSubvolumes(directory);
  }
}

const REMOVE = ['rm', process.platform === 'linux' ? '--one-file-system' : '-x', '-rf'];
/** The inode number of a subvolume's top directory, on btrfs. */
export const SUBVOLUME_INODE = 256;

/**
 * A step may make subvolumes on btrfs, without any rights. To rm they look like other file systems, unless it is told to remove just them.
 * The innermost come first. Where something is mounted it is left to a person.
 */
async function removeNestedSubvolumes(directory: string): Promise<void> {
  if (process.platform !== 'linux') return;
  const mounts = await readMountTable();
  if (mounts.some(({ mountPoint }) => mountPoint.startsWith(`${directory}/`))) return;
  const subvolumes = ['-mindepth', '1', '-depth', '-type', 'd', '-inum', String(SUBVOLUME_INODE)];
  await runCommand(['find', directory, ...subvolumes, '-exec', ...REMOVE, '--', '{}', ';'], {
    okCodes: [0, 1],
  });
}
