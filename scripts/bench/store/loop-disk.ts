import { statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { runCommand } from '../../../src/os/exec.ts';
import type { Scratch } from '../scratch.ts';

/** Whatever a file system would otherwise write later, while something is measured, it writes now. */
const MAKE = {
  ext4: ['mkfs.ext4', '-q', '-F', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const;
export type DiskKind = keyof typeof MAKE;

/** A new file system in a file, mounted; the scratch directory's sweep takes it away. Answers where it is. */
export async function mountLoopDisk(scratch: Scratch, kind: DiskKind, mebibytes: number): Promise<string> {
  const image = scratch.path(`${kind}.image`);
  writeFileSync(image, '');
  truncateSync(image, mebibytes * 2 ** 20);
  await runCommand([...MAKE[kind], image]);
  const disk = scratch.make(kind);
  await runCommand(['mount', '-o', 'loop', image, disk]);
  return disk;
}

/** Returns when all that was written or deleted there is, so that the next one measured does not pay for it. */
export async function quieten(disk: string, kind: DiskKind): Promise<void> {
  if (kind === 'btrfs') {
    await runCommand(['btrfs', 'filesystem', 'sync', disk]); // wakes who deletes subvolumes, which sync does not
    await runCommand(['btrfs', 'subvolume', 'sync', disk]);
  }
  await runCommand(['sync', '-f', disk]);
}

export function usedBytes(disk: string): number {
  const { blocks, bfree, bsize } = statfsSync(disk);
  return (blocks - bfree) * bsize;
}
