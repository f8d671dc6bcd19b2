import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../errors.ts';
import type { CommandRunner } from '../os/exec.ts';

/** How many names one command is given: the kernel bounds their length together. */
const batchSize = 500;

/**
 * Removes what belongs to `uid` directly in `directories`, which are those where everybody may write, and what of it is below that.
 * Nothing is started where there is none. Links are removed, never followed; a directory in which somebody else's files lie stays.
 * No process of the uid is alive. Whatever others change meanwhile, only files of that uid are removed, and only from below there.
 */
export async function removeOwned(
  uid: number,
  directories: readonly string[],
  run: CommandRunner,
): Promise<void> {
  const owned = directories.flatMap((directory) => ownedEntries(uid, directory));
  const trees = owned.filter(({ isDirectory }) => isDirectory).map(({ path }) => path);
  for (const batch of inBatches(trees)) await run(findAndDelete(uid, batch), { okCodes: [0, 1] });
  const tops = [...new Set(owned.map(({ directory }) => directory))];
  if (tops.length > 0) await run(findAndDelete(uid, tops, ['-maxdepth', '1']), { okCodes: [0, 1] });
}

/** Goes by descriptors, as Linux's and macOS's find both do here, and takes away the flags that keep a file on macOS. */
function findAndDelete(uid: number, below: readonly string[], depth: readonly string[] = []): string[] {
  return ['find', ...below, '-mindepth', '1', ...depth, '-xdev', '-user', String(uid), '-delete'];
}

interface Entry {
  readonly directory: string;
  readonly path: string;
  readonly isDirectory: boolean;
}

/** None of a directory that is not there, or is no directory. Every step waits for this, and threads would make it slower. */
function ownedEntries(uid: number, directory: string): Entry[] {
  return namesIn(directory).flatMap((name) => {
    const path = join(directory, name);
    const found = lstatSync(path, { throwIfNoEntry: false });
    return found?.uid === uid ? [{ directory, path, isDirectory: found.isDirectory() }] : [];
  });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoCode(error) ?? '')) return [];
    throw error;
  }
}

export interface IpcObject {
  readonly kind: 'queue' | 'memory' | 'semaphores';
  readonly id: string;
}

const ipcrmFlags = { queue: '-q', memory: '-m', semaphores: '-s' } as const;

/** Removes System V objects; those that are gone meanwhile are no failure. */
export async function removeIpc(objects: readonly IpcObject[], run: CommandRunner): Promise<void> {
  for (const batch of inBatches(objects)) {
    const named = batch.flatMap(({ kind, id }) => [ipcrmFlags[kind], id]);
    await run(['ipcrm', ...named], { okCodes: [0, 1] });
  }
}

function inBatches<T>(all: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(all.length / batchSize) }, (_, i) =>
    all.slice(i * batchSize, (i + 1) * batchSize),
  );
}
