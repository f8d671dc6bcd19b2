import { chmod, lstat, mkdir, readdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { runCommand } from '../os/exec.ts';

/**
 * Makes sure that `path`, where a step will see its own files, is an empty directory of root's: made 0755 where missing.
 * What anybody put there, a person's home above all, is left alone.
 * @throws {ObuilderError} HOME_IN_USE when something else is there; it says what.
 */
export async function ensurePlace(path: string): Promise<void> {
  const found = await whatIsAt(path);
  if (found === 'an empty directory of root') return;
  if (found !== undefined) {
    throw new ObuilderError('HOME_IN_USE', `${path}: must be an empty directory of root, it is ${found}`, {
      hint: 'choose another --home-path, or move away what is there',
    });
  }
  await mkdir(dirname(path), { recursive: true });
  try {
    await mkdir(path);
  } catch (error) {
    if (errnoCode(error) === 'EEXIST') return ensurePlace(path); // made by another process meanwhile
    throw error;
  }
  await chmod(path, 0o755); // whatever the umask
}

async function whatIsAt(path: string): Promise<string | undefined> {
  try {
    const stat = await lstat(path);
    if (stat.isSymbolicLink()) return 'a symbolic link';
    if (!stat.isDirectory()) return 'not a directory';
    if (stat.uid !== 0) return `owned by uid ${stat.uid}`;
    return (await readdir(path)).length > 0 ? 'not empty' : 'an empty directory of root';
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * The way without namespaces: the tree is copied into the home for the step and back afterwards.
 * The home is the build user's alone and holds nothing between two steps.
 */
export function copyInCommand(rootfs: string, homePath: string): string[] {
  return ['rsync', '-aHq', '--delete', '--', `${rootfs}/`, `${homePath}/`];
}

export function copyBackCommand(homePath: string, rootfs: string): string[] {
  return ['rsync', '-aHq', '--delete', '--', `${homePath}/`, `${rootfs}/`];
}

/** Places `rootfs` by copying, and answers how to take it back. */
export async function placeByCopy(rootfs: string, homePath: string): Promise<{ takeBack(): Promise<void> }> {
  await mkdir(homePath, { recursive: true });
  await runCommand(copyInCommand(rootfs, homePath));
  return {
    async takeBack() {
      await runCommand(copyBackCommand(homePath, rootfs));
    },
  };
}
