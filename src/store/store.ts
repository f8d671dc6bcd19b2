import type { StepOutcome } from '../sandbox/sandbox.ts';
import type { DiskSpace } from './store-space.ts';

/** What the store knows about a result. */
export interface ResultRecord {
  readonly id: string;
  /** What it was made from; undefined for a base image, and where an older index does not tell. */
  readonly parent: string | undefined;
  /** How many results were made from it. */
  readonly childCount: number;
  readonly createdAt: Date;
  readonly usedAt: Date;
}

/** What `Store.build` is to make. */
export interface BuildRequest {
  readonly id: string;
  readonly base: string | undefined;
  /** Hears what is waited for, as in `another process that is making this result (pid 12, since 13:14:15)`. */
  readonly onWait?: (what: string) => void;
}

/** What `Store.withCopy` is to copy, and as in `BuildRequest` who hears what is waited for. */
export type CopyRequest = Pick<BuildRequest, 'id' | 'onWait'>;

/** A store in which no step runs, in any process, and none begins before `resume`. */
export interface PausedStore {
  /** Removes what steps left in result-tmp and cache-tmp, and answers how many directories that were. */
  sweep(): Promise<number>;
  resume(): void;
}

/** Bytes on disk. What a result or cache shares with others counts in full for each of them. */
export interface StoreUsage {
  readonly results: ReadonlyMap<string, number>;
  /**
   * The part of each result that would stay if it were removed: other names of its files, and storage that clones share.
   * On macOS and ZFS only hard links are known.
   */
  readonly sharedByResults: ReadonlyMap<string, number>;
  readonly caches: ReadonlyMap<string, number>;
  /** What is kept of failed steps, by the ids that they would have had. */
  readonly failed: ReadonlyMap<string, number>;
  /** All of the store, with what is being made; what hard links share counts once, what clones share each time. */
  readonly totalBytes: number;
}

/**
 * The content-addressed store of step results and the named caches.
 *
 * A result is a directory: `rootfs/` (the tree), `log` (what the step printed) and, for a base image, `env`. It exists exactly
 * when `result/ID` exists, appears there in one atomic rename when its step has succeeded, and never changes again.
 * Safe for several builds in one process and for several processes: `build` holds a lock on its id.
 */
export interface Store {
  /** The directory of a saved result, and notes that it was used now; undefined when there is none. */
  use(id: string): Promise<string | undefined>;

  /**
   * Makes result `id`: an empty rootfs, or a copy of `base`'s, is given to `fill` in a directory that is still private
   * (`result-tmp/ID`, holding `rootfs/` and, copied from the base, `env`); `fill` writes `log` there. On `ok` it is saved,
   * on anything else, or when `fill` throws, it is removed and nothing is recorded.
   * Another process may have made it while this one waited for the lock: then `fill` is not called and the answer is `loaded`.
   * `onWait` is called if there is such a wait, or one for a paused store.
   * @throws {ObuilderError} DISK_FULL
   */
  build(
    request: BuildRequest,
    fill: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome | { readonly status: 'loaded' }>;

  /**
   * A private copy of the named cache for one step. Its top directory is made owned by `owner` when given.
   * `release` must be called: it makes the copy the cache's new content if nobody else did so meanwhile, and is called after failed steps too.
   * When `signal` fires before the copy is complete, this throws and nothing is left of it.
   */
  openCache(
    name: string,
    owner?: { readonly uid: number; readonly gid: number },
    signal?: AbortSignal,
  ): Promise<{ readonly directory: string; release(): Promise<void> }>;

  /** The directory of a saved result, as `use`, and does not count as a use. */
  find(id: string): Promise<string | undefined>;

  /**
   * For somebody to look at: gives `look` a private copy of result `id`, or else of what `keepFailed` has kept under it, in a directory as
   * `build` gives one to `fill`. Removes it afterwards, and answers what `look` answered; nothing of it is ever saved.
   * @throws {ObuilderError} NO_SUCH_RESULT, DISK_FULL
   */
  withCopy(
    request: CopyRequest,
    look: (directory: string) => Promise<StepOutcome>,
    signal: AbortSignal,
  ): Promise<StepOutcome>;

  /**
   * To be called by `fill` when it has failed to make result `id`: keeps the directory that it was given, instead of the one that was kept
   * for that id before, and only so many of the latest. It is no result, and nothing is built from it: `withCopy` finds it. `delete`, `prune`
   * and `makeRoom` remove it as a result that was last used now.
   * Answers where it is; undefined when the one before is being looked at, which then stays.
   */
  keepFailed(id: string): Promise<string | undefined>;

  /** Every result, the longest unused first. */
  records(): ResultRecord[];

  /** Measures what is on disk: it reads every directory. */
  usage(): Promise<StoreUsage>;

  /** Of the disk that it lies on. */
  space(): Promise<DiskSpace>;

  /**
   * Keeps a saved result from being removed, by any process, until `release`; undefined when there is no such result.
   * A killed process holds nothing.
   */
  hold(id: string): Promise<{ release(): void } | undefined>;

  /**
   * Removes a result, the results made from it first. `removed` hears each id.
   * @throws {ObuilderError} RESULT_BUSY; NOT_REMOVED when files had to stay.
   */
  delete(id: string, removed?: (id: string) => void): Promise<void>;

  /**
   * Removes results not used since `before`, oldest first, at most `limit`, never one that others were made from. Answers how many.
   * @throws {ObuilderError} NOT_REMOVED, once it is done with the others.
   */
  prune(before: Date, limit: number, removed?: (id: string) => void): Promise<number>;

  /** As `prune`, until so many bytes are free on the disk. */
  makeRoom(freeBytes: number, before: Date, removed?: (id: string) => void): Promise<number>;

  /** What `prune` would remove now, in its order. */
  prunable(before: Date): string[];

  /**
   * Waits until no step runs. `onWait` is called if there is such a wait; it hears for whom, where that is known.
   * Answers undefined when `signal` fires first.
   */
  pause(onWait: (holders: string) => void, signal: AbortSignal): Promise<PausedStore | undefined>;

  close(): void;
}
