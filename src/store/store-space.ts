import { statfs } from 'node:fs/promises';
import { errnoCode, ObuilderError } from '../errors.ts';

/** How much a disk holds, and how much more we may put there. */
export interface DiskSpace {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Of the file system that `path` lies on. */
export async function diskSpace(path: string): Promise<DiskSpace> {
  const { bavail, blocks, bsize } = await statfs(path);
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}

const FULL_CODES = new Set(['ENOSPC', 'EDQUOT', 'SQLITE_FULL', 'DISK_FULL']);

/** A command that failed for want of space tells so in words only. */
const FULL_WORDS = /No space left on device|Disk quota exceeded/;

/** Whether `error`, or what caused it, is that the disk has no room. */
export function isDiskFull(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    const code = errnoCode(each) ?? '';
    if (FULL_CODES.has(code) || (code === 'COMMAND_FAILED' && FULL_WORDS.test(each.message))) return true;
  }
  return false;
}

/** Below this SQLite fails in ways that do not tell of space: it cannot make the files it keeps beside its own. */
const NEARLY_NOTHING_BYTES = 256 * 1024;

/** As `isDiskFull`, and an index that cannot be used on a disk with nothing free. */
export async function isForWantOfSpace(error: unknown, root: string): Promise<boolean> {
  if (isDiskFull(error)) return true;
  if (errnoCode(error) !== 'STORE_INDEX') return false;
  return (await diskSpace(root)).freeBytes < NEARLY_NOTHING_BYTES;
}

export function diskFull(root: string, what: string, cause?: unknown): ObuilderError {
  return new ObuilderError('DISK_FULL', `${root}: the disk of the store is full: ${what}`, {
    hint: 'make room (obuilder-fs prune --free=10%), then try again',
    cause,
  });
}
