import { errnoCode } from '../errors.ts';
import type { DiskSpace } from './store-space.ts';
import type { Store } from './store.ts';

/** When a store removes results by itself. */
export interface AutoPrune {
  /** How many bytes are to be free on a disk of this size. */
  readonly freeBytesMin: (space: DiskSpace) => number;
  /** Hears what is removed. */
  readonly removed?: (id: string) => void;
}

const CHECK_INTERVAL_MS = 2_000;

/**
 * What was used more recently stays. A build holds the results that it needs; this covers the moment between finding one and
 * holding it.
 */
const UNUSED_MS_MIN = 60_000;

/** Keeps so much of a store's disk free, as far as there are results that nobody needs. */
export class RoomKeeper {
  readonly #store: Pick<Store, 'space' | 'makeRoom'>;
  readonly #options: AutoPrune;
  #pruning: Promise<void> | undefined;

  constructor(store: Pick<Store, 'space' | 'makeRoom'>, options: AutoPrune) {
    this.#store = store;
    this.#options = options;
  }

  /** Whoever asks while it is at it waits for the same. */
  async makeRoom(): Promise<void> {
    await (this.#pruning ??= this.#prune().finally(() => (this.#pruning = undefined)));
  }

  /** Looks after the disk as long as `action` runs. @throws what `action` threw, else what went wrong here. */
  async during<T>(action: () => Promise<T>): Promise<T> {
    let failure: { readonly error: unknown } | undefined;
    const timer = setInterval(() => {
      this.makeRoom().catch((error: unknown) => (failure ??= { error }));
    }, CHECK_INTERVAL_MS);
    try {
      const result = await action();
      if (failure !== undefined) throw failure.error;
      return result;
    } finally {
      clearInterval(timer);
      await this.#pruning?.catch(() => undefined);
    }
  }

  async #prune(): Promise<void> {
    const { freeBytesMin, removed } = this.#options;
    const space = await this.#store.space();
    const wanted = freeBytesMin(space);
    if (space.freeBytes >= wanted) return;
    const before = new Date(Date.now() - UNUSED_MS_MIN);
    await this.#store.makeRoom(wanted, before, removed).catch((error: unknown) => {
      // What somebody keeps from being removed is no reason for a step to fail; `store verify` tells of it.
      if (errnoCode(error) !== 'NOT_REMOVED') throw error;
    });
  }
}
