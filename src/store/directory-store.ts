import { chmod, chown, lstat, mkdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { lockFile, tryLockFile, type FileLock } from '../fs/file-lock.ts';
import type { StepOutcome } from '../sandbox/sandbox.ts';
import { openCacheCopy } from './store-caches.ts';
import { StoreIndex } from './store-index.ts';
import { StoreLayout } from './store-layout.ts';
import {
  discard,
  isDirectory,
  lockUnlessAborted,
  setAside,
  type Checkpoint,
  type StoreParts,
} from './store-parts.ts';
import { recover, removeLockFiles } from './store-recovery.ts';
import { measureUsage } from './store-usage.ts';
import type { ResultRecord, Store, StoreUsage } from './store.ts';
import type { TreeCopier } from './tree-copier.ts';

export interface DirectoryStoreOptions {
  /** Made where missing. It and the store's directories become ours alone (0700). */
  readonly root: string;
  readonly copier: TreeCopier;
  /** Awaited at every checkpoint: for crash tests. */
  readonly checkpoint?: (point: Checkpoint) => Promise<void>;
}

/**
 * Opens the store in `root`: the one algorithm of every store of ours, over a copier that knows its storage.
 *
 * Its order makes each change survive a kill at any point:
 * a result is written in result-tmp, made durable, entered in the index and then renamed into place;
 * it is removed by being renamed away, dropped from the index and only then deleted.
 * The lock of an id is held exclusively by who makes or removes that result, shared by who makes another from it,
 * and is taken in the order child, base.
 * @throws {ObuilderError} STORE_LAYOUT, STORE_INDEX
 */
export async function createDirectoryStore(options: DirectoryStoreOptions): Promise<Store> {
  const layout = await prepareDirectories(options.root);
  const storeLock = await joinStore(layout);
  let index: StoreIndex | undefined;
  try {
    index = new StoreIndex(layout.index);
    const checkpoint = options.checkpoint ?? (() => Promise.resolve());
    const parts = { layout, index, copier: options.copier, checkpoint };
    await recover(parts);
    return new DirectoryStore(parts, storeLock);
  } catch (error) {
    index?.close();
    storeLock.release();
    throw error;
  }
}

async function prepareDirectories(root: string): Promise<StoreLayout> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  const layout = new StoreLayout(await realpath(root));
  for (const directory of layout.directories()) await takeDirectory(directory);
  return layout;
}

/** What a step may reach decides where it may write: the way into the store is for us alone. */
async function takeDirectory(path: string): Promise<void> {
  await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
    if (errnoCode(error) !== 'EEXIST') throw error;
  });
  const found = await lstat(path);
  if (!found.isDirectory()) {
    throw new ObuilderError('STORE_LAYOUT', `${path}: not a directory`, {
      hint: 'a store needs this directory: move away what is there, or name another store',
    });
  }
  const [uid, gid] = [process.geteuid?.() ?? found.uid, process.getegid?.() ?? found.gid];
  if (found.uid !== uid) await chown(path, uid, gid);
  if ((found.mode & 0o7777) !== 0o700) await chmod(path, 0o700);
}

/** Answers the lock that says this process has the store open. Whoever comes first clears away old lock files. */
async function joinStore(layout: StoreLayout): Promise<FileLock> {
  const opening = await lockFile(layout.openLock, 'exclusive');
  try {
    const alone = tryLockFile(layout.storeLock, 'exclusive');
    if (alone !== undefined) {
      await removeLockFiles(layout);
      alone.release();
    }
    return await lockFile(layout.storeLock, 'shared');
  } finally {
    opening.release();
  }
}

class DirectoryStore implements Store {
  readonly #parts: StoreParts;
  readonly #storeLock: FileLock;

  constructor(parts: StoreParts, storeLock: FileLock) {
    this.#parts = parts;
    this.#storeLock = storeLock;
  }

  async use(id: string): Promise<string | undefined> {
    const directory = await this.find(id);
    if (directory !== undefined) this.#parts.index.touch(id, new Date());
    return directory;
  }

  async find(id: string): Promise<string | undefined> {
    const directory = this.#parts.layout.result(id);
    return (await isDirectory(directory)) ? directory : undefined;
  }

  async build(
    request: { readonly id: string; readonly base: string | undefined; readonly onWait?: () => void },
    fill: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome | { readonly status: 'loaded' }> {
    const lock = await this.#lock(request.id, 'exclusive', signal, request.onWait);
    if (lock === undefined) return { status: 'cancelled' };
    try {
      if ((await this.use(request.id)) !== undefined) return { status: 'loaded' };
      return await this.#withBase(request.base, signal, () => this.#make(request, fill, signal));
    } finally {
      lock.release();
    }
  }

  async openCache(
    name: string,
    owner?: { readonly uid: number; readonly gid: number },
    signal: AbortSignal = new AbortController().signal,
  ): Promise<{ readonly directory: string; release(): Promise<void> }> {
    return await openCacheCopy(this.#parts, name, owner, signal);
  }

  records(): ResultRecord[] {
    return this.#parts.index.records();
  }

  async usage(): Promise<StoreUsage> {
    return await measureUsage(this.#parts.layout);
  }

  async delete(id: string, removed?: (id: string) => void): Promise<void> {
    const { layout, index } = this.#parts;
    for (;;) {
      for (const child of index.children(id)) await this.delete(child, removed);
      const lock = tryLockFile(layout.resultLock(id), 'exclusive');
      if (lock === undefined) throw resultBusy(id);
      // A build from it may have ended since the children were listed; while we hold the lock none can.
      if (index.children(id).length === 0) {
        await this.#remove(id, lock, removed);
        return;
      }
      lock.release();
    }
  }

  async prune(before: Date, limit: number, removed?: (id: string) => void): Promise<number> {
    const { layout, index } = this.#parts;
    const busy = new Set<string>();
    let count = 0;
    while (count < limit) {
      const id = index.unused(before, busy.size + 1).find((candidate) => !busy.has(candidate));
      if (id === undefined) break;
      const lock = tryLockFile(layout.resultLock(id), 'exclusive');
      if (lock !== undefined && index.isUnused(id, before)) {
        await this.#remove(id, lock, removed);
        count++;
      } else {
        lock?.release();
        busy.add(id);
      }
    }
    return count;
  }

  close(): void {
    this.#parts.index.close();
    this.#storeLock.release();
  }

  async #lock(
    id: string,
    mode: 'shared' | 'exclusive',
    signal: AbortSignal,
    onWait?: () => void,
  ): Promise<FileLock | undefined> {
    return await lockUnlessAborted(this.#parts.layout.resultLock(id), mode, signal, onWait);
  }

  /** Runs `action` while nobody can remove `base`. */
  async #withBase(
    base: string | undefined,
    signal: AbortSignal,
    action: () => Promise<StepOutcome>,
  ): Promise<StepOutcome> {
    if (base === undefined) return await action();
    const lock = await this.#lock(base, 'shared', signal);
    if (lock === undefined) return { status: 'cancelled' };
    try {
      if (!(await isDirectory(this.#parts.layout.result(base)))) throw baseGone(base);
      return await action();
    } finally {
      lock.release();
    }
  }

  async #make(
    { id, base }: { readonly id: string; readonly base: string | undefined },
    fill: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome> {
    const { layout, copier, checkpoint } = this.#parts;
    const tmp = layout.resultTmp(id);
    await discard(copier, tmp, layout.resultsTmp);
    try {
      await this.#prepare(tmp, base, signal);
      await checkpoint('result-begun');
      const outcome = await fill(tmp);
      await checkpoint('result-filled');
      if (outcome.status === 'ok') await this.#save(id, base, signal);
      return outcome;
    } catch (error) {
      if (signal.aborted) return { status: 'cancelled' };
      throw error;
    } finally {
      // What cannot be removed now must not hide how the step ended; the next try and the next start remove it.
      await discard(copier, tmp, layout.resultsTmp).catch(() => undefined);
    }
  }

  async #prepare(tmp: string, base: string | undefined, signal: AbortSignal): Promise<void> {
    const { layout, copier } = this.#parts;
    if (base === undefined) {
      await copier.create(tmp);
      await mkdir(join(tmp, 'rootfs'), { mode: 0o755 });
    } else {
      await copier.copy(layout.result(base), tmp, signal);
      await rm(join(tmp, 'log'), { force: true });
    }
  }

  async #save(id: string, base: string | undefined, signal: AbortSignal): Promise<void> {
    const { layout, copier, index, checkpoint } = this.#parts;
    const tmp = layout.resultTmp(id);
    if (base !== undefined) {
      const baseRootfs = join(layout.result(base), 'rootfs');
      await copier.share?.(join(tmp, 'rootfs'), baseRootfs, join(tmp, 'rootfs.shared'), signal);
    }
    await copier.settle(tmp);
    // The row comes first: if we die in between, the next start drops it. A result without a row would have lost its parent.
    index.add(id, base, new Date());
    await checkpoint('result-indexed');
    await copier.move(tmp, layout.result(id)).catch((error: unknown) => {
      index.remove(id);
      throw error;
    });
    await checkpoint('result-saved');
  }

  /** `lock` is the id's, exclusive; it is released once nobody can find the result any more. */
  async #remove(id: string, lock: FileLock, removed: ((id: string) => void) | undefined): Promise<void> {
    const { layout, copier, index, checkpoint } = this.#parts;
    let aside: string | undefined;
    try {
      aside = await setAside(copier, layout.result(id), layout.resultsTmp);
      await checkpoint('result-set-aside');
      index.remove(id);
      await checkpoint('result-forgotten');
    } finally {
      lock.release();
    }
    if (aside === undefined) return;
    await copier.remove(aside);
    removed?.(id);
  }
}

function resultBusy(id: string): ObuilderError {
  return new ObuilderError('RESULT_BUSY', `${id}: a build is using this result`, {
    hint: 'try again when the build has ended',
  });
}

function baseGone(base: string): ObuilderError {
  return new ObuilderError('BASE_GONE', `${base}: the result to start from was deleted meanwhile`, {
    hint: 'run the build again: it makes the result anew',
  });
}
