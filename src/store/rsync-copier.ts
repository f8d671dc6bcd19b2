import { mkdir, rename } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import { runCommand } from '../os/exec.ts';
import type { TreeCopier } from './tree-copier.ts';

/**
 * `copy`: every result is a whole copy. `hardlink`: a result's files are hard links to its base's where content and attributes are
 * the same. `hardlink_unsafe`: as that, but files of the same size and time are taken to have the same content.
 */
export type RsyncMode = 'copy' | 'hardlink' | 'hardlink_unsafe';

/** Copies trees with rsync: slow, and works on every file system. */
export function createRsyncCopier(mode: RsyncMode = 'copy'): TreeCopier {
  const copier: TreeCopier = { create, copy, fill, settle, move: rename, remove };
  if (mode === 'copy') return copier;
  return {
    ...copier,
    share: (tree, base, spare, signal) => shareByHardLinks(mode, { tree, base, spare }, signal),
  };
}

const ARCHIVE = ['-aHq', '--numeric-ids'];

async function create(target: string): Promise<void> {
  await mkdir(target, { mode: 0o700 });
}

async function copy(source: string, target: string, signal: AbortSignal): Promise<void> {
  await create(target);
  await fill(source, target, signal);
}

async function fill(source: string, target: string, signal: AbortSignal): Promise<void> {
  await rsync(ARCHIVE, source, target, signal);
}

async function shareByHardLinks(
  mode: RsyncMode,
  paths: { tree: string; base: string; spare: string },
  signal: AbortSignal,
): Promise<void> {
  const { tree, base, spare } = paths;
  await create(spare);
  const compare = mode === 'hardlink' ? ['--checksum'] : [];
  await rsync([...ARCHIVE, ...compare, `--link-dest=${base}`], tree, spare, signal);
  await remove(tree);
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

async function settle(directory: string): Promise<void> {
  await runCommand(process.platform === 'linux' ? ['sync', '-f', directory] : ['sync']);
}

const REMOVE_ATTEMPTS_MAX = 10;

/**
 * rm walks by directory descriptors and never follows a link, unlike node:fs, whose path-based walk a living process could redirect.
 * A process that is just dying may still add files: rm then says "not empty" and is run again.
 */
async function remove(directory: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await runCommand([
        'rm',
        process.platform === 'linux' ? '--one-file-system' : '-x',
        '-rf',
        '--',
        directory,
      ]);
      return;
    } catch (error) {
      if (attempt === REMOVE_ATTEMPTS_MAX || errnoCode(error) !== 'COMMAND_FAILED') throw error;
    }
  }
}
