import { randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';

/** What a home directory with Homebrew and opam in it amounts to. */
export interface TreeSize {
  readonly files: number;
  readonly mebibytes: number;
}

export const TREE_SIZES = {
  full: { files: 50_000, mebibytes: 1024 },
  small: { files: 2_000, mebibytes: 40 },
  /** To see that the benchmark works, and what its steps leave on the disk; its times tell nothing. */
  tiny: { files: 400, mebibytes: 8 },
} as const satisfies Record<string, TreeSize>;
export type TreeSizeName = keyof typeof TREE_SIZES;

const FILES_PER_DIRECTORY = 50;
/** Most files are small and a few are large; the mean is 10. */
const SHARES = [1, 2, 4, 8, 35] as const;
/** More than the largest file, and no two files begin at the same place of it. */
const content = randomFillSync(Buffer.alloc(2 * 2 ** 20));

/** Fills an empty directory. It may be interrupted between two directories of the tree. */
export async function writeTree(root: string, size: TreeSize, signal: AbortSignal): Promise<void> {
  for (let file = 0; file < size.files; file++) {
    if (file % FILES_PER_DIRECTORY === 0) {
      await setImmediate(undefined, { signal });
      mkdirSync(join(root, directoryOf(file)));
    }
    const fd = openSync(join(root, pathOf(file)), 'wx');
    writeSync(fd, contentOf(file, size));
    closeSync(fd);
  }
}

/** What a step does here: one file, another one each turn, is written anew. */
export async function changeOneFile(root: string, size: TreeSize, turn: number): Promise<void> {
  const file = (turn * 7919) % size.files;
  await writeFile(join(root, pathOf(file)), contentOf(file + turn + 1, size));
}

function directoryOf(file: number): string {
  return `directory${Math.floor(file / FILES_PER_DIRECTORY)}`;
}

function pathOf(file: number): string {
  return join(directoryOf(file), `file${file}`);
}

function contentOf(file: number, { files, mebibytes }: TreeSize): Buffer {
  const mean = (mebibytes * 2 ** 20) / files;
  const length = Math.round((mean * (SHARES[file % SHARES.length] ?? 10)) / 10);
  const offset = (file * 16) % (content.length - length);
  return content.subarray(offset, offset + length);
}
