import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../../src/errors.ts';
import { mountsWith } from './test-users.ts';

const SCRATCH = '/var/tmp';

/** Why disks cannot be made here, or undefined. */
export const whyNoLoopDisks =
  process.platform === 'linux' && process.getuid?.() === 0 ? undefined : 'mounting takes root, and Linux';

/** A file system of its own in a file, mounted. */
export interface LoopDisk {
  readonly path: string;
  /** Writes a file until nothing more fits; the answer takes it away. */
  fill(): () => void;
  freeBytes(): number;
  /** The disk as it would be after the power failed now: what only memory knows is not on it. */
  afterPowerLoss(): LoopDisk;
  remove(): void;
}

const MAKE = {
  ext4: ['mkfs.ext4', '-q', '-F', '-m', '0'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const;

export function createLoopDisk(kind: keyof typeof MAKE, mebibytes: number): LoopDisk {
  const directory = mkdtempSync(join(SCRATCH, `obuilder-fs-test.${process.pid}.`));
  const image = join(directory, 'image');
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 2 ** 20);
  const [make, ...options] = MAKE[kind];
  execFileSync(make, [...options, image], { stdio: ['ignore', 'ignore', 'inherit'] });
  return mounted(directory, image);
}

function mounted(directory: string, image: string): LoopDisk {
  const path = join(directory, 'disk');
  mkdirSync(path);
  // XFS refuses a second file system with the same id, and a copy has the same.
  execFileSync('mount', ['-o', isXfs(image) ? 'loop,nouuid' : 'loop', image, path]);
  return {
    path,
    fill: () => fillDisk(path),
    freeBytes: () => {
      const { bavail, bsize } = statfsSync(path);
      return bavail * bsize;
    },
    afterPowerLoss() {
      const copy = mkdtempSync(join(SCRATCH, `obuilder-fs-test.${process.pid}.`));
      execFileSync('cp', ['--sparse=always', image, join(copy, 'image')]);
      return mounted(copy, join(copy, 'image'));
    },
    remove() {
      execFileSync('umount', [path]);
      rmSync(directory, { recursive: true });
    },
  };
}

function isXfs(image: string): boolean {
  return execFileSync('blkid', ['-o', 'value', '-s', 'TYPE', image], { encoding: 'utf8' }).trim() === 'xfs';
}

let fillings = 0;

/** First in large pieces, then in small ones; then empty files, until there is no room for a name either. */
function fillDisk(path: string): () => void {
  const file = join(path, `filling-${fillings++}`);
  const fd = openSync(file, 'w');
  for (let size = 2 ** 20; size >= 512; size /= 2) {
    const piece = Buffer.alloc(size, 'x');
    while (fits(() => writeSync(fd, piece)) && fits(() => fsyncSync(fd)));
  }
  closeSync(fd);
  return () => rmSync(file);
}

function fits(write: () => void): boolean {
  try {
    write();
    return true;
  } catch (error) {
    if (errnoCode(error) === 'ENOSPC') return false;
    throw error;
  }
}

/** What killed tests left mounted. */
export function removeLeftDisks(): void {
  for (const line of mountsWith('/obuilder-fs-test.')) {
    const path = line.split(' ')[4] ?? '';
    const [, pid] = /obuilder-fs-test\.(\d+)\.[^/]*\/disk$/.exec(path) ?? [];
    if (pid === undefined || isAlive(Number(pid))) continue;
    execFileSync('umount', [path]);
    rmSync(join(path, '..'), { recursive: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
