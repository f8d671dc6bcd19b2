import { rename } from 'node:fs/promises';
import { runCommand } from '../os/exec.ts';
import { cloneTree, createDirectory, flushFileSystem, removeDirectory } from './plain-units.ts';
import type { TreeCopier } from './tree-copier.ts';

/**
 * `copy`: every result is a whole copy. `hardlink`: a result's files are hard links to its base's where content and attributes are
 * the same. `hardlink_unsafe`: as that, but files of the same size and time are taken to have the same content.
 */
export type RsyncMode = 'copy' | 'hardlink' | 'hardlink_unsafe';

/** Copies trees file by file: slow, and works on every file system. */
export function createRsyncCopier(mode: RsyncMode = 'copy'): TreeCopier {
  const copier: TreeCopier = {
    create: createDirectory,
    copy,
    fill: fillByRsync,
    settle: flushFileSystem,
    move: rename,
    remove: removeDirectory,
  };
  if (mode === 'copy') return copier;
  return {
    ...copier,
    share: (tree, base, spare, signal) => shareByHardLinks(mode, { tree, base, spare }, signal),
  };
}

/** macOS has an rsync that knows neither access control lists nor holes. */
const ARCHIVE = ['-aHq', '--numeric-ids', ...(process.platform === 'linux' ? ['-AXS'] : [])];

/** On Linux without rsync, which uses one core where there are several, and as much of it for its own work as for the copy. */
async function copy(source: string, target: string, signal: AbortSignal): Promise<void> {
  await createDirectory(target);
  if (process.platform === 'linux') await cloneTree({ source, target, isCopy: true }, signal);
  else await fillByRsync(source, target, signal);
}

/** TreeCopier.fill: from and to any file system. What is in `target` already may be what an earlier try left there. */
export async function fillByRsync(source: string, target: string, signal: AbortSignal): Promise<void> {
  await rsync(ARCHIVE, source, target, signal);
}

async function shareByHardLinks(
  mode: RsyncMode,
  paths: { tree: string; base: string; spare: string },
  signal: AbortSignal,
): Promise<void> {
  const { tree, base, spare } = paths;
  await createDirectory(spare);
  const compare = mode === 'hardlink' ? ['--checksum'] : [];
  await rsync([...ARCHIVE, ...compare, `--link-dest=${base}`], tree, spare, signal);
  await removeDirectory(tree);
  await rename(spare, tree);
}

/**
 * rsync starts inside `target` and names it `./`: if we die it lives on for a while, and must then keep to the directory it was given,
 * wherever that is moved, rather than look up its path again.
 */
async function rsync(
  options: readonly string[],
  source: string,
  target: string,
  signal: AbortSignal,
): Promise<void> {
  await runCommand(['rsync', ...options, '--', `${source}/`, './'], { cwd: target, signal });
}
