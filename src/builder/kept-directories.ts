import type { BigIntStats } from 'node:fs';
import { lstat, lutimes } from 'node:fs/promises';
import { errnoCode } from '../errors.ts';
import type { ByteString } from '../spec/byte-string.ts';
import { sourcePath } from './manifest.ts';

/**
 * The directories of a step's tree that a copy finds, and what it must give back to them: new entries renew a directory's time.
 * Links are not followed: what is behind one is not in the tree.
 */
export class KeptDirectories {
  readonly #rootfs: string;
  readonly #looked = new Map<ByteString, Promise<BigIntStats | undefined>>();

  constructor(rootfs: string) {
    this.#rootfs = rootfs;
  }

  /** Whether `path` (relative to the tree, '' for its top) is a directory. It and those above it get their times back later. */
  async has(path: ByteString): Promise<boolean> {
    return (await this.#look(path)) !== undefined;
  }

  /**
   * As they were when they were first asked for; what is no longer the same directory is left alone.
   * Only once no process of the step's is alive: it could put a link in the way.
   */
  async restoreTimes(): Promise<void> {
    for (const [path, looked] of this.#looked) {
      const before = await looked;
      if (before === undefined) continue;
      const now = await this.#stat(path);
      if (now === undefined || !isSame(now, before) || now.mtimeNs === before.mtimeNs) continue;
      await lutimes(sourcePath(this.#rootfs, path), seconds(now.atimeNs), seconds(before.mtimeNs));
    }
  }

  #look(path: ByteString): Promise<BigIntStats | undefined> {
    const known = this.#looked.get(path);
    if (known !== undefined) return known;
    const looked = this.#lookBelow(path);
    this.#looked.set(path, looked);
    return looked;
  }

  async #lookBelow(path: ByteString): Promise<BigIntStats | undefined> {
    if (path === '') return await this.#stat(path);
    const parent = path.slice(0, Math.max(0, path.lastIndexOf('/'))) as ByteString;
    return (await this.#look(parent)) && (await this.#stat(path));
  }

  async #stat(path: ByteString): Promise<BigIntStats | undefined> {
    try {
      const stat = await lstat(sourcePath(this.#rootfs, path), { bigint: true });
      return stat.isDirectory() ? stat : undefined;
    } catch (error) {
      if (errnoCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }
}

function isSame(one: BigIntStats, other: BigIntStats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** As Node takes times; what is finer than a microsecond is lost. */
function seconds(nanoseconds: bigint): number {
  return Number(nanoseconds) / 1e9;
}
