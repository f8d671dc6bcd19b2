import { chmod, chown, lstat, mkdir, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import { lockFile, tryLockFile, type FileLock } from '../fs/file-lock.ts';
import type { StepOutcome } from '../sandbox/sandbox.ts';
import {
  deleteFailedTree,
  failedTrees,
  keepFailedTree,
  pruneFailedTrees,
  removeFailedTree,
} from './failed-trees.ts';
import { FullDiskWatch, fullDiskWords } from './full-disk-reason.ts';
import { openCacheCopy } from './store-caches.ts';
import { withCopyProgress, type CopyProgress } from './copy-progress.ts';
import { durabilityOf } from './store-durability.ts';
import { StoreIndex } from './store-index.ts';
import { StoreLayout } from './store-layout.ts';
import { describeHolder, lockUnlessAborted, waitForLock, type LockHolder } from './store-locks.ts';
import { discard, isDirectory, type Checkpoint, type StoreParts } from './store-parts.ts';
import { enterStep, pauseSteps } from './store-pause.ts';
import { recover, removeLockFiles } from './store-recovery.ts';
import { ResultRemover, type Removed } from './store-removal.ts';
import { holdTree, lookAtCopy } from './private-copy.ts';
import { removeUnfinishedReserves, StoreReserve } from './store-reserve.ts';
import { RoomKeeper, type AutoPrune } from './store-room.ts';
import { diskFull, diskSpace, isDiskFull, isForWantOfSpace, type DiskSpace } from './store-space.ts';
import { noteUnsynced, settleUnsynced } from './store-unsynced.ts';
import { measureUsage } from './store-usage.ts';
import type { BuildRequest, CopyRequest, PausedStore, ResultRecord, Store, StoreUsage } from './store.ts';
import { describeHolds, holdsOf, type TreeHold } from './tree-holders.ts';
import type { TreeCopier } from './tree-copier.ts';

export interface DirectoryStoreOptions {
  /** Made where missing. It and the store's directories become ours alone (0700). */
  readonly root: string;
  readonly copier: TreeCopier;
  /**
   * Whether what is saved must survive a power failure (default: yes). Without it a machine that went down may leave damaged results;
   * they are removed when the store is next opened.
   */
  readonly sync?: boolean;
  /** Keeps room on the disk by removing results that nobody needs: before each step, and while it runs. */
  readonly autoPrune?: AutoPrune;
  /** Hears how far a long copy of a base is, and undefined when it is over. */
  readonly copying?: (progress: CopyProgress | undefined) => void;
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
  const layout = await prepareDirectories(options.root).catch((error: unknown) => {
    throw isDiskFull(error) ? diskFull(options.root, 'there is no room for a store', error) : error;
  });
  const joined = await joinStore(layout);
  let index: StoreIndex | undefined;
  try {
    const { copier, sync = true, checkpoint = () => Promise.resolve() } = options;
    const reserve = new StoreReserve(layout.root, layout.reserve, { sync });
    index = await reserve.spend(() => new StoreIndex(layout.index, { sync }));
    const parts = { layout, index, copier, reserve, durability: durabilityOf(copier, sync), checkpoint };
    await reserve.spend(() => recover(parts));
    await reserve.spend(() => settleUnsynced(parts, joined.isAlone));
    await reserve.ensureIfRoom();
    if (!sync) await noteUnsynced(parts);
    return new DirectoryStore(parts, joined.storeLock, options);
  } catch (error) {
    index?.close();
    joined.storeLock.release();
    throw error;
  } finally {
    joined.opening.release();
  }
}

async function prepareDirectories(root: string): Promise<StoreLayout> {
  await makeRoot(root);
  const layout = new StoreLayout(await realpath(root));
  for (const directory of layout.directories()) await takeDirectory(directory);
  return layout;
}

/** First by itself: with `recursive` Node says ENOENT when the disk is full. */
async function makeRoot(root: string): Promise<void> {
  await mkdir(root, { mode: 0o700 }).catch(async (error: unknown) => {
    if (errnoCode(error) === 'EEXIST') return;
    if (errnoCode(error) !== 'ENOENT') throw error;
    await mkdir(root, { recursive: true, mode: 0o700 });
  });
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

/** How a process has come to have a store open. */
interface Joined {
  /** Says that it has, until released. */
  readonly storeLock: FileLock;
  /** Whether nobody else has; that stays so until `opening` is released. */
  readonly isAlone: boolean;
  readonly opening: FileLock;
}

/** Whoever comes first clears away what the last ones left for that. */
async function joinStore(layout: StoreLayout): Promise<Joined> {
  const opening = await lockFile(layout.openLock, 'exclusive');
  try {
    const alone = tryLockFile(layout.storeLock, 'exclusive');
    if (alone !== undefined) {
      await removeLockFiles(layout);
      await removeUnfinishedReserves(layout.reserve);
      alone.release();
    }
    const storeLock = await lockFile(layout.storeLock, 'shared');
    return { storeLock, isAlone: alone !== undefined, opening };
  } catch (error) {
    opening.release();
    throw error;
  }
}

class DirectoryStore implements Store {
  readonly #parts: StoreParts;
  readonly #storeLock: FileLock;
  readonly #copying: (progress: CopyProgress | undefined) => void;
  readonly #remover: ResultRemover;
  readonly #roomKeeper: RoomKeeper | undefined;

  constructor(
    parts: StoreParts,
    storeLock: FileLock,
    { autoPrune, copying = () => undefined }: DirectoryStoreOptions,
  ) {
    this.#copying = copying;
    this.#parts = parts;
    this.#storeLock = storeLock;
    this.#remover = new ResultRemover(parts);
    this.#roomKeeper = autoPrune && new RoomKeeper(this, autoPrune);
  }

  async use(id: string): Promise<string | undefined> {
    const directory = await this.find(id);
    if (directory !== undefined) await this.#touch(id);
    return directory;
  }

  async find(id: string): Promise<string | undefined> {
    const directory = this.#parts.layout.result(id);
    return (await isDirectory(directory)) ? directory : undefined;
  }

  async build(
    request: BuildRequest,
    fill: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome | { readonly status: 'loaded' }> {
    const { id, base, onWait = () => undefined } = request;
    const path = this.#parts.layout.resultLock(id);
    const lock = await lockUnlessAborted(path, 'exclusive', signal, (holder) => onWait(makerOf(holder)));
    if (lock === undefined) return { status: 'cancelled' };
    try {
      if ((await this.use(id)) !== undefined) return { status: 'loaded' };
      const step = await enterStep(this.#parts, signal, onWait);
      if (step === undefined) return { status: 'cancelled' };
      try {
        return await this.#withBase(base, signal, () =>
          this.#withRoom(() => this.#make(request, fill, signal)),
        );
      } finally {
        step.release();
      }
    } finally {
      lock.release();
    }
  }

  async withCopy(
    { id, onWait = () => undefined }: CopyRequest,
    look: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome> {
    const tree = await holdTree(this.#parts, id);
    try {
      const step = await enterStep(this.#parts, signal, onWait);
      if (step === undefined) return { status: 'cancelled' };
      try {
        const copying = { source: tree.directory, copying: this.#copying };
        return await this.#withRoom(() => lookAtCopy(this.#parts, copying, look, signal));
      } finally {
        step.release();
      }
    } finally {
      tree.lock.release();
    }
  }

  async keepFailed(id: string): Promise<string | undefined> {
    return await keepFailedTree(this.#parts, id);
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

  async space(): Promise<DiskSpace> {
    return await diskSpace(this.#parts.layout.root);
  }

  async hold(id: string): Promise<{ release(): void } | undefined> {
    const lock = await waitForLock(this.#parts.layout.resultLock(id), 'shared');
    if ((await this.find(id)) !== undefined) return lock;
    lock.release();
    return undefined;
  }

  async delete(id: string, removed?: Removed): Promise<void> {
    if (await deleteFailedTree(this.#parts, id)) removed?.(id);
    await this.#remover.delete(id, removed);
  }

  async prune(before: Date, limit: number, removed?: Removed): Promise<number> {
    return await this.#pruneWhile(before, (count) => Promise.resolve(count < limit), removed);
  }

  async makeRoom(freeBytes: number, before: Date, removed?: Removed): Promise<number> {
    const isShort = async () => (await this.space()).freeBytes < freeBytes;
    return await this.#pruneWhile(before, isShort, removed);
  }

  prunable(before: Date): string[] {
    const failed = failedTrees(this.#parts.layout).filter(({ keptAt }) => keptAt < before);
    return [...failed.map(({ id }) => id), ...this.#remover.prunable(before)];
  }

  async pause(onWait: (holders: string) => void, signal: AbortSignal): Promise<PausedStore | undefined> {
    return await pauseSteps(this.#parts, onWait, signal);
  }

  close(): void {
    this.#parts.index.close();
    this.#storeLock.release();
  }

  /** What was kept of failed steps goes first: a build never needs it. */
  async #pruneWhile(
    before: Date,
    wantsMore: (count: number) => Promise<boolean>,
    removed?: Removed,
  ): Promise<number> {
    const failed = await pruneFailedTrees(this.#parts, before, wantsMore, removed);
    const more = (count: number) => wantsMore(failed + count);
    return failed + (await this.#remover.prune(before, more, removed));
  }

  /** A use that a full disk keeps from being noted is no reason to fail: the result is there. */
  async #touch(id: string): Promise<void> {
    const { index, layout } = this.#parts;
    try {
      index.touch(id, new Date());
    } catch (error) {
      if (!(await isForWantOfSpace(error, layout.root))) throw error;
    }
  }

  /** Runs `action` while nobody can remove `base`. */
  async #withBase(
    base: string | undefined,
    signal: AbortSignal,
    action: () => Promise<StepOutcome>,
  ): Promise<StepOutcome> {
    if (base === undefined) return await action();
    const lock = await lockUnlessAborted(this.#parts.layout.resultLock(base), 'shared', signal);
    if (lock === undefined) return { status: 'cancelled' };
    try {
      if (!(await isDirectory(this.#parts.layout.result(base)))) throw baseGone(base);
      return await action();
    } finally {
      lock.release();
    }
  }

  /** A full disk is told as such, whatever failed for it. */
  async #withRoom<T>(make: () => Promise<T>): Promise<T> {
    const { layout, reserve } = this.#parts;
    try {
      await this.#roomKeeper?.makeRoom();
      await reserve.ensure();
      return await (this.#roomKeeper?.during(make) ?? make());
    } catch (error) {
      if (errnoCode(error) === 'DISK_FULL' || !(await isForWantOfSpace(error, layout.root))) throw error;
      throw diskFull(layout.root, (error as Error).message, error);
    }
  }

  async #make(
    { id, base }: BuildRequest,
    fill: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome> {
    const { layout, copier, checkpoint } = this.#parts;
    const tmp = layout.resultTmp(id);
    await discard(copier, tmp, layout.resultsTmp);
    await checkpoint('result-claimed');
    try {
      await this.#prepare(tmp, base, signal);
      await checkpoint('result-begun');
      const outcome = await this.#withReason(id, () => fill(tmp));
      await checkpoint('result-filled');
      if (outcome.status === 'ok') {
        // From here on it must be what it is now. (Its log is ours.)
        const holds = await holdsOf(join(tmp, 'rootfs'));
        if (holds.length > 0) return stillHeld(holds);
        await this.#save(id, base, signal);
        await removeFailedTree(this.#parts, id).catch(() => undefined); // of an earlier try; it may stay
      }
      return outcome;
    } catch (error) {
      if (signal.aborted) return { status: 'cancelled' };
      throw error;
    } finally {
      // What cannot be removed now must not hide how the step ended; the next try and the next start remove it.
      await discard(copier, tmp, layout.resultsTmp).catch(() => undefined);
    }
  }

  /** A command on a full disk fails in words of its own, which may be far up in its log. */
  async #withReason(id: string, fill: () => Promise<StepOutcome>): Promise<StepOutcome> {
    const { layout } = this.#parts;
    const watch = new FullDiskWatch(layout.root);
    const outcome = await fill().finally(() => watch.end());
    if (outcome.status !== 'failed') return outcome;
    if (watch.wasFull) return withReason(outcome, 'the disk of the store is full');
    for (const directory of [layout.resultTmp(id), layout.failedTree(id)]) {
      const words = await fullDiskWords(join(directory, 'log'));
      if (words !== undefined) return withReason(outcome, `its log says: ${words}`);
    }
    return outcome;
  }

  async #prepare(tmp: string, base: string | undefined, signal: AbortSignal): Promise<void> {
    const { layout, copier } = this.#parts;
    if (base === undefined) {
      await copier.create(tmp);
      await mkdir(join(tmp, 'rootfs'), { mode: 0o755 });
    } else {
      const source = layout.result(base);
      await withCopyProgress({ source, target: tmp }, this.#copying, () => copier.copy(source, tmp, signal));
      await rm(join(tmp, 'log'), { force: true });
    }
  }

  async #save(id: string, base: string | undefined, signal: AbortSignal): Promise<void> {
    const { layout, copier, durability, index, checkpoint } = this.#parts;
    const tmp = layout.resultTmp(id);
    if (base !== undefined) {
      const baseRootfs = join(layout.result(base), 'rootfs');
      await copier.share?.(join(tmp, 'rootfs'), baseRootfs, join(tmp, 'rootfs.shared'), signal);
    }
    await durability.tree(tmp);
    await checkpoint('result-settled');
    // The row comes first: if we die in between, the next start drops it. A result without a row would have lost its parent.
    index.add(id, base, new Date());
    await checkpoint('result-indexed');
    await copier.move(tmp, layout.result(id)).catch((error: unknown) => {
      index.remove(id);
      throw error;
    });
    await checkpoint('result-moved');
    await durability.names(layout.results);
    await checkpoint('result-saved');
  }
}

function stillHeld(holds: readonly TreeHold[]): StepOutcome {
  const what = describeHolds(holds);
  return {
    status: 'failed',
    message: `the step has ended, but its files could still be changed: it left open ${what}`,
  };
}

function withReason(failed: StepOutcome & { status: 'failed' }, reason: string): StepOutcome {
  return { ...failed, message: `${failed.message} (${reason})` };
}

function makerOf(holder: LockHolder | undefined): string {
  return `another process that is making this result${holder === undefined ? '' : ` (${describeHolder(holder)})`}`;
}

function baseGone(base: string): ObuilderError {
  return new ObuilderError('BASE_GONE', `${base}: the result to start from was deleted meanwhile`, {
    hint: 'run the build again: it makes the result anew',
  });
}
