import { randomBytes, randomUUID } from 'node:crypto';
import { lstat, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errnoCode } from '../errors.ts';
import { diskFull, isDiskFull, isForWantOfSpace } from './store-space.ts';

/** What removing results takes at most: the index's journal, and the blocks that renames and unlinks write. */
const RESERVE_BYTES = 8 * 2 ** 20;

/**
 * A file that only takes space. Removing a result needs some: its row leaves the index, and directories are written.
 * On a full disk the reserve is given up for that. No step begins before it is there again, so steps cannot use it up.
 */
export class StoreReserve {
  readonly #root: string;
  readonly #path: string;
  readonly #sync: boolean;

  constructor(root: string, path: string, { sync }: { readonly sync: boolean }) {
    this.#root = root;
    this.#path = path;
    this.#sync = sync;
  }

  /** @throws {ObuilderError} DISK_FULL when there is no room for it. */
  async ensure(): Promise<void> {
    if (await this.#exists()) return;
    const unfinished = `${this.#path}.${randomUUID()}`;
    try {
      await writeReserve(unfinished, this.#sync);
      await rename(unfinished, this.#path);
    } catch (error) {
      await rm(unfinished, { force: true });
      if (isDiskFull(error)) throw diskFull(this.#root, 'there is no room to remove anything later', error);
      throw error;
    }
  }

  /** As `ensure`, and content without it where there is no room. */
  async ensureIfRoom(): Promise<void> {
    await this.ensure().catch((error: unknown) => {
      if (!isDiskFull(error)) throw error;
    });
  }

  /** Runs `action`. Where it fails for want of space the reserve is given up and it runs once more. */
  async spend<T>(action: () => T | Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      if (!(await isForWantOfSpace(error, this.#root)) || !(await this.#giveUp())) throw error;
      return await action();
    }
  }

  async #exists(): Promise<boolean> {
    try {
      return (await lstat(this.#path)).size === RESERVE_BYTES;
    } catch (error) {
      if (errnoCode(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** Whether there was one. */
  async #giveUp(): Promise<boolean> {
    try {
      await rm(this.#path);
      return true;
    } catch (error) {
      if (errnoCode(error) === 'ENOENT') return false;
      throw error;
    }
  }
}

/** Random bytes: a file system that compresses would keep no space for others. */
async function writeReserve(path: string, sync: boolean): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.writeFile(randomBytes(RESERVE_BYTES));
    if (sync) await file.sync();
  } finally {
    await file.close();
  }
}

/** What killed processes did not finish of the reserve at `path`; only for who is alone with the store. */
export async function removeUnfinishedReserves(path: string): Promise<void> {
  const [directory, start] = [dirname(path), `${basename(path)}.`];
  for (const name of await readdir(directory)) {
    if (name.startsWith(start)) await rm(join(directory, name), { force: true });
  }
}
