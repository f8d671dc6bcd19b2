import { statfsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';

/** No step can do with less. */
const FULL_BYTES = 2 ** 20;
const LOOK_INTERVAL_MS = 500;

/** Looks at a disk until `end`, and knows whether it was full: what fails for that takes away first what it could not finish. */
export class FullDiskWatch {
  readonly #path: string;
  readonly #timer: NodeJS.Timeout;
  #wasFull = false;

  constructor(path: string) {
    this.#path = path;
    this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
  }

  get wasFull(): boolean {
    return this.#wasFull;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#look();
  }

  #look(): void {
    try {
      const { bavail, bsize } = statfsSync(this.#path);
      this.#wasFull ||= bavail * bsize < FULL_BYTES;
    } catch (error) {
      if (errnoCode(error) === undefined) throw error; // a disk that cannot be looked at is not known to be full
    }
  }
}

const LOG_END_BYTES = 64 * 1024;
const WORDS = /no space left on device|disk quota exceeded|\b(?:ENOSPC|EDQUOT)\b/gi;

/**
 * What the end of a step's log says of a full disk, last: free space does not tell of quotas, of file systems that are out of inodes, of one
 * file that was too large, or of other disks. Undefined when it says nothing, or there is no log.
 */
export async function fullDiskWords(log: string): Promise<string | undefined> {
  try {
    return (await endOf(log)).match(WORDS)?.at(-1);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

async function endOf(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const length = Math.min(size, LOG_END_BYTES);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await file.close();
  }
}
