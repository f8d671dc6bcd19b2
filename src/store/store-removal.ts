import { errnoCode, ObuilderError } from '../errors.ts';
import type { FileLock } from '../fs/file-lock.ts';
import { describeHolder, holdersOf, tryLock } from './store-locks.ts';
import { isDirectory, setAside, type StoreParts } from './store-parts.ts';
import { sweepResults } from './store-recovery.ts';
import { isForWantOfSpace } from './store-space.ts';

export type Removed = (id: string) => void;

/**
 * Takes results out of a store. Each is renamed away, dropped from the index and only then deleted, so it is there or it is not,
 * whenever we are killed. It works on a full disk: it spends the reserve, and makes it again when it is done.
 * What cannot be removed does not keep the others from being removed; it is told at the end.
 */
export class ResultRemover {
  readonly #parts: StoreParts;

  constructor(parts: StoreParts) {
    this.#parts = parts;
  }

  /** Store.delete says what it promises. */
  async delete(id: string, removed?: Removed): Promise<void> {
    const removal = new Removal(this.#parts, removed);
    await this.#deleteTree(id, removal);
    await removal.end();
  }

  /** Removes unused results, the oldest first, as long as `wantsMore` says so; answers how many. */
  async prune(
    before: Date,
    wantsMore: (count: number) => Promise<boolean>,
    removed?: Removed,
  ): Promise<number> {
    const { layout, index, reserve } = this.#parts;
    const removal = new Removal(this.#parts, removed);
    const skipped = new Set<string>();
    let count = 0;
    while (await wantsMore(count)) {
      const id = index.unused(before, skipped.size + 1).find((candidate) => !skipped.has(candidate));
      if (id === undefined) break;
      const lock = await reserve.spend(() => tryLock(layout.resultLock(id), 'exclusive'));
      // What cannot be dropped from the index now comes up again: once is enough.
      skipped.add(id);
      if (lock !== undefined && index.isUnused(id, before)) {
        if (await removal.succeedsIn(() => removal.remove(id, lock))) count++;
      } else lock?.release();
    }
    await removal.end();
    return count;
  }

  /** What `prune` would take, in its order: taking one may leave the one that it was made from without others. */
  prunable(before: Date): string[] {
    const { layout, index } = this.#parts;
    const records = index.records();
    const childCounts = new Map(records.map(({ id, childCount }) => [id, childCount]));
    const left = new Set(
      records.filter(({ id, usedAt }) => usedAt < before && isFree(layout.resultLock(id))),
    );
    const taken: string[] = [];
    for (;;) {
      const next = [...left].find(({ id }) => childCounts.get(id) === 0);
      if (next === undefined) return taken;
      left.delete(next);
      taken.push(next.id);
      const { parent } = next;
      if (parent !== undefined) childCounts.set(parent, (childCounts.get(parent) ?? 0) - 1);
    }
  }

  async #deleteTree(id: string, removal: Removal): Promise<void> {
    const { layout, index, reserve } = this.#parts;
    for (;;) {
      for (const child of index.children(id)) await this.#deleteTree(child, removal);
      const lock = await reserve.spend(() => tryLock(layout.resultLock(id), 'exclusive'));
      if (lock === undefined) throw resultBusy(id, layout.resultLock(id));
      // A build from it may have ended since the children were listed; while we hold the lock none can.
      if (index.children(id).length === 0) {
        await removal.remove(id, lock);
        return;
      }
      lock.release();
    }
  }
}

/** What one call removes. */
class Removal {
  readonly #parts: StoreParts;
  readonly #removed: Removed | undefined;
  readonly #failures: unknown[] = [];

  constructor(parts: StoreParts, removed: Removed | undefined) {
    this.#parts = parts;
    this.#removed = removed;
  }

  /**
   * `lock` is the id's, exclusive; it is released once nobody can find the result any more. When this returns the result is gone;
   * that its files had to stay is told at the end.
   */
  async remove(id: string, lock: FileLock): Promise<void> {
    const { layout, copier, durability, reserve, checkpoint } = this.#parts;
    try {
      const aside = await reserve.spend(() => setAside(copier, layout.result(id), layout.resultsTmp));
      await checkpoint('result-set-aside');
      // A result must not come back after a power failure with a part of its files.
      await durability.names(layout.results);
      await checkpoint('result-hidden');
      const isForgotten = await this.#forget(id);
      await checkpoint('result-forgotten');
      if (isForgotten) lock.release();
      if (aside === undefined || !(await this.succeedsIn(() => this.#removeTree(aside)))) return;
      // There is room now. What still does not go is dropped when the store is next opened.
      if (!isForgotten) await this.#forget(id);
      await checkpoint('result-removed');
      this.#removed?.(id);
    } finally {
      lock.release();
    }
  }

  /** Whether `action` succeeds; otherwise it is told at the end. */
  async succeedsIn(action: () => Promise<void>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (error) {
      if (errnoCode(error) === undefined || (await isForWantOfSpace(error, this.#parts.layout.root)))
        throw error;
      this.#failures.push(error);
      return false;
    }
  }

  /** @throws {ObuilderError} NOT_REMOVED */
  async end(): Promise<void> {
    await this.#parts.reserve.ensureIfRoom();
    if (this.#failures.length > 0) throw notRemoved(this.#failures);
  }

  /** Whether its row is gone; on a disk without any room it stays for now. */
  async #forget(id: string): Promise<boolean> {
    const { layout, index, reserve } = this.#parts;
    try {
      await reserve.spend(() => index.remove(id));
      return true;
    } catch (error) {
      if (await isForWantOfSpace(error, layout.root)) return false;
      throw error;
    }
  }

  /** On ZFS, what killed processes cloned from it must go before it. */
  async #removeTree(aside: string): Promise<void> {
    try {
      await this.#parts.copier.remove(aside);
    } catch (error) {
      await sweepResults(this.#parts);
      if (await isDirectory(aside)) throw error;
    }
  }
}

function isFree(lockPath: string): boolean {
  const lock = tryLock(lockPath, 'exclusive');
  lock?.release();
  return lock !== undefined;
}

function notRemoved(failures: readonly unknown[]): ObuilderError {
  const [first] = failures as readonly [Error];
  const more = failures.length === 1 ? '' : ` (and ${failures.length - 1} more)`;
  return new ObuilderError('NOT_REMOVED', `some results could not be removed: ${first.message}${more}`, {
    hint: 'end what uses them (a mount; on ZFS a clone made by hand), then run: obuilder-fs store verify',
    cause: first,
  });
}

function resultBusy(id: string, lockPath: string): ObuilderError {
  const [holder] = holdersOf(lockPath);
  const who = holder === undefined ? '' : ` (${describeHolder(holder)})`;
  return new ObuilderError('RESULT_BUSY', `${id}: a build is using this result${who}`, {
    hint: 'try again when the build has ended',
  });
}
